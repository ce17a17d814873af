"""What is wrong with this machine's S3 settings is told as that, and never as trouble with the network."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import StorageError
from orchestrator.storage import open_store, s3

KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", *KEYS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3._make_client.cache_clear()


@pytest.mark.parametrize(
    ("environment", "files", "told"),
    [
        ({}, {}, "no S3 credentials were found"),
        ({"AWS_ACCESS_KEY_ID": "a"}, {}, "half of the S3 credentials is missing"),
        ({"AWS_PROFILE": "gone"}, {}, "correct AWS_PROFILE"),
        ({}, {"credentials": b"[default\naws"}, "correct AWS_PROFILE, ~/.aws/config or ~/.aws/credentials"),
        ({}, {"config": b"\xff\xfe\x00["}, "correct AWS_PROFILE, ~/.aws/config or ~/.aws/credentials"),
        ({}, {"config": b"[default]\ncredential_process = false\n"}, "the S3 credentials cannot be got"),
        ({**KEYS, "AWS_ENDPOINT_URL": "localhost:9000"}, {}, "correct the bucket, or the endpoint"),
    ],
)
def test_settings_that_cannot_be_used_are_told(monkeypatch, tmp_path, environment, files, told):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / ".aws").mkdir()
    for name, content in files.items():
        (tmp_path / ".aws" / name).write_bytes(content)
    with pytest.raises(StorageError) as caught:
        open_store("s3://bucket/x").read("a")
    assert told in str(caught.value)
    assert "check the network" not in str(caught.value)


@pytest.mark.parametrize(
    "uri", ["s3:/bucket/x", "s3:bucket", "s3://", "s3://Bad_Bucket", "file:relative", "gs://b/x"]
)
def test_an_address_that_is_none_is_refused_before_it_is_opened(uri):
    with pytest.raises(StorageError, match=r"write `|use a folder"):
        open_store(uri)
