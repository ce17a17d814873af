import pytest

from orchestrator.config import apply_overrides, default_config
from orchestrator.errors import ConfigError
from orchestrator.jobs.submission import (
    check_shared_storage,
    entrypoint,
    parse_environment,
    shared_storage_warnings,
    sweep_id_of,
)

S3 = {"storage.uri": "s3://bucket/runs", "tracking.uri": "http://mlflow:5000"}


def config(**places):
    return apply_overrides(default_config(), places)


def test_the_sweeps_id_follows_from_its_configuration():
    assert sweep_id_of(config(**S3)) == sweep_id_of(config(**S3))
    assert sweep_id_of(config(**S3)) != sweep_id_of(config(**S3, **{"train.images": 5_000_000}))
    assert sweep_id_of(config(**S3), fresh=True) != sweep_id_of(config(**S3), fresh=True)


def test_places_in_a_bucket_and_a_tracking_server_are_taken():
    check_shared_storage(config(**S3), shared_filesystem=False)


def test_every_place_that_the_nodes_do_not_share_is_named_at_once(tmp_path):
    with pytest.raises(ConfigError) as refused:
        check_shared_storage(config(**{"data.source": str(tmp_path)}), shared_filesystem=False)
    assert [fault.key for fault in refused.value.faults] == ["storage.uri", "data.source"]


def test_a_bucket_without_a_tracking_server_is_refused():
    with pytest.raises(ConfigError, match=r"tracking\.uri: must outlive the job"):
        check_shared_storage(config(**{"storage.uri": "s3://bucket/runs"}), shared_filesystem=False)


def test_absolute_paths_are_taken_only_where_every_node_mounts_them():
    places = config(**{"storage.uri": "/mnt/lab/runs", "data.source": "/mnt/lab/shards"})
    check_shared_storage(places, shared_filesystem=True)
    with pytest.raises(ConfigError, match="shared-filesystem"):
        check_shared_storage(places, shared_filesystem=False)
    with pytest.raises(ConfigError, match=r"storage\.uri"):
        check_shared_storage(config(**{"storage.uri": "runs"}), shared_filesystem=True)


def test_an_address_of_this_machine_is_warned_of_unless_the_cluster_is_here():
    local = config(**S3 | {"tracking.uri": "http://127.0.0.1:5000"})
    assert "tracking.uri is http://127.0.0.1:5000" in shared_storage_warnings(local, "http://head:8265")[0]
    assert shared_storage_warnings(local, "http://127.0.0.1:8265") == []


def test_variables_are_taken_unless_they_look_like_secrets():
    assert parse_environment(["NCCL_DEBUG=INFO", "A=b=c"]) == {"NCCL_DEBUG": "INFO", "A": "b=c"}
    pairs = [
        "AWS_SECRET_ACCESS_KEY=canary1",
        "MY_TOKEN=canary2",
        "URI=http://u:canary3@host",
        "2=x",
        "canary4",
    ]
    with pytest.raises(ConfigError) as refused:
        parse_environment(pairs)
    assert len(refused.value.faults) == 5
    assert not [n for n in (1, 2, 3) if f"canary{n}" in str(refused.value)]


def test_the_entrypoint_survives_a_shell():
    assert entrypoint("masks-1", python="/opt/my python", restarts=2) == (
        "'/opt/my python' -m orchestrator.jobs.keeper --restarts 2 -- "
        "'/opt/my python' -m orchestrator jobs drive config.yaml --sweep-id masks-1"
    )
