"""A store in a local folder; writes are atomic and survive a crash of the machine."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import NotFoundError, StorageError
from orchestrator.storage.base import ObjectInfo, check_key, check_open_files, hash_file
from orchestrator.storage.exclusive import claim_name, move_new

_TEMPORARY = ".orchestrator-tmp-"
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EISDIR, errno.EACCES)


@dataclass(frozen=True)
class LocalStore:
    """Files below an absolute folder. The folder is made by the first write."""

    root: str

    @property
    def uri(self) -> str:
        """The folder's absolute path."""
        return self.root

    def read(self, key: str) -> bytes:
        """The whole file."""
        path = self._path(key)
        with self._mapped(path, "read"):
            return path.read_bytes()

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """Exactly `length` bytes from `start`."""
        path = self._path(key)
        with self._mapped(path, "read"), path.open("rb") as file:
            file.seek(start)
            data = file.read(length)
        if len(data) != length:
            raise StorageError(
                f"{path}: {len(data)} bytes from {start} where {length} were expected; truncated?"
            )
        return data

    def write(self, key: str, data: bytes) -> None:
        """Write to a temporary file, sync it and rename it."""
        path = self._path(key)
        with self._mapped(path, "write"):
            try:
                _write(path, data)
            except FileNotFoundError:  # a concurrent `delete` took the folder that it left empty
                _write(path, data)

    def create(self, key: str, data: bytes) -> bool:
        """Write to a temporary file, sync it and give it its name, which fails when the name is taken."""
        path = self._path(key)
        with self._mapped(path, "write"):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}")
            try:
                temporary.write_bytes(data)
                sync(temporary)
                is_new = move_new(temporary, path, claim_name(path, _TEMPORARY))
                sync_folder(path.parent)
                return is_new
            finally:
                temporary.unlink(missing_ok=True)

    def exists(self, key: str) -> bool:
        """Whether there is a file of this name."""
        path = self._path(key)
        with self._mapped(path, "read"):
            return path.is_file()

    def info(self, key: str) -> ObjectInfo:
        """Size and, as etag, the time of the last change."""
        path = self._path(key)
        with self._mapped(path, "read"):
            return _info(key, path.stat())

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """Files whose key begins with `prefix`; unfinished writes are left out."""
        top = Path(self.root, prefix) if prefix.endswith("/") else Path(self.root, prefix).parent
        if not prefix:
            top = Path(self.root)
        found = []
        with self._mapped(top, "list"):
            for folder, _, names in os.walk(top, onerror=_unless_missing):
                for name in names:
                    path = Path(folder, name)
                    key = path.relative_to(self.root).as_posix()
                    if key.startswith(prefix) and not name.startswith(_TEMPORARY):
                        with _skipping_broken_links():
                            found.append(_info(key, path.stat()))
        return sorted(found, key=lambda info: info.key)

    def delete(self, key: str) -> None:
        """Remove the file, and folders that it leaves empty below the root."""
        path = self._path(key)
        with self._mapped(path, "delete"):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            while path.parent != Path(self.root):
                path = path.parent
                path.rmdir()

    def download(self, key: str, path: Path) -> str:
        """Copy the file."""
        source = self._path(key)
        with self._mapped(source, "read"), atomic_file(path) as temporary:
            shutil.copyfile(source, temporary)
            return hash_file(temporary)

    def upload(self, path: Path, key: str) -> None:
        """Copy a file into the store."""
        target = self._path(key)
        with self._mapped(target, "write"), atomic_file(target) as temporary:
            shutil.copyfile(path, temporary)

    def clean(self, *, recursive: bool = False) -> None:
        """Remove temporary files."""
        root = Path(self.root)
        for path in root.rglob(f"{_TEMPORARY}*") if recursive else root.glob(f"{_TEMPORARY}*"):
            with contextlib.suppress(OSError):
                path.unlink()

    def child(self, prefix: str) -> LocalStore:
        """The store of a sub-folder."""
        return LocalStore(str(self._path(prefix.rstrip("/"))))

    def local_path(self, key: str) -> Path | None:
        """The file itself."""
        return self._path(key)

    def _path(self, key: str) -> Path:
        return Path(self.root, check_key(key, self.root))

    @contextlib.contextmanager
    def _mapped(self, path: Path, action: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, FileExistsError) as err:
            if (file := _file_for_folder(path)) is not None:
                raise _not_found_unless(action)(
                    f"{path}: cannot {action}: {file} is a file where a folder is meant; check the path"
                ) from err
            if action == "write":
                raise StorageError(f"{path}: cannot write ({err.strerror}); check the folder") from err
            raise NotFoundError(f"{path}: there is no such file; check the path") from err
        except IsADirectoryError as err:
            raise StorageError(
                f"{path}: cannot {action}: a folder where a file is meant; check the path"
            ) from err
        except OSError as err:
            check_open_files(err, f"{path}: cannot {action}")
            remedy = "check permissions and free space" if action == "write" else "check permissions"
            raise StorageError(f"{path}: cannot {action} ({err.strerror or err}); {remedy}") from err


def _file_for_folder(path: Path) -> Path | None:
    """What stands in a path's way: the part of it, or it itself where it is listed, that is no folder."""
    for part in (*reversed(path.parents), path):
        if part.exists() and not part.is_dir():
            return part
    return None


def _not_found_unless(action: str) -> type[StorageError]:
    """Below a file there is nothing to read; where something is to be written or listed, it is in the way."""
    return NotFoundError if action in ("read", "delete") else StorageError


def _write(path: Path, data: bytes) -> None:
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        file.write(data)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name when the block ends well, and is removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file or a folder's entries are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """The same for a folder's entries, where its file system can; SMB and many FUSE mounts cannot."""
    try:
        sync(path)
    except OSError as err:
        if err.errno not in _NO_FOLDER_SYNC:
            raise


def _info(key: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(key=key, size_bytes=status.st_size, etag=f"{status.st_mtime_ns:x}-{status.st_size:x}")


@contextlib.contextmanager
def _skipping_broken_links() -> Iterator[None]:
    """Leave out a link that leads nowhere or in a circle, and what was removed meanwhile."""
    try:
        yield
    except OSError as err:
        if err.errno not in (errno.ENOENT, errno.ELOOP):
            raise


def _unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
