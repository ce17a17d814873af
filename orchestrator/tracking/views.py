"""The view of a sweep's trials on MLflow's page: which runs, which columns, in which order.

MLflow keeps a shared view as an experiment tag and opens it by a key in the page's address. The form of the tag is not
documented (read off 3.17, where it works); a page that does not know it shows its default columns.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from orchestrator.protocol.metrics import CPU_CORE_HOURS, DEVICE_HOURS, GPU_HOURS, HEADLINE

_SECTION = "sweep"
_COST_COLUMNS = (GPU_HOURS, CPU_CORE_HOURS)
_FIRST_AXES = ("masks.target_scale.mid", "masks.target_aspect_ratio.mid")
_RUNS_SHOWN = 20


def shared_view_tag(sweep_id: str) -> str:
    """The experiment tag that holds a sweep's view."""
    return f"mlflow.sharedViewState.{sweep_id}"


def shared_view(sweep_id: str, params: Iterable[str]) -> str:
    """The trials of a sweep, best first, with what was varied and what came of it as columns and charts."""
    keys = list(params)
    shown = [key for key in keys if not key.endswith(".mid")]
    columns = [f"metrics.`{key}`" for key in (HEADLINE, *_COST_COLUMNS)]
    state = {
        "searchFilter": f"tags.`orchestrator.sweep_id` = '{sweep_id}' and tags.`orchestrator.kind` = 'trial'",
        "orderByKey": f"metrics.`{HEADLINE}`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": [*columns, *(f"params.`{key}`" for key in shown)],
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "viewMaximized": True,
        "useGroupedValuesInCharts": True,
        "isAccordionReordered": True,  # else sections are sorted by name and ours is somewhere below
        "compareRunCharts": _charts(keys),
        "compareRunSections": [_section()],
        "runsHiddenMode": "SHOWALL",
    }
    return json.dumps(state)


def _section() -> dict[str, Any]:
    """The section that holds our charts, two beside each other."""
    size = {"columns": 2, "cardHeight": 380}
    return {"uuid": _SECTION, "name": "Sweep", "display": True, "isReordered": True, **size}


def _charts(keys: list[str]) -> list[dict[str, Any]]:
    """Accuracy over images, over device hours, over the varied axes as contours and as parallel coordinates."""
    axes = _plot_axes(keys)
    charts = [
        _line("accuracy over images seen", {"xAxisKey": "step"}),
        _line("accuracy over device hours", {"xAxisKey": "metric", "selectedXAxisMetricKey": DEVICE_HOURS}),
    ]
    if len(axes) >= 2:
        places = {
            "xaxis": {"key": axes[0], "type": "PARAM"},
            "yaxis": {"key": axes[1], "type": "PARAM"},
            "zaxis": {"key": HEADLINE, "type": "METRIC"},
        }
        charts.append(_chart("CONTOUR", f"accuracy over {axes[0]} and {axes[1]}", places))
    if axes:
        lines = {"selectedParams": axes, "selectedMetrics": [DEVICE_HOURS, HEADLINE], "showAllRuns": True}
        charts.append(_chart("PARALLEL", "what was varied, its cost and its accuracy", lines))
    return charts


def _plot_axes(keys: list[str]) -> list[str]:
    """One numeric parameter for each axis, scale and aspect ratio first; a pair is plotted by its middle."""
    pairs = {key.removesuffix(".mid") for key in keys if key.endswith(".mid")}
    axes = [key for key in keys if key not in pairs and key != "train.seed"]
    return [*(key for key in _FIRST_AXES if key in axes), *(key for key in axes if key not in _FIRST_AXES)]


def _line(name: str, across: dict[str, str]) -> dict[str, Any]:
    line = {"metricKey": HEADLINE, "selectedMetricKeys": [HEADLINE], "useGlobalXaxisKey": False}
    scales = {"xAxisScaleType": "linear", "scaleType": "linear", "yAxisKey": "metric", "lineSmoothness": 0}
    ranges = {"range": {}, "yAxisExpressions": [], "ignoreOutliers": False, "useGlobalLineSmoothing": True}
    return _chart("LINE", name, {**line, **scales, **ranges, **across})


def _chart(kind: str, name: str, fields: dict[str, Any]) -> dict[str, Any]:
    """A chart card as MLflow keeps it; `name` is its title and makes its id."""
    card = {"type": kind, "uuid": name.replace(" ", "-"), "displayName": name, "metricSectionId": _SECTION}
    fixed = {"deleted": False, "isGenerated": False, "runsCountToCompare": _RUNS_SHOWN}
    return {**card, **fixed, **fields}
