"""From a URI to bytes: local folders and S3. The only door to boto3.

    store = open_store("s3://bucket/prefix", config.storage)
    store.write("a/b.json", b"{}")

Called by every room that keeps or reads something.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from orchestrator.config.models import StorageConfig
from orchestrator.config.uris import absolute_path, check_store_uri, mask_secrets
from orchestrator.errors import ConfigError, NotFoundError, StorageError
from orchestrator.storage.base import (
    ENDPOINT_VARIABLES,
    OPEN_FILES_REMEDY,
    ObjectInfo,
    Store,
    check_open_files,
    find_open_files_limit,
    hash_file,
)
from orchestrator.storage.check import check_store
from orchestrator.storage.local import LocalStore, atomic_file, sync
from orchestrator.storage.memory import MemoryStore

if TYPE_CHECKING:
    from orchestrator.storage.s3 import S3Store

__all__ = [
    "ENDPOINT_VARIABLES",
    "OPEN_FILES_REMEDY",
    "LocalStore",
    "MemoryStore",
    "NotFoundError",
    "ObjectInfo",
    "S3Store",
    "StorageError",
    "Store",
    "atomic_file",
    "check_open_files",
    "check_store",
    "find_open_files_limit",
    "hash_file",
    "open_store",
    "sync",
]


def __getattr__(name: str) -> Any:
    """`S3Store`, imported when it is first asked for: boto3 costs a quarter of a second."""
    if name != "S3Store":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from orchestrator.storage.s3 import S3Store

    return S3Store


def _check(uri: str) -> None:
    try:
        check_store_uri(uri)
    except ValueError as err:
        raise StorageError(f"{mask_secrets(uri)}: {err}") from None


def open_store(uri: str, config: StorageConfig | None = None) -> Store:
    """The store rooted at a folder, a `file:///` URI or an `s3://bucket/prefix`; nothing is opened yet.

    Raises:
        StorageError: Another scheme, or a path that cannot be followed.
    """
    config = config if config is not None else StorageConfig()
    if uri.startswith(("s3:", "file:")):
        _check(uri)
    if uri.startswith("s3://"):
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if not bucket:
            raise StorageError(f"{mask_secrets(uri)}: names no bucket; write `s3://bucket/prefix`")
        from orchestrator.storage.s3 import S3Store

        return S3Store(
            bucket=bucket,
            prefix=prefix.strip("/"),
            endpoint_url=config.endpoint_url,
            region=config.region,
            anonymous=config.anonymous,
            requester_pays=config.requester_pays,
        )
    if uri.startswith("file://"):
        return LocalStore(_resolved(unquote(urlsplit(uri).path)))
    if "://" in uri or uri.startswith("pipe:"):
        raise StorageError(f"{mask_secrets(uri)}: not a place to store; use a folder or `s3://bucket/prefix`")
    return LocalStore(_resolved(uri))


def _resolved(folder: str) -> str:
    """The absolute path of a folder, links followed.

    Raises:
        StorageError: A link leads in a circle, or `~` names no home.
    """
    try:
        return str(absolute_path(folder))
    except ConfigError as err:
        raise StorageError(str(err)) from err
