"""What became of a population, in sentences: how often weights went on, and where the highest member's come from."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.config.models import RunConfig
from orchestrator.errors import ConfigError
from orchestrator.report.statistics.trials import TrialSummary
from orchestrator.sweep.core import Stretch, SweepRecord, schedule_text


def population_lines(config: RunConfig, record: SweepRecord, trials: Sequence[TrialSummary]) -> list[str]:
    """The whole and then each generation; nothing of a sweep that is no population."""
    if config.sweep.pbt is None:
        return []
    count = sum(len(event.takeovers) for event in record.generations)
    lines = [
        f"A population of {len(trials)}: {count} times in {len(record.generations)} generations a member went on from "
        "another one's weights, so its figures are those of a schedule and not of the settings that it began with."
    ]
    finished = [trial for trial in trials if trial.comparable]
    if finished:
        highest = max(finished, key=lambda trial: trial.value)
        lines.append(f"The highest has the weights of {schedule_text(config, highest.schedule)}.")
    return [*lines, *(f"{event.reason.capitalize()}." for event in record.generations)]


def check_one_setting(config: RunConfig, schedule: Sequence[Stretch], trial_id: str) -> None:
    """A trial's weights were trained under the same settings from the first image to the last.

    Raises:
        ConfigError: They were not, so no single configuration trains them again.
    """
    if len(schedule) > 1:
        raise ConfigError(
            f"{trial_id} was trained under settings that changed on the way (sweep.pbt): its weights are those of "
            f"{schedule_text(config, schedule)}. No one configuration trains it again or longer; use its encoder as it "
            "is (`orchestrator export`), or train settings of your choice (`orchestrator train FILE --set KEY=VALUE`)"
        )
