"""How many examples a test draws: on a commit a fifth, the same ones every time; nightly all, others every night.

`make test-all` runs with `--hypothesis-profile nightly`. No example has a time limit: machines are busy.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings

_COMMIT_SHARE, _FEWEST = 5, 10

settings.register_profile("commit", max_examples=100 // _COMMIT_SHARE, deadline=None, derandomize=True)
settings.register_profile("nightly", max_examples=100, deadline=None, print_blob=True)


def num_examples(nightly: int) -> int:
    """How many of a nightly number are drawn now."""
    is_nightly = settings.get_current_profile_name() == "nightly"
    return nightly if is_nightly else max(_FEWEST, nightly // _COMMIT_SHARE)


def examples(nightly: int, **more: Any) -> settings:
    """The settings of a property test that draws so many examples nightly."""
    return settings(max_examples=num_examples(nightly), deadline=None, **more)
