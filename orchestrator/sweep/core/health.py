"""Stopping runs that no longer learn: collapse, NaN, divergence, a target encoder that stands still.

Pure rules over a trial's metric history. They can say that a run is lost, never that one is better than another: the
probe alone ranks. Every rule but the first waits for a grace period, and must hold at several reports in a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from orchestrator.config.models import HealthConfig
from orchestrator.protocol.metrics import (
    EFFECTIVE_RANK,
    FEATURE_STD,
    LOSS,
    MOMENTUM,
    TARGET_MOVEMENT,
    TARGET_SPREAD,
)

History = Mapping[int, Mapping[str, float]]
Metrics = Mapping[str, float]

_UNTRAINED = 0


def judge_health(
    history: History, *, total_images: int, settings: HealthConfig, has_scaled_targets: bool = True
) -> str | None:
    """Why a trial is to be stopped, or None; `history` maps images seen to metrics, the untrained encoder's at 0.

    `has_scaled_targets` says that the loss is one of I-JEPA's, of targets whose variance is 1 at most.
    """
    if not settings.stop_unhealthy or not history:
        return None
    images = max(history)
    loss = history[images].get(LOSS)
    if loss is not None and not math.isfinite(loss):
        return f"not finite: the loss is {loss} at {images:,} images"
    if images < settings.grace_fraction * total_images:
        return None
    trained = [history[at] for at in sorted(history) if at > _UNTRAINED]
    rules = (_worse_than_nothing, *_RULES) if has_scaled_targets else _RULES
    for rule in rules:
        said = _lasting(rule, trained, history, settings)
        if said is not None:
            return f"{said} at {images:,} images"
    return None


def _lasting(
    rule: Callable[[Metrics, History, HealthConfig], str | None],
    trained: Sequence[Metrics],
    history: History,
    settings: HealthConfig,
) -> str | None:
    """What a rule says of the newest report, when it has held for the last `patience_reports` in a row."""
    if len(trained) < settings.patience_reports:
        return None
    said = [rule(metrics, history, settings) for metrics in trained[-settings.patience_reports :]]
    return said[-1] if all(text is not None for text in said) else None


def _diverged(metrics: Metrics, history: History, settings: HealthConfig) -> str | None:
    losses = [row[LOSS] for row in history.values() if LOSS in row]
    loss = metrics.get(LOSS, math.nan)
    lowest = min((value for value in losses if math.isfinite(value)), default=math.nan)
    if loss > settings.max_loss_ratio * lowest and loss > settings.divergence_floor:
        return f"diverged: the loss is {loss:.3g}, {loss / lowest:.1f} times its lowest of {lowest:.3g}"
    return None


def _worse_than_nothing(metrics: Metrics, history: History, settings: HealthConfig) -> str | None:
    loss = metrics.get(LOSS, math.nan)
    if loss > settings.max_layer_normed_loss:
        return f"diverged: the loss is {loss:.3g}, more than predicting zeros would cost"
    return None


def _collapsed_rank(metrics: Metrics, history: History, settings: HealthConfig) -> str | None:
    return _below_untrained(EFFECTIVE_RANK, metrics, history, settings.min_rank_fraction)


def _collapsed_spread(metrics: Metrics, history: History, settings: HealthConfig) -> str | None:
    return _below_untrained(FEATURE_STD, metrics, history, settings.min_std_fraction)


def _collapsed_targets(metrics: Metrics, history: History, settings: HealthConfig) -> str | None:
    return _below_untrained(TARGET_SPREAD, metrics, history, settings.min_target_spread_fraction)


def _below_untrained(name: str, metrics: Metrics, history: History, fraction: float) -> str | None:
    value = metrics.get(name)
    untrained = history.get(_UNTRAINED, {}).get(name)
    if value is None or untrained is None or value >= fraction * untrained:
        return None
    return (
        f"collapsed: {name} is {value:.3g}, less than {fraction:g} of the untrained encoder's {untrained:.3g}"
    )


def _stalled(metrics: Metrics, history: History, settings: HealthConfig) -> str | None:
    moved = metrics.get(TARGET_MOVEMENT)
    if moved is None or moved >= settings.min_target_movement:
        return None
    momentum = metrics.get(MOMENTUM, math.nan)
    return f"stalled: the target encoder does not move (momentum {momentum:g}, relative change {moved:.1e})"


_RULES = (_diverged, _collapsed_rank, _collapsed_spread, _collapsed_targets, _stalled)
