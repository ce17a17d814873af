"""What a store is: bytes under keys below one URI.

Owns the protocol, the rules for keys, and how the limit on open files is told. Leaves out where the bytes are
(`local`, `s3`).
"""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import socket
import sqlite3
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from orchestrator.errors import StorageError

ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
"""Where boto3 looks for an S3 server that no setting names."""

MAX_KEY_BYTES = 1024
OPEN_FILES_REMEDY = "raise the limit with `ulimit -n`"
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)


@dataclass(frozen=True, kw_only=True)
class ObjectInfo:
    """One stored object; `etag` changes whenever its content does."""

    key: str
    size_bytes: int
    etag: str


class Store(Protocol):
    """Bytes under keys below `uri`; picklable, and usable from several threads.

    A key is a relative path with `/` between its parts. Every method raises `NotFoundError` when nothing is stored
    under the key and `StorageError` for anything else, with the URI and a remedy in the message.
    """

    @property
    def uri(self) -> str:
        """Where the store is rooted, without a slash at the end."""

    def read(self, key: str) -> bytes:
        """The whole object."""

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """Exactly `length` bytes from `start`; an object that ends earlier is a `StorageError`."""

    def write(self, key: str, data: bytes) -> None:
        """Store an object whole or not at all, replacing what was there."""

    def create(self, key: str, data: bytes) -> bool:
        """Store an object whole unless one is there already; returns whether this call stored it.

        Of several callers exactly one is told True, on a disk and on S3 alike.
        """

    def exists(self, key: str) -> bool:
        """Whether an object is stored under exactly this key."""

    def info(self, key: str) -> ObjectInfo:
        """Size and etag of an object."""

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """Objects whose key begins with `prefix`, sorted by key; empty when there are none."""

    def delete(self, key: str) -> None:
        """Remove an object; none there is no error."""

    def download(self, key: str, path: Path) -> str:
        """Copy an object to a local file, whole or not at all; returns the file's SHA-256 in hexadecimal."""

    def upload(self, path: Path, key: str) -> None:
        """Copy a local file to an object, whole or not at all."""

    def clean(self, *, recursive: bool = False) -> None:
        """Remove what killed writers left unfinished; nobody may be writing there meanwhile.

        Directly below the store's root, where a bucket's or a folder's other users are not; everywhere below it when
        `recursive`.
        """

    def child(self, prefix: str) -> Store:
        """The store rooted at `uri/prefix`."""

    def local_path(self, key: str) -> Path | None:
        """The object's own file when the store is a local folder, else None."""


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_key(key: str, uri: str) -> str:
    """The key, unless it could lead outside its store.

    Raises:
        StorageError: An empty, absolute, overlong key, or one with `..`, empty parts or control characters.
    """
    parts = key.split("/")
    is_bad = (
        any(part in ("", ".", "..") for part in parts)
        or any(ord(character) < 32 or character == "\x7f" for character in key)
        or len(key.encode("utf-8", "surrogatepass")) > MAX_KEY_BYTES
    )
    if is_bad:
        raise StorageError(f"{uri}: {key[:80]!r} is not a key; use a relative path without `..`")
    return key


def check_open_files(err: BaseException, failed: str, *, or_else: str = "") -> None:
    """Tell the limit on open files from other failures, whatever an error was wrapped in.

    `failed` begins the message and `or_else` ends it, as another remedy.

    Raises:
        StorageError: The error, or one that it comes from, is that limit.
    """
    limit = find_open_files_limit(err)
    if limit is not None:
        raise StorageError(f"{failed} ({limit}); {OPEN_FILES_REMEDY}{or_else}") from err


def find_open_files_limit(err: BaseException) -> str | None:
    """The limit on open files in words, if an error or one that it comes from is that limit; else None."""
    cause: BaseException | None = err
    while cause is not None:
        found = _no_descriptor() if _may_hide_the_limit(cause) else cause
        if isinstance(found, OSError) and found.errno in _NO_DESCRIPTORS:
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            return f"{found.strerror}; this process may hold {limit:,}"
        cause = cause.__cause__ or cause.__context__
    return None


def _may_hide_the_limit(err: BaseException) -> bool:
    """Whether a host name was looked up or a SQLite database opened in vain: neither says that nothing can be opened.

    What a resolver says then depends on the system's name services: there is no such name, try again, or the `errno`
    of an earlier call.
    """
    if isinstance(err, sqlite3.OperationalError):
        return "unable to open" in str(err)
    frames = traceback.walk_tb(err.__traceback__)
    is_raised_there = any(frame.f_code.co_name == "getaddrinfo" for frame, _ in frames)
    return isinstance(err, socket.gaierror) or (isinstance(err, OSError) and is_raised_there)


def _no_descriptor() -> OSError | None:
    """Why no file can be opened, if none can."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as err:
        return err
    return None
