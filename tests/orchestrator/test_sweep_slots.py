"""The threads that keep slots up never leave a sweep waiting for one that has died."""

from orchestrator.sweep.run.slots import Slots
from orchestrator.train.ray.launch import TrialResources


def test_a_slot_whose_coordinator_cannot_be_reached_is_given_up_with_the_reason() -> None:
    resources = TrialResources(num_workers=1, cpus_per_worker=1.0, gpus_per_worker=0.0)
    slots = Slots(coordinator=None, resources=resources, num_slots=2, scratch_dir="", max_failures=0)
    slots.start()
    slots.join()
    assert slots.gave_up
    assert all(error.startswith("AttributeError") for error in slots.errors.values())
