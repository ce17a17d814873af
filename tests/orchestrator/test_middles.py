"""The middle of a pair is one rule for whoever plots, fits or records it."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from orchestrator.config import parse_config
from orchestrator.protocol.point import Point
from orchestrator.report import summarize
from orchestrator.report.page.plots import _draw_points
from orchestrator.report.statistics.findings import _Span
from orchestrator.report.statistics.realised import _other_figures
from orchestrator.sweep.core.record import SweepRecord, TrialRecord
from orchestrator.sweep.foresight.geometries import _axis_figures, audit_sweep
from orchestrator.sweep.space.points import plan_sweep
from orchestrator.tracking.base import expand_params

SCALE, ASPECT, CROP = "masks.target_scale", "masks.target_aspect_ratio", "data.crop_aspect_ratio"
MIDDLES = {SCALE: [0.1, 0.2], ASPECT: [1.0, 2.0], CROP: [1.0, 2.0]}
PAIRS = {
    SCALE: [(0.05, 0.15), (0.15, 0.25)],
    ASPECT: [(0.5, 2.0), (1.0, 4.0)],
    CROP: [(0.5, 2.0), (1.0, 4.0)],
}
POINTS = [Point({key: pairs[place] for key, pairs in PAIRS.items()}) for place in (0, 1)]


def test_mlflow_has_the_middle_beside_each_pair() -> None:
    found = [expand_params(point) for point in POINTS]
    assert {key: [float(each[f"{key}.mid"]) for each in found] for key in PAIRS} == MIDDLES


def test_a_figure_over_two_axes_has_each_pair_at_its_middle() -> None:
    config = parse_config("{}")
    record = SweepRecord(sweep_id="s")
    for index, point in enumerate(POINTS):
        values = {"probe/linear/mean": 40.0 + index}
        record.trials[str(index)] = TrialRecord(
            trial_id=str(index), index=index, point=point, seed=0, state="finished", metrics=values
        )
    axes = Figure().add_subplot()
    _draw_points(summarize(config, record), axes, [SCALE, ASPECT])
    drawn = np.asarray(axes.collections[0].get_offsets())
    np.testing.assert_allclose(drawn[np.argsort(drawn[:, 0])].T, [MIDDLES[SCALE], MIDDLES[ASPECT]])


def test_axes_that_move_together_are_told_by_their_middles() -> None:
    choices = "".join(
        f"{key}: {{choices: {[list(pair) for pair in pairs]}}}, " for key, pairs in PAIRS.items()
    )
    config = parse_config(f"sweep: {{space: {{{choices}}}}}")
    geometries = audit_sweep(config, plan_sweep(config)).geometries
    found = _axis_figures(config, geometries)
    assert {key: sorted(set(found[key])) for key in (SCALE, ASPECT)} == {
        SCALE: MIDDLES[SCALE],
        ASPECT: MIDDLES[ASPECT],
    }


def test_what_is_tried_next_is_spread_by_middles_and_inside_them() -> None:
    for key, pairs in PAIRS.items():
        span = _Span.of(key, pairs)
        assert span.holds(pairs[0])
        drawn = Point({key: span.at(0.5)})
        assert drawn.middle(key) == pytest.approx(np.sqrt(np.prod(MIDDLES[key])), rel=0.01)


def test_a_response_surface_has_an_axis_of_pairs_at_their_middles() -> None:
    assert [_other_figures(point)[CROP] for point in POINTS] == MIDDLES[CROP]
