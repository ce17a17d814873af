"""Conditional and tied axes: the points they make, and the faults that are told when the file is read."""

import pytest

from orchestrator.config import apply_overrides, dump, grid_points, grid_size, parse_config, searched_keys
from orchestrator.config.space import axis_value, dimensions, space_text
from orchestrator.errors import ConfigError
from orchestrator.protocol.point import Point

METHODS = """
sweep:
  space:
    objective.mask_fraction: {choices: [0.5, 0.75], when: {objective.name: [mae, data2vec]}}
    objective.name: {choices: [ijepa, mae, dino]}
"""
TIED = """
sweep:
  space:
    train.batch_size: {choices: [64, 128], also: {optimizer.learning_rate: {times: 1.0e-5}}}
    masks.target_scale:
      choices: [[0.1, 0.15], [0.15, 0.2]]
      also: {masks.target_aspect_ratio: [[0.5, 1.0], [1.0, 2.0]]}
"""


def faults_of(space: str, more: str = "") -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(f"sweep: {{{more}space: {{{space}}}}}", source="f.yaml")
    return {fault.key: f"{fault.rule}; {fault.remedy}" for fault in caught.value.faults}


def test_a_conditional_axis_is_there_where_its_condition_holds_and_makes_no_copies_elsewhere() -> None:
    sweep = parse_config(METHODS.replace("[mae, data2vec]", "mae")).sweep
    assert grid_points(sweep) == [
        Point({"objective.name": "ijepa"}),
        Point({"objective.name": "mae", "objective.mask_fraction": 0.5}),
        Point({"objective.name": "mae", "objective.mask_fraction": 0.75}),
        Point({"objective.name": "dino"}),
    ]
    assert grid_size(sweep) == 4


def test_tied_keys_follow_their_axis() -> None:
    config = parse_config(TIED)
    points = grid_points(config.sweep)
    assert len(points) == 4
    assert [point["optimizer.learning_rate"] for point in points] == [0.00064, 0.00064, 0.00128, 0.00128]
    last = apply_overrides(config, points[-1])
    assert last.masks.target_aspect_ratio == (1.0, 2.0)
    assert searched_keys(config.sweep)[2:] == ("optimizer.learning_rate", "masks.target_aspect_ratio")


def test_one_axis_gives_its_own_value_to_two_keys() -> None:
    axis = "masks.target_aspect_ratio: {choices: [[0.9, 1.1]], also: {masks.context_aspect_ratio: same}}"
    (point,) = grid_points(parse_config(f"sweep: {{space: {{{axis}}}}}").sweep)
    assert point["masks.context_aspect_ratio"] == point["masks.target_aspect_ratio"] == (0.9, 1.1)


def test_a_pair_is_drawn_by_its_centre_and_its_width() -> None:
    text = "sweep: {search: random, num_trials: 4, space: {masks.target_scale: {center: [0.2, 0.3], width: [0, 0.1]}}}"
    sweep = parse_config(text).sweep
    axis = sweep.space["masks.target_scale"]
    assert dimensions(sweep.space) == ("masks.target_scale", "masks.target_scale.width")
    assert axis_value(axis, 0.0, 1.0) == (0.15, 0.25)
    assert axis_value(axis, 1.0, 0.0) == (0.3, 0.3)
    assert space_text(sweep) == "masks.target_scale (centre and width)"


def test_a_space_with_conditions_and_ties_loads_back_equal_and_says_what_it_is() -> None:
    for text in (METHODS.replace("[mae, data2vec]", "mae"), TIED):
        config = parse_config(text)
        assert parse_config(dump(config)) == config
    assert space_text(parse_config(TIED).sweep).startswith(
        "train.batch_size (also sets optimizer.learning_rate (times 1e-05))"
    )
    assert "when" not in dump(parse_config("sweep: {space: {encoder.depth: {choices: [1]}}}"))


@pytest.mark.parametrize(
    ("space", "key", "words"),
    [
        (
            "encoder.depth: {choices: [1], when: {encoder.width: 64}}",
            "encoder.depth.when.encoder.width",
            "is not an axis of sweep.space",
        ),
        (
            "encoder.depth: {choices: [1], when: {objective.name: dine}}, objective.name: {choices: [mae, dino]}",
            "encoder.depth.when.objective.name",
            '"dine" is none of that axis\' choices; they are "mae", "dino"',
        ),
        (
            "encoder.depth: {choices: [1, 2], when: {predictor.depth: 1}}, "
            "predictor.depth: {choices: [1, 2], when: {encoder.depth: 1}}",
            "encoder.depth.when",
            "waits for itself, among encoder.depth, predictor.depth",
        ),
        (
            "encoder.depth: {choices: [1, 2], also: {predictor.depth: [1]}}",
            "encoder.depth.also.predictor.depth",
            "must hold one value for each of the 2 choices, not 1",
        ),
        (
            "encoder.depth: {choices: [1], also: {predictor.depth: same}}, predictor.depth: {choices: [1]}",
            "encoder.depth.also.predictor.depth",
            "is an axis itself",
        ),
        (
            "encoder.depth: {choices: [1], also: {predictor.dept: same}}",
            "encoder.depth.also.predictor.dept",
            "did you mean `predictor.depth`?",
        ),
        (
            "masks.sampler: {choices: [exact], also: {encoder.depth: {times: 2}}}",
            "masks.sampler.also.encoder.depth",
            "multiplies what is no number",
        ),
        (
            "encoder.depth: {choices: [1, 2], also: {optimizer.learning_rate: [0.1, -1.0]}}",
            "encoder.depth.also.optimizer.learning_rate",
            "must be above 0",
        ),
        (
            "encoder.depth: {choices: [1], also: {train.seed: same}}",
            "encoder.depth.also.train.seed",
            "list the seeds in `sweep.seeds`",
        ),
    ],
)
def test_a_fault_of_a_conditional_or_tied_axis_is_told_at_its_place(space: str, key: str, words: str) -> None:
    assert words in faults_of(space)[f"sweep.space.{key}"]


def test_a_value_that_is_wrong_only_where_its_condition_holds_is_found() -> None:
    axes = "objective.name: {choices: [ijepa, mae]}, "
    axes += "objective.mask_fraction: {choices: [0.5, 1.5], when: {objective.name: mae}}"
    found = faults_of(axes)
    assert list(found) == ["sweep.space.objective.mask_fraction.choices[1]"]
    without = "objective.name: {choices: [ijepa, mae]}, objective.mask_fraction: {choices: [0.5]}"
    assert "is not a setting of objective.name ijepa" in str(faults_of(without))


@pytest.mark.parametrize(
    ("sweep", "key", "words"),
    [
        ("trade_off: gpu_hours", "sweep.trade_off", "needs a search that proposes, not grid"),
        (
            "trade_off: gpu_hours, search: optuna, num_trials: 3, asha: {first_rung_images: 1000}",
            "sweep.trade_off",
            "stops what is cheap and less accurate",
        ),
        ("warm_start: masks-1", "sweep.warm_start", "set sweep.search to optuna or gp"),
    ],
)
def test_what_only_a_proposing_search_can_do_is_refused_elsewhere(sweep: str, key: str, words: str) -> None:
    assert words in faults_of("encoder.depth: {choices: [1, 2]}", f"{sweep}, ")[key]
