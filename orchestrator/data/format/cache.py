"""The node-local cache: downloaded shards under their content's name, shared by every process on the node.

One download for each shard, whoever asks (a lock file that the kernel frees when its holder dies), into a temporary
file, verified by hash, then renamed: what is found under its name is whole. The least recently used shards are removed
above the size limit; a shard that is open stays readable, since only its name goes. What a killed process leaves behind
is removed by the next one that opens the cache. Also keeps the indices of shards and the ledger of broken samples.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.data.format.manifest import DamagedShardError
from orchestrator.errors import DataError, StorageError
from orchestrator.storage import Store

_log = logging.getLogger(__name__)
_PARTIAL = ".part"
_READ_BYTES = 2**20
_STALE_PACKING_S = 7 * 24 * 3600
_MAX_DOWNLOADS = 3
"""Of a shard whose bytes do not have the manifest's hash, in case they were damaged on the way."""


@dataclass(frozen=True, kw_only=True)
class Cache:
    """A cache folder with a size limit for downloaded shards; picklable."""

    folder: Path
    limit_bytes: int

    def open_shard(self, store: Store, key: str, *, size_bytes: int, sha256: str) -> int:
        """A file descriptor of a verified copy of a shard, downloaded on first use.

        Raises:
            DamagedShardError: The object's content is not what the manifest says.
            DataError: The shard is larger than the cache.
            StorageError: It cannot be fetched or written.
        """
        path = self.shard_path(sha256)
        with contextlib.suppress(FileNotFoundError):
            return _open_used(path)
        self.check_fits(size_bytes, f"{store.uri}/{key}")
        with file_lock(self.folder / "locks" / f"{sha256}.lock"):
            with contextlib.suppress(FileNotFoundError):
                return _open_used(path)
            self._make_room(size_bytes)
            descriptor = self._fetch(store, key, path, size_bytes=size_bytes, sha256=sha256)
        self._make_room(0)
        return descriptor

    def adopt_shard(self, store: Store, key: str) -> tuple[int, str]:
        """Download a shard whose hash is not known yet; returns a file descriptor and the hash.

        Raises:
            DataError: The shard is larger than the cache.
            StorageError: It cannot be fetched or written.
        """
        size_bytes = store.info(key).size_bytes
        self.check_fits(size_bytes, f"{store.uri}/{key}")
        name = hashlib.sha256(f"{store.uri}/{key}".encode()).hexdigest()
        folder = self.folder / "shards" / f"{name}{_PARTIAL}"
        with file_lock(self.folder / "locks" / f"{name}.lock"):
            self._make_room(size_bytes)
            try:
                sha256 = store.download(key, folder / "shard.tar")
                descriptor = _open_used(folder / "shard.tar")
                (folder / "shard.tar").replace(self.shard_path(sha256))
                return descriptor, sha256
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def shard_path(self, sha256: str) -> Path:
        """Where the shard of this hash is, once downloaded."""
        return self.folder / "shards" / f"{sha256}.tar"

    def check_fits(self, size_bytes: int, where: str) -> None:
        """Refuse a shard that the cache can never hold.

        Raises:
            DataError: It is larger than the limit.
        """
        if size_bytes > self.limit_bytes:
            raise DataError(
                f"{where}: the shard's {size_bytes:,} bytes exceed the cache of {self.limit_bytes:,} bytes at "
                f"{self.folder}; raise data.cache_size_gb or pack smaller shards"
            )

    def read_index(self, sha256: str) -> bytes | None:
        """The kept index of a shard, if any."""
        try:
            return self._index_path(sha256).read_bytes()
        except OSError:
            return None

    def write_index(self, sha256: str, text: bytes) -> None:
        """Keep a shard's index; a cache that cannot be written is no error, the next reader walks the tar again."""
        path = self._index_path(sha256)
        partial = path.with_name(f"{path.name}{_PARTIAL}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with file_lock(self.folder / "locks" / f"{path.name}.lock", wait=False) as is_held:
                if is_held:  # else another process is writing the same
                    partial.write_bytes(text)
                    partial.replace(path)
        except (OSError, StorageError) as err:
            _log.warning(
                "a shard's index cannot be kept below %s, and is made again each time: %s", self.folder, err
            )

    @property
    def ledgers(self) -> Path:
        """The folder of the ledgers of broken samples, one for each manifest."""
        return self.folder / "quarantine"

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder for the time of the block; that of a killed process is removed by `clean`."""
        name = f"scratch-{uuid.uuid4().hex}"
        folder, lock = self.folder / "shards" / f"{name}{_PARTIAL}", self.folder / "locks" / f"{name}.lock"
        try:
            with file_lock(lock):
                folder.mkdir(parents=True)
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)

    def clean(self) -> None:
        """Remove what killed downloads and writes left behind; those that are running are let be.

        A source that was being packed is kept for a week, since packing it again goes on from there.
        """
        for kept in ("indices", "shards"):
            for partial in (self.folder / kept).glob(f"*{_PARTIAL}"):
                self._clean_one(partial)
        for partial in (self.folder / "packed").glob(f"*{_PARTIAL}"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - partial.stat().st_mtime > _STALE_PACKING_S:
                    self._clean_one(partial)

    def _clean_one(self, partial: Path) -> None:
        name = partial.name.removesuffix(_PARTIAL)
        lock = self.folder / "locks" / f"{name}.lock"
        with file_lock(lock, wait=False) as is_held:
            if is_held:
                if partial.is_dir():
                    shutil.rmtree(partial, ignore_errors=True)
                else:
                    partial.unlink(missing_ok=True)
                if name.startswith("scratch-"):
                    lock.unlink(missing_ok=True)

    def _index_path(self, sha256: str) -> Path:
        return self.folder / "indices" / f"{sha256}.json"

    def _fetch(self, store: Store, key: str, path: Path, *, size_bytes: int, sha256: str) -> int:
        """Download, verify, open and rename; called with the shard's lock held."""
        folder = self.folder / "shards" / f"{sha256}{_PARTIAL}"
        where, partial = f"{store.uri}/{key}", folder / "shard.tar"
        try:
            shutil.rmtree(folder, ignore_errors=True)
            for attempt in range(1, _MAX_DOWNLOADS + 1):
                found = store.download(key, partial)
                found_bytes = partial.stat().st_size
                if found == sha256:
                    break
                if found_bytes != size_bytes or attempt == _MAX_DOWNLOADS:
                    raise DamagedShardError(
                        where,
                        f"{found_bytes:,} bytes with sha256 {found[:12]} where the manifest says {size_bytes:,} and "
                        f"{sha256[:12]}, damaged or replaced",
                        "pack or upload it again",
                        min(found_bytes, size_bytes) if found_bytes != size_bytes else 0,
                    )
                _log.warning("%s: came with sha256 %s, downloading it again", where, found[:12])
            descriptor = _open_used(partial)
            partial.replace(path)
            return descriptor
        except OSError as err:
            raise StorageError(
                f"{path}: cannot cache {where} ({err.strerror or err}); free space or choose another data.cache_dir"
            ) from err
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _make_room(self, needed_bytes: int) -> None:
        """Remove the least recently used shards until `needed_bytes` more fit, downloads that run included."""
        with file_lock(self.folder / "locks" / "evict.lock"):
            total, entries = needed_bytes, []
            for parent, _, names in os.walk(
                self.folder / "shards"
            ):  # passes over folders that vanish meanwhile
                for path in (Path(parent, name) for name in names):
                    with contextlib.suppress(FileNotFoundError):
                        status = path.stat()
                        total += status.st_size
                        if path.suffix == ".tar" and not parent.endswith(_PARTIAL):
                            entries.append((status.st_mtime_ns, status.st_size, path))
            for _, size, path in sorted(entries):
                if total <= self.limit_bytes:
                    return
                path.unlink(missing_ok=True)
                total -= size


@contextlib.contextmanager
def file_lock(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold an advisory lock between processes; yields whether it is held (always, when waiting for it).

    Raises:
        StorageError: Its file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as err:
        raise StorageError(
            f"{path}: cannot be made ({err.strerror}); the cache must be a folder with write permission: grant it, or "
            "choose another data.cache_dir"
        ) from err
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError as err:
            raise StorageError(
                f"{path}: cannot be locked ({err.strerror}); the cache must be on a file system with locks: choose "
                "another data.cache_dir"
            ) from err
        yield True
    finally:
        os.close(descriptor)


def hash_descriptor(descriptor: int) -> str:
    """SHA-256 of an open file, from its beginning."""
    hashed, position = hashlib.sha256(), 0
    while block := os.pread(descriptor, _READ_BYTES, position):
        hashed.update(block)
        position += len(block)
    return hashed.hexdigest()


def _open_used(path: Path) -> int:
    """Open a shard and mark it as used just now."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    with contextlib.suppress(PermissionError):  # another user's file, or a file system that keeps no times
        os.utime(descriptor)
    return descriptor
