"""`masks preview` and `masks audit`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.app import app
from orchestrator.cli.options import config_argument, emit, json_option
from orchestrator.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from orchestrator.config import RunConfig
    from orchestrator.sweep.foresight import SweepAudit


_MAX_MAPS = 16
_MAX_NOTES = 20


@app.group()
def masks() -> None:
    """Mask geometries: pictures of what they hide, and what they really come to."""


@masks.command()
@config_argument
@click.option("--out", type=click.Path(file_okay=False), help="Folder to write to; default: masks-NAME.")
@click.option(
    "--images", default=6, show_default=True, type=click.IntRange(1, 64), help="Images in a picture."
)
@click.option("--most", default=16, show_default=True, type=click.IntRange(1), help="Geometries at most.")
@json_option
def preview(
    file: str, overrides: tuple[str, ...], out: str | None, images: int, most: int, as_json: bool
) -> None:
    """Draw what each geometry of FILE shows and hides, on the first images of its own data: a PNG a geometry."""
    from orchestrator.cli.progress import telling
    from orchestrator.data import prepare_data
    from orchestrator.report.page import images_from, previews

    config, audit = _audited(file, overrides)
    with telling() as tell:
        shards = prepare_data(config, progress=tell)
        tell(f"drawing {min(most, len(audit.geometries))} of the geometries: {len(audit.geometries)}")
        pictures = previews(audit, images_from(config, shards, images), most=most)
    folder = _folder(config, out)
    paths = [_write(folder / f"{name}.png", data) for name, data in pictures.items()]
    left = len(audit.geometries) - len(paths)
    lines = [*paths, *([f"{left} more geometries are not drawn; raise --most"] if left > 0 else [])]
    emit(as_json, {"pictures": paths, "geometries_left_out": max(0, left)}, "\n".join(lines))


@masks.command()
@config_argument
@click.option("--out", type=click.Path(file_okay=False), help="Folder to write to; default: masks-NAME.")
@json_option
def audit(file: str, overrides: tuple[str, ...], out: str | None, as_json: bool) -> None:
    """Say what each geometry of FILE really masks: a table here, and a page with heat maps for the whole sweep."""
    from orchestrator.report.page import LEGEND, audit_rows, coverage_picture, coverage_text, render_audit
    from orchestrator.text import align, json_able

    config, found = _audited(file, overrides)
    folder = _folder(config, out)
    page = _write(folder / "audit.html", render_audit(config.name, found).encode())
    picture = _write(folder / "coverage.png", coverage_picture(found, most=_MAX_MAPS))
    figures = _write(folder / "audit.json", json.dumps(json_able(found.to_json()), indent=1).encode())
    lines = [align(audit_rows(found)), "", *(f"  {line}" for line in LEGEND)]
    if len(found.geometries) == 1:
        lines += ["", coverage_text(found.geometries[0])]
    notes = (*found.notes, *found.warnings)
    remarks = [f"note: {note}" for note in notes[:_MAX_NOTES]]
    remarks += [f"and {len(notes) - _MAX_NOTES} more notes, on the page"] if len(notes) > _MAX_NOTES else []
    written = [f"page: {page}", f"picture: {picture}", f"figures: {figures}"]
    places = {"page": page, "picture": picture, "figures": figures}
    emit(as_json, {**found.to_json(), **places}, "\n".join([*lines, "", *remarks, *written]))


def _audited(file: str, overrides: tuple[str, ...]) -> tuple[RunConfig, SweepAudit]:
    """A sweep's configuration, with what was merged of it among the notes of its audit."""
    from dataclasses import replace

    from orchestrator.config import load_config
    from orchestrator.sweep.foresight import audit_sweep
    from orchestrator.sweep.space import plan_sweep

    config = load_config(file, overrides)
    plan = plan_sweep(config)
    found = audit_sweep(config, plan)
    if not found.geometries:
        raise ConfigError(f"{file}: no method of this sweep reads masks: {'; '.join(found.notes)}")
    return config, replace(found, notes=(*plan.notes, *found.notes))


def _folder(config: RunConfig, out: str | None) -> Path:
    return Path(out) if out is not None else Path(f"masks-{config.name}")


def _write(path: Path, data: bytes) -> str:
    """Write a file and its folder; returns where it is, from the root.

    Raises:
        StorageError: The folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as err:
        raise StorageError(
            f"{path}: cannot be written ({err.strerror or err}); choose another --out"
        ) from err
    return str(path.absolute())
