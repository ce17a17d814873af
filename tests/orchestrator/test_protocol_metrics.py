import ast
import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from jepa_core.phases import PHASES
from orchestrator.protocol import metrics
from orchestrator.protocol.metrics import baseline_metric, by_label, of_context, phase_s, probe_metric

ROOT = Path(__file__).parents[2]
NAMES = {
    value for key, value in vars(metrics).items() if key.isupper() and isinstance(value, str) and "/" in value
}
GROUPS = {name.partition("/")[0] for name in NAMES}
A_NAME = re.compile(rf"/?({'|'.join(sorted(GROUPS))})/[a-z_/]*")


def _texts(path: Path) -> Iterator[ast.Constant]:
    """The texts of a module, those of f-strings among them, but its docstrings."""
    tree = ast.parse(path.read_text())
    documented = [node for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    said = {id(node.value) for node in documented if isinstance(node.value, ast.Constant)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            yield node


def test_a_metric_is_named_in_the_protocol_alone() -> None:
    sources = [path for path in (ROOT / "orchestrator").rglob("*.py") if path != Path(metrics.__file__)]
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.value!r}"
        for path in sources
        for node in _texts(path)
        if A_NAME.fullmatch(node.value)
    ]
    assert len(sources) > 200
    assert found == [], "name them in orchestrator/protocol/metrics.py"


def test_every_metric_of_the_core_that_is_read_here_is_one_that_it_measures() -> None:
    core = {node.value for path in (ROOT / "jepa_core").rglob("*.py") for node in _texts(path)}
    own = {name for name in NAMES if name.startswith(("masks/", "health/")) and not name.endswith("/")}
    measured_here = {"health/lidar", "health/target_spread", "health/target_movement"}
    assert {name for name in own if not name.startswith("health/loss_")} - measured_here <= core
    assert {metrics.LOSS, metrics.MOMENTUM} <= core


def test_no_kept_journal_holds_a_metric_of_another_group() -> None:
    with gzip.open(ROOT / "benchmarks/results/sweeps/masks-16000-images.jsonl.gz", "rt") as lines:
        rows = [row for line in lines for row in json.loads(line).get("rows", ())]
    names = {name for row in rows for name in row["metrics"]}
    phases = {phase_s(phase) for phase in PHASES}
    assert {name.partition("/")[0] for name in names} <= GROUPS
    assert {name for name in names if name.startswith("time/")} - NAMES <= phases


@pytest.mark.parametrize(
    ("metric", "told_apart"),
    [
        ("probe/linear/class", "probe/linear_context/class"),
        ("probe/knn/a.b", "probe/knn_context/a.b"),
        ("baseline/untrained/linear/mean", "baseline/untrained/linear_context/mean"),
        ("health/std", "health/std"),
    ],
)
def test_a_figure_of_the_context_encoder_says_so_after_its_kind(metric: str, told_apart: str) -> None:
    assert of_context(metric) == told_apart


def test_accuracies_are_read_back_by_label() -> None:
    row = {
        probe_metric("linear", "class"): 40.0,
        probe_metric("linear"): 50.0,
        "probe/linear_context/class": 1.0,
    }
    row[baseline_metric(probe_metric("linear", "class"))] = 30.0
    assert by_label(row, "linear") == {"class": 40.0, "mean": 50.0}
    assert by_label(row, "linear", of=metrics.UNTRAINED) == {"class": 30.0}
