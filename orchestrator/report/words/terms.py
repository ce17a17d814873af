"""What a sweep is about, and the words for it: geometries, methods, other settings, members of a population. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What is compared: `question` heads the verdict, `one` and `many` name what has a rank, `title` the page."""

    question: str
    one: str
    many: str
    title: str


MASKS = Terms(question="Which mask", one="geometry", many="geometries", title="Mask sweep")
METHODS = Terms(question="Which method", one="method", many="methods", title="Method sweep")
SETTINGS = Terms(question="Which setting", one="setting", many="settings", title="Sweep")
POPULATION = Terms(question="Which member", one="member", many="members", title="Population")


def terms_of(keys: Sequence[str]) -> Terms:
    """What a sweep that varies these dotted keys is about; one that varies nothing, or masks too, is about masks."""
    if "objective.name" in keys:
        return METHODS
    if not keys or any(key.startswith("masks.") for key in keys):
        return MASKS
    return SETTINGS
