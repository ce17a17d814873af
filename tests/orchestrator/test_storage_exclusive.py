"""Creating a file once, on file systems that have hard links, only a rename that replaces nothing, or neither."""

import errno
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.protocol.events import SweepResumed
from orchestrator.storage import check_store, exclusive, local, open_store
from orchestrator.sweep.journal.log import Journal, read_events


def refuse(*_: object) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.fixture(params=["links", "rename", "claim"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the file system can do."""
    if request.param != "links":
        monkeypatch.setattr(os, "link", refuse)
    if request.param == "claim":
        monkeypatch.setattr(exclusive, "_rename_no_replace", refuse)
    return str(request.param)


@pytest.mark.usefixtures("system")
def test_of_many_writers_one_creates_and_its_content_stands(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for key in ("a", "b/c"):
        with ThreadPoolExecutor(8) as pool:
            told = list(pool.map(lambda n: store.create(key, bytes([n]) * 1000), range(8)))  # noqa: B023
        assert told.count(True) == 1
        assert store.read(key) == bytes([told.index(True)]) * 1000
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["a", "c"]


@pytest.mark.usefixtures("system")
def test_a_journal_is_appended_to_and_a_second_writer_refused(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    first, second = Journal(store), Journal(store)
    first.append(SweepResumed())
    with pytest.raises(Exception, match="another driver writes"):
        second.append(SweepResumed())
    assert [entry.event for entry in read_events(store)] == [SweepResumed()]
    assert check_store(store) >= 0


def test_the_claim_of_a_killed_writer_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(exclusive, "_rename_no_replace", refuse)
    claim = exclusive.claim_name(tmp_path / "a", local._TEMPORARY)
    claim.touch()
    os.utime(claim, (time.time() - 60, time.time() - 60))
    assert open_store(str(tmp_path)).create("a", b"x")
    assert not claim.exists()


def test_another_fault_of_the_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(Exception, match="No space left on device"):
        open_store(str(tmp_path)).create("a", b"x")


def test_a_folder_that_cannot_be_synced_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def files_alone(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", files_alone)
    store = open_store(str(tmp_path))
    store.write("a", b"1")
    assert store.create("b", b"2")
    assert store.read("a") + store.read("b") == b"12"
