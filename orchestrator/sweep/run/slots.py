"""The driver's side of the slots: one thread each, which keeps a Ray Train worker group up while there are trials.

A slot whose workers die is restarted by Ray Train; one whose controller dies, or that fails again and again, is
started anew here, and the placement group that it may have left behind is freed first. A slot that fails several
times in a row without any trial's report between is given up. One whose node is gone waits for another and does not
count as failing while some other slot works; its trial has gone to that one. With `train.min_workers` a slot whose
workers died goes on with as many as there is room for, and grows again later (`elastic`).
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field

from ray.util.placement_group import PlacementGroup, PlacementGroupID, remove_placement_group

from orchestrator.errors import TrainingError
from orchestrator.sweep.client import CoordinatorCalls
from orchestrator.sweep.run.elastic import FreeResources, Growth, free_by_node, wait_for_size
from orchestrator.train.ray import NoRoomError, TrialResources, error_text, fit_slot

_log = logging.getLogger(__name__)
_FRUITLESS_STARTS = 3
_STARTS_WITHOUT_ROOM = 15
"""Each waits for `RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S`, 60 s by default: time for an autoscaler to bring nodes."""


@dataclass
class Slots:
    """The worker groups of a sweep."""

    coordinator: CoordinatorCalls
    resources: TrialResources
    num_slots: int
    scratch_dir: str
    max_failures: int
    free: FreeResources = free_by_node
    errors: dict[str, str] = field(default_factory=dict)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._growth = Growth(self.coordinator, self.resources, self.free)

    def start(self) -> None:
        """Open every slot."""
        for number in range(self.num_slots):
            thread = threading.Thread(
                target=self._keep, args=(f"slot-{number}",), name=f"slot-{number}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    @property
    def gave_up(self) -> bool:
        """Whether every slot was given up."""
        return len(self.errors) == self.num_slots

    def join(self) -> None:
        """Wait until the slots have ended by themselves."""
        for thread in self._threads:
            thread.join()
        self._growth.stop()

    def _keep(self, slot_id: str) -> None:
        """Keep a slot up; whatever goes wrong gives it up, so that a sweep never waits for a thread that has died."""
        try:
            self._keep_up(slot_id)
        except Exception as err:
            self._give_up(slot_id, error_text(err))

    def _give_up(self, slot_id: str, error: str) -> None:
        _log.warning("worker group %s is given up: %s", slot_id, error)
        self.errors[slot_id] = error

    def _keep_up(self, slot_id: str) -> None:
        fruitless = 0
        while True:
            error = self._run_once(slot_id)
            had_reports, groups = self.coordinator.slot_closed(slot_id, str(error or ""))
            for group in groups:
                free_placement_group(group)
            if error is None:
                if not self.coordinator.starts_again(slot_id):
                    return
                continue
            _log.warning("worker group %s ended: %s", slot_id, error)
            limit = _FRUITLESS_STARTS
            if isinstance(error, NoRoomError):
                limit = _STARTS_WITHOUT_ROOM
                is_needed, others_work = self.coordinator.slot_wanted()
                if not is_needed:
                    return
                if others_work:
                    continue
            fruitless = 1 if had_reports else fruitless + 1
            if fruitless >= limit:
                self._give_up(slot_id, str(error))
                return

    def _run_once(self, slot_id: str) -> TrainingError | None:
        """Run the slot's workers until they end; returns the error they ended with."""
        now = wait_for_size(self.resources, self.free)
        self.coordinator.slot_opened(slot_id, now.num_gpus, now.num_cpus, num_workers=now.num_workers)
        self._growth.started(slot_id, now.num_workers)
        # Workers that may be fewer are not restarted by Ray Train, which would wait for as many as there were.
        max_failures = self.max_failures if len(self.resources.sizes) == 1 else 0
        try:
            fit_slot(
                slot_id,
                coordinator=self.coordinator,
                resources=now,
                scratch_dir=self.scratch_dir,
                max_failures=max_failures,
            )
        except TrainingError as err:
            return err
        finally:
            self._growth.ended(slot_id)
        return None


def free_placement_group(group_id: str) -> None:
    """Free a placement group by its id in hexadecimal; one that is gone already is no error."""
    remove_placement_group(PlacementGroup(PlacementGroupID.from_hex(group_id)))
