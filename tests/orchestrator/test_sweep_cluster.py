"""What fits on a cluster, as a table of values; no Ray is started."""

import pytest

from orchestrator.cluster.connect import DRIVER_RESOURCE, Cluster, plan_room, trial_resources
from orchestrator.config import apply_overrides, default_config
from orchestrator.errors import ClusterError


def cluster(cpus, gpus=None, *, driver=True):
    by_type = gpus or {}
    resources = {"CPU": float(cpus), "GPU": float(sum(by_type.values()))}
    if driver:
        resources[DRIVER_RESOURCE] = 1.0
    return Cluster(resources=resources, gpus_by_type=by_type)


def config(**train):
    return apply_overrides(default_config(), {f"train.{key}": value for key, value in train.items()})


@pytest.mark.parametrize(
    ("train", "there", "fits"),
    [
        ({}, cluster(4), 4),
        ({"num_workers": 2}, cluster(5), 2),
        ({"cpus_per_worker": 0.5}, cluster(2), 4),
        ({}, cluster(4, driver=False), 3),
        ({}, cluster(64, {"H100": 8}), 8),
        ({"gpus_per_worker": 0.25}, cluster(64, {"H100": 2}), 8),
        ({"gpus_per_worker": 0}, cluster(3, {"H100": 1}), 3),
        ({"gpu_type": "L4"}, cluster(64, {"H100": 8, "L4": 2}), 2),
        ({"gpu_type": "H100", "num_workers": 4}, cluster(64, {"H100": 8, "L4": 2}), 2),
    ],
)
def test_as_many_trials_run_at_once_as_fit(train, there, fits):
    assert plan_room(config(**train), there).num_slots == fits


def test_gpus_of_several_kinds_are_refused_until_one_is_chosen():
    mixed = cluster(64, {"H100": 8.0, "L4": 2.0})
    with pytest.raises(ClusterError, match=r"8 H100, 2 L4.*train\.gpu_type"):
        trial_resources(config(), mixed)
    assert trial_resources(config(gpu_type="L4"), mixed).gpu_type == "L4"


def test_a_kind_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(ClusterError, match="gpu_type is A100, the cluster has 8 H100"):
        trial_resources(config(gpu_type="A100"), cluster(64, {"H100": 8.0}))


def test_a_trial_larger_than_the_cluster_is_refused_with_both_sizes():
    with pytest.raises(
        ClusterError, match=r"needs 8 CPUs and 8 GPUs \(8 workers\), the cluster has 64 and 4"
    ):
        plan_room(config(num_workers=8), cluster(64, {"H100": 4.0}))


def test_a_cluster_that_lacks_a_node_runs_one_trial_with_fewer_workers():
    there = cluster(64, {"H100": 4.0})
    assert plan_room(config(num_workers=8, min_workers=2), there).num_slots == 1
    assert plan_room(config(num_workers=4, min_workers=1), there).num_slots == 1
    with pytest.raises(ClusterError, match=r"needs 8 CPUs and 8 GPUs \(8 workers\).*train\.min_workers"):
        plan_room(config(num_workers=16, min_workers=8), there)


@pytest.mark.parametrize(
    ("beside", "there", "slots", "evaluates_async"),
    [
        ({"cpus": 1.0}, cluster(2), 1, True),
        ({"cpus": 1.0}, cluster(1), 1, False),
        ({"cpus": 0.5}, cluster(16), 14, True),
        ({"cpus": 1.0}, cluster(16), 12, True),
        ({"cpus": 4.0}, cluster(64, {"H100": 8}), 8, True),
        ({"cpus": 1.0, "gpus": 1.0}, cluster(64, {"H100": 8}), 6, True),
        ({"cpus": 1.0, "gpus": 0.5}, cluster(64, {"H100": 1}), 1, False),
        ({"cpus": 1.0, "gpus": 1.0}, cluster(64), 64, False),
    ],
)
def test_evaluations_get_room_beside_a_trial_or_none(beside, there, slots, evaluates_async):
    asked = apply_overrides(default_config(), {"probe.beside": beside})
    room = plan_room(asked, there)
    assert (room.num_slots, room.evaluates_async) == (slots, evaluates_async)
