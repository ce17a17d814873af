"""Whose weights a member of a population has, and under which settings they were trained, from the first image on.

Pure, read off the record; `generations` decides, this tells. Called by the follower, `status` and the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.config.models import RunConfig
from orchestrator.protocol.point import Point
from orchestrator.sweep.core.record import SweepRecord
from orchestrator.sweep.space import point_name


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """A stretch of training that ended in somebody's weights: by which member, from which image on, under what."""

    from_images: int
    trial_id: str
    index: int
    settings: Point

    def to_json(self) -> dict[str, object]:
        """As a JSON-able dictionary."""
        return {
            "from_images": self.from_images,
            "trial_id": self.trial_id,
            "settings": self.settings.to_json(),
        }


def schedule_of(record: SweepRecord, trial_id: str, *, before: int | None = None) -> tuple[Stretch, ...]:
    """How a member's weights came about; as they were before the generation that ended at `before` was decided."""
    trial = record.trials[trial_id]
    taken = [each for each in trial.takeovers if before is None or each.images < before]
    last = taken[-1] if taken else None
    own = Stretch(
        from_images=last.images if last else 0,
        trial_id=trial_id,
        index=trial.index,
        settings=last.settings if last else trial.point,
    )
    return (own,) if last is None else (*schedule_of(record, last.parent, before=last.images), own)


def schedule_text(config: RunConfig, schedule: Sequence[Stretch]) -> str:
    """In words: `000 from 0 images (learning rate 0.001), 003 from 4,800 (learning rate 0.0012)`."""
    return ", ".join(
        f"{each.index:03d} from {each.from_images:,} images ({point_name(config, each.settings)})"
        for each in schedule
    )
