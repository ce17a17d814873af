from __future__ import annotations

import copy
import json
import pickle

import pytest

from orchestrator.protocol.events import Entry, TrialPlanned, parse
from orchestrator.protocol.point import Point, middle_of, value_key, value_words

SCALE, ASPECT = "masks.target_scale", "masks.target_aspect_ratio"
POINT = Point({SCALE: [0.15, 0.2], "masks.sampler": "exact", "masks.num_target_blocks": 4})


def test_the_order_of_keys_makes_no_other_point() -> None:
    turned = Point({key: POINT[key] for key in reversed(list(POINT))})
    assert turned == POINT
    assert hash(turned) == hash(POINT)
    assert list(turned) != list(POINT)


def test_a_pair_is_the_same_as_a_list_and_as_a_tuple_and_is_kept_as_a_tuple() -> None:
    assert Point({SCALE: (0.15, 0.2)}) == Point({SCALE: [0.15, 0.2]})
    assert Point({SCALE: [0.15, 0.2]})[SCALE] == (0.15, 0.2)


@pytest.mark.parametrize("other", [1.0, True, "1", None, (1,)])
def test_a_whole_number_is_recognised_as_no_other_value(other: object) -> None:
    assert Point({"x": 1}) != Point({"x": other})
    assert value_key(1) != value_key(other)


def test_a_point_is_not_changed_by_what_it_was_made_of() -> None:
    given = {SCALE: [0.15, 0.2]}
    point = Point(given)
    given[SCALE].append(0.3)
    assert point == Point({SCALE: [0.15, 0.2]})


def test_a_point_is_recognised_after_a_journey_between_processes() -> None:
    assert pickle.loads(pickle.dumps(POINT)) == copy.deepcopy(POINT) == POINT
    assert len({POINT, pickle.loads(pickle.dumps(POINT))}) == 1


def test_what_json_does_not_hold_is_no_value() -> None:
    with pytest.raises(ValueError, match=r"what JSON holds, not a set"):
        Point({"x": {1, 2}})


def test_a_point_comes_back_from_json_in_the_order_of_its_axes() -> None:
    again = Point(json.loads(json.dumps(POINT.to_json())))
    assert again == POINT
    assert list(again) == list(POINT)


def test_the_journal_holds_a_point_as_json_and_gives_it_back() -> None:
    event = TrialPlanned(trial_id="t", index=0, point=POINT, seed=0, name="", total_images=8)
    text = json.dumps(Entry(sequence=0, time_ms=1, event=event).to_json())
    assert '"point": {"masks.target_scale": [0.15, 0.2], "masks.sampler": "exact"' in text
    assert parse(json.loads(text), where="journal/0").event == event


def test_a_point_is_recognised_by_json_with_sorted_keys() -> None:
    assert POINT.text == json.dumps(POINT.to_json(), sort_keys=True)
    assert POINT.text.startswith('{"masks.num_target_blocks": 4, "masks.sampler": "exact"')


def test_a_point_is_said_by_the_last_part_of_its_keys() -> None:
    point = Point(
        {SCALE: (0.15, 0.2), "optimizer.learning_rate": 0.000123456, "sampler": "exact", "flag": True}
    )
    assert point.words == "target scale 0.15-0.2, learning rate 0.0001235, sampler exact, flag True"
    assert Point({}).words == "base configuration"
    assert value_words((0.75, 1.3333333)) == "0.75-1.333"


def test_the_middle_of_a_scale_is_arithmetic_and_that_of_an_aspect_ratio_geometric() -> None:
    point = Point({SCALE: (0.1, 0.4), ASPECT: (0.75, 4 / 3), "data.crop_aspect_ratio": (0.5, 8.0)})
    assert point.middle(SCALE) == 0.25
    assert point.middle(ASPECT) == pytest.approx(1.0)
    assert point.middle("data.crop_aspect_ratio") == pytest.approx(2.0)


@pytest.mark.parametrize("value", ["exact", True, None, (), (0.1,), (0.1, 0.2, 0.3), (0.1, "x"), (True, 2)])
def test_what_is_no_number_and_no_pair_has_no_middle(value: object) -> None:
    assert middle_of("x", value) is None


def test_a_number_stands_for_itself_and_an_axis_that_a_point_lacks_for_nothing() -> None:
    assert Point({"masks.num_target_blocks": 4}).middle("masks.num_target_blocks") == 4.0
    assert POINT.middle(ASPECT) is None
