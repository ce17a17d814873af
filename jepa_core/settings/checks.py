"""Rules that the settings of several methods share; a message names the field first, then the rule and the value."""

from __future__ import annotations

from typing import Any


def check_positive(settings: Any, *names: str) -> None:
    """Refuse values of 0 and below; None is left alone."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and value <= 0:
            raise ValueError(f"{name} must be above 0, not {value}")


def check_not_negative(settings: Any, *names: str) -> None:
    """Refuse negative values."""
    for name in names:
        if getattr(settings, name) < 0:
            raise ValueError(f"{name} must not be negative, not {getattr(settings, name)}")


def check_fractions(settings: Any, *names: str) -> None:
    """Refuse values that are not between 0 and 1, both left out."""
    for name in names:
        if not 0 < getattr(settings, name) < 1:
            raise ValueError(f"{name} must be above 0 and below 1, not {getattr(settings, name)}")


def check_unit(settings: Any, *names: str) -> None:
    """Refuse values that are not from 0 to 1, both included."""
    for name in names:
        if not 0 <= getattr(settings, name) <= 1:
            raise ValueError(f"{name} must be from 0 to 1, not {getattr(settings, name)}")


def check_area(settings: Any, *names: str) -> None:
    """Refuse ranges of areas that are not [low, high] with 0 < low <= high <= 1."""
    for name in names:
        low, high = getattr(settings, name)
        if not 0 < low <= high <= 1:
            raise ValueError(f"{name} must be [low, high] with 0 < low <= high <= 1, not {[low, high]}")
