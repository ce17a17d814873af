"""The rules of a sweep's listed points."""

from __future__ import annotations

import pytest

from orchestrator.config import json_schema, parse_config, searched_keys
from orchestrator.errors import ConfigError

TWO = """
sweep:
  points:
    - {name: base}
    - {name: small, set: {masks.target_scale: [0.1, 0.15], masks.num_target_blocks: 3}, published: 12.5}
"""


def faults_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, source="sweep.yaml")
    return [str(fault) for fault in caught.value.faults]


def test_points_vary_the_keys_that_any_of_them_sets():
    sweep = parse_config(TWO).sweep
    assert searched_keys(sweep) == ("masks.target_scale", "masks.num_target_blocks")
    assert [point.published for point in sweep.points] == [None, 12.5]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (
            "set: {masks.target_scal: [0.1, 0.15]}",
            "is not a known key; did you mean `masks.target_scale`?",
        ),
        ("set: {train.seed: 3}", "is not an axis; list the seeds in `sweep.seeds`"),
        ("set: {masks.target_scale: [0.2, 0.1]}", "must be [low, high] with low at most high"),
        ("set: {masks.target_scale: [0.01, 0.02]}", "fewer than min_target_patches (4)"),
        ("set: {masks.context_keep: 0.9}", "try context_keep: 0.8"),
        ("set: {masks.num_target_blocks: 4}", "comes to the same configuration as 'base'"),
    ],
)
def test_a_point_that_breaks_a_rule_is_named_with_its_place(change: str, rule: str):
    text = f"""
# a sweep
sweep:
  points:
    - {{name: base}}
    - {{name: odd, {change}}}
"""
    found = faults_of(text)
    assert len(found) == 1
    assert rule in found[0]
    assert found[0].startswith("sweep.yaml:6:")
    assert "sweep.points[1]" in found[0]


def test_points_beside_a_space_or_another_search_are_refused():
    space = TWO + "  space: {masks.context_keep: {choices: [0.2, 0.25]}}\n  search: random\n  num_trials: 3\n"
    text = "\n".join(faults_of(space))
    assert "sweep.points: cannot stand beside sweep.space" in text
    assert "sweep.search: must be grid where sweep.points are listed" in text


def test_a_point_is_checked_as_a_whole():
    """Each of the two values is fine alone: together they leave no room for context."""
    text = """
sweep:
  points:
    - {name: both, set: {masks.min_context_patches: 120, masks.target_scale: [0.5, 0.6], masks.context_keep: all}}
"""
    (found,) = faults_of(text)
    assert "which leave" in found


def test_an_editor_knows_the_keys_that_a_point_may_set():
    names = json_schema()["$defs"]["ListedPoint"]["properties"]["set"]["propertyNames"]["enum"]
    assert "masks.target_scale" in names
    assert "train.seed" not in names


def test_two_points_of_one_name_are_refused():
    text = "sweep: {points: [{name: a}, {name: a, set: {masks.num_target_blocks: 3}}]}"
    assert faults_of(text) == [
        "sweep.yaml:1:36: sweep.points[1].name: is the name of point 0 too (given: a); rename one"
    ]
