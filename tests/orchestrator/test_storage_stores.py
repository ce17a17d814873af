from __future__ import annotations

import errno
import hashlib
import os
import pickle
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from flaky_proxy import run_flaky_proxy
from open_files import no_open_files_left
from s3_server import S3Server

from orchestrator.config.models import StorageConfig
from orchestrator.errors import NotFoundError, StorageError
from orchestrator.storage import (
    LocalStore,
    MemoryStore,
    S3Store,
    Store,
    find_open_files_limit,
    open_store,
)
from orchestrator.storage import s3 as s3_module


@pytest.fixture(params=["file", "s3", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "memory":
        return MemoryStore()
    if request.param == "file":
        return open_store(f"file://{tmp_path}/root")
    return open_store(request.getfixturevalue("s3_bucket") + "/some/prefix")


def test_what_is_written_is_read_back(store: Store) -> None:
    store.write("a/b.bin", b"0123456789")
    store.write("a/b.bin", b"abcdefghij")
    assert store.read("a/b.bin") == b"abcdefghij"
    assert store.read_range("a/b.bin", 3, 4) == b"defg"
    assert store.info("a/b.bin").size_bytes == 10


def test_listing_is_sorted_and_filters_by_prefix(store: Store) -> None:
    for key in ("b/2", "b/1", "a", "bb/3"):
        store.write(key, b"x")
    assert [info.key for info in store.list()] == ["a", "b/1", "b/2", "bb/3"]
    assert [info.key for info in store.list("b/")] == ["b/1", "b/2"]
    assert [info.key for info in store.list("b")] == ["b/1", "b/2", "bb/3"]
    assert store.list("none/") == []


def test_a_child_is_the_store_below(store: Store) -> None:
    store.child("x/y").write("z", b"1")
    assert store.read("x/y/z") == b"1"
    assert store.child("x").child("y").uri == store.child("x/y").uri == f"{store.uri}/x/y"


def test_what_is_missing_is_not_found(store: Store, tmp_path: Path) -> None:
    assert not store.exists("nothing")
    for call in (store.read, store.info, lambda key: store.download(key, tmp_path / "out")):
        with pytest.raises(NotFoundError, match="nothing"):
            call("nothing")
    assert not (tmp_path / "out").exists()


def test_creating_is_told_to_one_of_many(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda number: store.create("one", b"%d" % number), range(8)))
    assert told.count(True) == 1
    assert store.read("one") == b"%d" % told.index(True)
    assert not store.create("one", b"later")


def test_deleting_twice_is_no_error(store: Store) -> None:
    store.write("a/b", b"1")
    store.delete("a/b")
    store.delete("a/b")
    assert not store.exists("a/b")


def test_an_etag_changes_with_the_content(store: Store) -> None:
    store.write("a", b"1")
    before = store.info("a").etag
    store.write("a", b"22")
    assert store.info("a").etag != before


def test_files_of_several_parts_survive_upload_and_download(store: Store, tmp_path: Path) -> None:
    content = os.urandom(3 * s3_module.PART_BYTES + 12345)
    (tmp_path / "in").write_bytes(content)
    store.upload(tmp_path / "in", "big")
    sha256 = store.download("big", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == content
    assert sha256 == hashlib.sha256(content).hexdigest()
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["in", "out"]


def test_a_large_object_is_written_in_parts(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_module, "_SINGLE_PUT_BYTES", s3_module.PART_BYTES)
    content, store = os.urandom(2 * s3_module.PART_BYTES + 77), open_store(s3_bucket)
    store.write("big", content)
    assert store.read("big") == content
    assert store.info("big").etag.endswith('-3"')  # how S3 marks an object of three parts


def unfinished_uploads(store: S3Store) -> list[str]:
    found = store._client.list_multipart_uploads(Bucket=store.bucket)
    return sorted(upload["Key"] for upload in found.get("Uploads", []))


def test_the_parts_of_a_killed_upload_are_removed_and_other_peoples_let_be(s3_bucket: str) -> None:
    store = open_store(s3_bucket + "/mine")
    assert isinstance(store, S3Store)
    for key in ("mine/a", "mine/deeper/b", "yours/c"):
        begun = store._client.create_multipart_upload(Bucket=store.bucket, Key=key)
        store._client.upload_part(
            Bucket=store.bucket, Key=key, UploadId=begun["UploadId"], PartNumber=1, Body=b"x" * 100
        )
    store.clean()
    assert unfinished_uploads(store) == ["mine/deeper/b", "yours/c"]
    store.clean(recursive=True)
    assert unfinished_uploads(store) == ["yours/c"]


def test_a_caller_who_may_not_clean_goes_on(s3_bucket: str, s3_server: S3Server) -> None:
    store = open_store(s3_bucket + "/kept")
    assert isinstance(store, S3Store)
    store._client.create_multipart_upload(Bucket=store.bucket, Key="kept/a")
    open_store(s3_bucket + "/kept", StorageConfig(anonymous=True)).clean(recursive=True)
    assert "kept/a" in unfinished_uploads(store)


def test_the_temporary_files_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    store.write("a/b", b"1")
    for folder in (tmp_path, tmp_path / "a"):
        (folder / ".orchestrator-tmp-1").write_bytes(b"half")
    store.clean()
    assert (tmp_path / "a" / ".orchestrator-tmp-1").exists()
    store.clean(recursive=True)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["b"]


def test_a_range_beyond_the_end_is_an_error(store: Store) -> None:
    store.write("a", b"12345")
    with pytest.raises(StorageError, match="truncated"):
        store.read_range("a", 10, 5)


@pytest.mark.parametrize("key", ["", "/a", "a/../b", "..", "a//b", "a\0b", "a/", "x" * 2000])
def test_keys_cannot_leave_the_store(store: Store, key: str) -> None:
    with pytest.raises(StorageError, match="not a key"):
        store.write(key, b"")


def test_a_store_survives_pickling(store: Store) -> None:
    store.write("a", b"1")
    assert pickle.loads(pickle.dumps(store)).read("a") == b"1"


def test_readers_never_see_half_a_write(store: Store) -> None:
    contents = [bytes([value]) * 200_000 for value in (1, 2)]
    store.write("a", contents[0])
    stop = threading.Event()

    def rewrite() -> None:
        while not stop.is_set():
            for content in contents:
                store.write("a", content)

    thread = threading.Thread(target=rewrite)
    thread.start()
    try:
        assert all(store.read("a") in contents for _ in range(50))
    finally:
        stop.set()
        thread.join()


def test_a_killed_writer_leaves_the_old_content(tmp_path: Path) -> None:
    code = (
        "import sys; from orchestrator.storage import open_store; s = open_store(sys.argv[1])\n"
        "s.write('a', b'1' * 1000); print('ready', flush=True)\n"
        "while True: s.write('a', b'1' * 1000)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    store = open_store(str(tmp_path))
    assert store.read("a") == b"1" * 1000
    assert [info.key for info in store.list()] == ["a"]


def test_uris_of_one_folder_are_one_store(tmp_path: Path) -> None:
    assert (
        open_store(f"file://{tmp_path}/a%20b").uri == open_store(f"{tmp_path}/a b/").uri == f"{tmp_path}/a b"
    )
    assert isinstance(open_store("runs"), LocalStore)
    assert open_store("s3://bucket/a/b/").uri == "s3://bucket/a/b"


@pytest.mark.parametrize("uri", ["http://host/x", "pipe:cat x", "s3://", "gs://b/x"])
def test_other_schemes_are_refused(uri: str) -> None:
    with pytest.raises(StorageError):
        open_store(uri)


def test_local_errors_name_the_path_and_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"file.*check"):
        open_store(str(tmp_path / "file")).write("a", b"")


def test_a_missing_bucket_is_named(s3_bucket: str) -> None:
    with pytest.raises(NotFoundError, match="no such bucket"):
        open_store("s3://no-such-bucket-here/x").list()


def test_a_reader_may_not_write_and_no_secret_is_told(
    s3_bucket: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store(s3_bucket).write("a", b"1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.reader_access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.reader_secret_key)
    s3_module._make_client.cache_clear()
    assert open_store(s3_bucket).read("a") == b"1"
    with pytest.raises(StorageError, match="check the credentials") as caught:
        open_store(s3_bucket).write("a", b"2")
    assert s3_server.reader_secret_key not in str(caught.value)
    assert s3_server.reader_access_key not in str(caught.value)


def test_wrong_and_missing_credentials_say_what_to_do(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret-key")
    s3_module._make_client.cache_clear()
    with pytest.raises(StorageError, match="SignatureDoesNotMatch"):
        open_store(s3_bucket).read("a")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    s3_module._make_client.cache_clear()
    with pytest.raises(StorageError, match=r"storage\.anonymous"):
        open_store(s3_bucket).read("a")


def test_the_endpoint_comes_from_the_configuration(
    s3_bucket: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    config = StorageConfig(endpoint_url=s3_server.endpoint_url, region="us-east-1")
    store = open_store(s3_bucket, config)
    store.write("a", b"1")
    assert store.read("a") == b"1"


def test_an_object_that_changes_during_a_download_is_refused(
    s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(s3_bucket)
    assert isinstance(store, S3Store)
    store.write("a", b"1" * 100)
    seen = store.info("a")
    store.write("a", b"2" * 100)
    with pytest.raises(StorageError, match="changed"):
        store._part_into("a", 0, memoryview(bytearray(100)), etag=seen.etag)


def test_broken_connections_are_tried_again(s3_bucket: str, s3_server: S3Server, tmp_path: Path) -> None:
    content = os.urandom(2 * s3_module.PART_BYTES + 999)
    open_store(s3_bucket).write("big", content)
    with run_flaky_proxy(s3_server.endpoint_url) as proxy:
        store = open_store(s3_bucket, StorageConfig(endpoint_url=proxy.endpoint_url))
        proxy.cuts[:] = [0, 100, 50_000, 1_000_000, 5_000_000]
        store.download("big", tmp_path / "out")
        assert proxy.cuts == []
        assert (tmp_path / "out").read_bytes() == content
        proxy.cuts[:] = [3_000_000]
        s3_module._make_client.cache_clear()
        assert store.read("big") == content


def test_a_network_that_stays_broken_is_an_error_with_a_remedy(
    s3_bucket: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store(s3_bucket).write("a", b"x" * 2000)
    monkeypatch.setattr(s3_module, "_MAX_ATTEMPTS", 2)
    with run_flaky_proxy(s3_server.endpoint_url) as proxy:
        proxy.cuts[:] = [600] * 50
        with pytest.raises(StorageError, match=r"storage\.endpoint_url"):
            open_store(s3_bucket, StorageConfig(endpoint_url=proxy.endpoint_url)).read("a")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("is_connected", [False, True])
def test_the_limit_on_open_files_is_no_network_error(
    host: str, is_connected: bool, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_module, "_MAX_ATTEMPTS", 1)
    s3_module._make_client.cache_clear()
    store = open_store(s3_bucket, StorageConfig(endpoint_url=f"http://{host}:9"))
    assert isinstance(store, S3Store)
    if is_connected:
        assert store._client
    with (
        no_open_files_left(),
        pytest.raises(StorageError, match=r"cannot read \(Too many open files.*ulimit -n"),
    ):
        store.read("a")
    with pytest.raises(StorageError, match=r"storage\.endpoint_url"):
        store.read("a")


@pytest.mark.parametrize(
    "answer",
    [
        socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
        socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
        OSError(errno.EINVAL, "Invalid argument"),
    ],
)
def test_the_limit_on_open_files_is_told_however_a_resolver_puts_it(
    answer: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def getaddrinfo(*_: object, **__: object) -> None:
        raise answer

    monkeypatch.setattr(s3_module, "_MAX_ATTEMPTS", 1)
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    there = StorageConfig(endpoint_url="http://storage.invalid:9", region="us-east-1", anonymous=True)
    store = open_store("s3://bucket", there)
    with pytest.raises(StorageError, match=r"storage\.endpoint_url"):
        store.read("a")
    with no_open_files_left(), pytest.raises(StorageError, match=r"Too many open files.*ulimit -n"):
        store.read("a")


def test_the_limit_on_open_files_is_told_of_a_database_that_cannot_be_opened(tmp_path: Path) -> None:
    with no_open_files_left(), pytest.raises(sqlite3.OperationalError) as failed:
        sqlite3.connect(tmp_path / "a.db")
    assert find_open_files_limit(failed.value) is None
    with no_open_files_left():
        assert "Too many open files" in str(find_open_files_limit(failed.value))


def test_a_server_that_refuses_is_no_limit_on_open_files() -> None:
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
    with no_open_files_left():
        assert find_open_files_limit(refused) is None


def test_the_limit_on_open_files_is_told_for_local_stores(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    store.write("a", b"1")
    with no_open_files_left(), pytest.raises(StorageError, match="ulimit -n"):
        store.read("a")
