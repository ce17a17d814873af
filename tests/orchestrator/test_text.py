from __future__ import annotations

import math
from pathlib import PurePosixPath

import pytest

from orchestrator.text import align, json_able, with_prefix


def test_what_json_has_no_word_for_becomes_null_and_the_unknown_text():
    found = json_able({"a": math.nan, 1: (1.5, -math.inf, True, None), "p": PurePosixPath("x/y")})
    assert found == {"a": None, "1": [1.5, None, True, None], "p": "x/y"}


def test_figures_align_right_and_words_left():
    assert align([["a", "b"], ["x", "1.0"], ["yyy", "-10.0"]]).splitlines() == [
        "a        b",
        "---  -----",
        "x      1.0",
        "yyy  -10.0",
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(8.42e10, "84.2 GB"), (999.0, "999 B"), (1.5e18, "1.5 EB"), (0.0, "0 B")]
)
def test_quantities_carry_three_digits_and_a_prefix(value: float, text: str):
    assert with_prefix(value, "B") == text
