"""A store in memory, under the same rules as the real ones: for simulations, notebooks and tests."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.errors import NotFoundError, StorageError
from orchestrator.storage.base import ObjectInfo, check_key, hash_file


@dataclass
class MemoryStore:
    """Bytes in a dictionary; `child` shares it."""

    prefix: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        """`memory:/` and the prefix, which names no place that another process could reach."""
        return f"memory://{self.prefix}" if self.prefix else "memory:/"

    def read(self, key: str) -> bytes:
        """The whole object."""
        try:
            return self.objects[self._key(key)]
        except KeyError:
            raise NotFoundError(f"{self.uri}/{key}: nothing is stored there") from None

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """Exactly `length` bytes from `start`."""
        data = self.read(key)[start : start + length]
        if len(data) != length:
            raise StorageError(f"{self.uri}/{key}: ends before byte {start + length}; truncated?")
        return data

    def write(self, key: str, data: bytes) -> None:
        """Store an object."""
        self.objects[self._key(key)] = bytes(data)

    def create(self, key: str, data: bytes) -> bool:
        """Store an object unless one is there."""
        if self._key(key) in self.objects:
            return False
        self.write(key, data)
        return True

    def exists(self, key: str) -> bool:
        """Whether an object is stored under exactly this key."""
        return self._key(key) in self.objects

    def info(self, key: str) -> ObjectInfo:
        """Size and etag of an object."""
        data = self.read(key)
        return ObjectInfo(key=key, size_bytes=len(data), etag=hashlib.sha256(data).hexdigest())

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """Objects whose key begins with `prefix`."""
        root = f"{self.prefix}/" if self.prefix else ""
        keys = [key.removeprefix(root) for key in self.objects if key.startswith(root + prefix)]
        return [self.info(key) for key in sorted(keys)]

    def delete(self, key: str) -> None:
        """Remove an object; none there is no error."""
        self.objects.pop(self._key(key), None)

    def download(self, key: str, path: Path) -> str:
        """Copy an object to a local file."""
        path.write_bytes(self.read(key))
        return hash_file(path)

    def upload(self, path: Path, key: str) -> None:
        """Copy a local file to an object."""
        self.write(key, path.read_bytes())

    def clean(self, *, recursive: bool = False) -> None:
        """Nothing: objects are stored whole."""

    def child(self, prefix: str) -> MemoryStore:
        """The store below a prefix, over the same objects."""
        return MemoryStore(prefix=self._key(prefix.rstrip("/")), objects=self.objects)

    def local_path(self, key: str) -> Path | None:
        """None: an object has no file."""
        return None

    def _key(self, key: str) -> str:
        check_key(key, self.uri)
        return f"{self.prefix}/{key}" if self.prefix else key
