"""The view of a sweep's trials on MLflow's page: which runs, which columns, in which order.

MLflow keeps a shared view as an experiment tag and opens it by a key in the page's address. The form of the tag is not
documented (read off 3.17, where it works); a page that does not know it shows its default columns.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from orchestrator.tracking.base import HEADLINE

_COST_COLUMNS = ("cost/gpu_hours", "cost/cpu_core_hours")


def shared_view_tag(sweep_id: str) -> str:
    """The experiment tag that holds a sweep's view."""
    return f"mlflow.sharedViewState.{sweep_id}"


def shared_view(sweep_id: str, params: Iterable[str]) -> str:
    """The trials of a sweep, best first, with what was varied and what came of it as columns."""
    shown = [key for key in params if not key.endswith(".mid")]
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
    }
    return json.dumps(state)
