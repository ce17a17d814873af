"""Renew docs/images: the report in both themes and at phone width, MLflow's charts and comparison.

Needs chromium and chromedriver. The report is that of a real sweep, given by the folder of its runs and its id;
MLflow's pictures are of the tests' synthetic sweep of 20 geometries, which fills a contour plot.

    orchestrator sweep sweeps/masks.yaml --set 'sweep.seeds=[0, 1]'
    python docs/make_screenshots.py runs masks-20260101-120000-ab12
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import browser
from mlflow_page import mlflow_page, track_sweep

from orchestrator.config.models import TrackingConfig
from orchestrator.report import load_sweep, write_report
from orchestrator.tracking import find_location
from orchestrator.tracking.client import open_client

IMAGES = Path(__file__).parent / "images"
_SETTLE_S = 12


def shrink(path: Path, box: tuple[int, int, int, int]) -> None:
    """Cut to a box and save small."""
    with Image.open(path) as image:
        cut = image.convert("RGB").crop(box)
    cut.save(path, optimize=True)


def shoot_report(page: str) -> None:
    """The page's top in both themes, and on a phone."""
    for name, width, height, dark in (
        ("report-light", 1200, 2300, False),
        ("report-dark", 1200, 2300, True),
        ("report-phone", 390, 2000, False),
    ):
        path = IMAGES / f"{name}.png"
        with (
            tempfile.TemporaryDirectory() as profile,
            browser.open_browser(Path(profile), width=width, height=height, dark=dark) as driver,
        ):
            driver.get(page)
            driver.save_screenshot(str(path))
        shrink(path, (0, 0, width, height))


def shoot_mlflow(folder: Path, links_of: dict[str, str], base_url: str) -> None:
    """The charts of the sweep and the comparison's contour."""
    with (
        mlflow_page(folder) as address,
        tempfile.TemporaryDirectory() as profile,
        browser.open_browser(Path(profile), width=1700, height=1250) as driver,
    ):
        for name, url in links_of.items():
            path = IMAGES / f"{name}.png"
            driver.get("about:blank")
            driver.get(url.replace(base_url, address))
            time.sleep(_SETTLE_S)
            for tab in driver.find_elements("css selector", "[role=tab]"):
                if tab.text == "Contour Plot":
                    tab.click()
                    time.sleep(_SETTLE_S / 4)
            driver.save_screenshot(str(path))
            shrink(path, (0, 0, 1260, 1250 if name == "mlflow-charts" else 760))


def main() -> None:
    """Write the report of a sweep and keep pictures of it; track the synthetic one and keep pictures of MLflow."""
    IMAGES.mkdir(exist_ok=True)
    runs_folder, sweep_id = sys.argv[1:]
    config, record, uri = load_sweep(runs_folder, sweep_id)
    write_report(config, record, uri)
    shoot_report(f"file://{uri}/report/report.html")
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        open_client(find_location(TrackingConfig(), str(folder / "empty"))).search_experiments()
        runs = folder / "runs"
        runs.mkdir()
        links = track_sweep(runs, folder / "empty" / "mlflow.db", seeds=(0, 1, 2))
        shoot_mlflow(
            runs, {"mlflow-charts": links.charts_url, "mlflow-contour": links.compare_url}, links.base_url
        )


if __name__ == "__main__":
    main()
