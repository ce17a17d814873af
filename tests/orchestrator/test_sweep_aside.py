import logging

import pytest

from orchestrator.sweep.run.aside import Aside


def test_work_aside_is_done_once_and_waited_for() -> None:
    done: list[int] = []
    aside = Aside("counting", lambda: done.append(1))
    aside.begin()
    aside.begin()
    aside.wait()
    assert done == [1]


def test_work_aside_that_was_never_begun_is_not_waited_for() -> None:
    done: list[int] = []
    Aside("counting", lambda: done.append(1)).wait()
    assert done == []


def test_work_aside_that_fails_is_told_of_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    aside = Aside("drawing", lambda: [][0])
    with caplog.at_level(logging.WARNING):
        aside.begin()
        aside.wait()
    assert "drawing failed; the sweep goes on without it" in caplog.text
