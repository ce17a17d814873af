"""MLflow's page in headless Chromium: select the trials, press Compare, see accuracy over scale and aspect ratio."""

import browser
import pytest
from mlflow_page import mlflow_page, track_sweep

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        browser.CHROMIUM is None or browser.DRIVER is None, reason="no chromium, chromedriver"
    ),
]
AXES = {"masks.target_scale.mid", "masks.target_aspect_ratio.mid"}
_PLOTS = "return [...document.querySelectorAll('.js-plotly-plot')]"


@pytest.fixture(scope="module")
def page(tmp_path_factory, template_database):
    """A browser and the links of a tracked sweep of 20 trials, with MLflow's page behind them."""
    folder = tmp_path_factory.mktemp("runs")
    links = track_sweep(folder, template_database)
    with (
        mlflow_page(folder) as address,
        browser.open_browser(tmp_path_factory.mktemp("profile"), width=1700, height=1800) as driver,
    ):
        yield driver, lambda url: driver.get(url.replace(links.base_url, address)), links


def find_all(driver, css: str, text: str = ""):
    found = driver.find_elements("css selector", css)
    return [each for each in found if text in each.text.strip()] if text else found


def test_selected_trials_compare_over_scale_and_aspect_ratio_without_any_choice(page):
    driver, open_page, links = page
    open_page(links.trials_url)
    browser.wait_for(
        lambda: "20 matching runs" in " ".join(driver.find_element("tag name", "body").text.split()),
        what="the list of trials",
    )
    box = browser.wait_for(
        lambda: find_all(driver, "input[type=checkbox][aria-label='Select all runs']"), what="select all"
    )
    box[0].click()
    browser.wait_for(lambda: find_all(driver, "button", "Compare"), what="the button Compare")[0].click()
    browser.wait_for(lambda: "Comparing 20 Runs" in driver.page_source, what="the comparison of 20 runs")

    lines = browser.wait_for(
        lambda: driver.execute_script(
            f"{_PLOTS}.flatMap(p => p.data).filter(t => t.type === 'parcoords')"
            ".map(t => t.dimensions.map(d => d.label))"
        ),
        what="parallel coordinates",
    )
    assert "accuracy" in lines[0]
    assert lines[0] != ["accuracy"]
    assert any("target_scale" in label for label in lines[0])
    assert any("target_aspect_ratio" in label for label in lines[0])

    browser.wait_for(lambda: find_all(driver, "[role=tab]", "Contour Plot"), what="its tab")[0].click()
    contour = browser.wait_for(
        lambda: driver.execute_script(
            f"{_PLOTS}.filter(p => p.data.some(t => t.type === 'contour'))"
            ".map(p => ({axes: [p.layout.xaxis.title.text, p.layout.yaxis.title.text],"
            " values: p.data.find(t => t.type === 'contour').z.length}))[0]"
        ),
        what="the contour plot",
    )
    assert set(contour["axes"]) == AXES
    assert contour["values"] == 20


def test_the_sweeps_charts_are_laid_out_beforehand(page):
    driver, open_page, links = page
    driver.get("about:blank")
    open_page(links.charts_url)
    browser.wait_for(
        lambda: "contour" in driver.execute_script(f"{_PLOTS}.flatMap(p => p.data.map(t => t.type))"),
        what="the contour over scale and aspect ratio",
    )
    browser.wait_for(
        lambda: "Parallel Coordinates" in driver.page_source and find_all(driver, "canvas"),
        what="parallel coordinates",
    )
    expected = {"Step", "cost/device_hours", "masks.target_scale.mid"}
    browser.wait_for(
        lambda: (
            expected
            <= set(
                driver.execute_script(
                    f"{_PLOTS}.map(p => p.layout.xaxis && p.layout.xaxis.title && p.layout.xaxis.title.text)"
                )
            )
        ),
        what=f"charts over {', '.join(sorted(expected))}",
    )


def test_the_sweeps_run_shows_its_verdict_as_a_note(page):
    driver, open_page, links = page
    driver.get("about:blank")
    open_page(links.run_url())
    browser.wait_for(
        lambda: "is highest with" in driver.page_source or "Winner:" in driver.page_source, what="the note"
    )
