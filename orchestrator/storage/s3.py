"""A store in an S3 bucket, over boto3: retries, parallel ranged downloads, and errors in our own words.

Credentials come from the standard boto3 chain and never appear in a message. Clients are made once for each process,
so that a store can be pickled and can survive a fork.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import boto3
from boto3.exceptions import S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigNotFound,
    ConfigParseError,
    ConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    InfiniteLoopConfigError,
    InvalidConfigError,
    InvalidRegionError,
    MetadataRetrievalError,
    NoAuthTokenError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    ResponseStreamingError,
    SSOError,
    SSOTokenLoadError,
    TokenRetrievalError,
    UnknownCredentialError,
)
from botocore.parsers import ResponseParserError

from orchestrator.config.uris import mask_secrets
from orchestrator.errors import NotFoundError, StorageError
from orchestrator.storage.base import ENDPOINT_VARIABLES, ObjectInfo, check_key, check_open_files
from orchestrator.storage.local import atomic_file

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PART_BYTES = 8 * 2**20
_HASH_BYTES = 2**18
PARTS_IN_FLIGHT = 16
"""Of one process, over all of its downloads: first come, first served, so that a shard is complete, and its hash being
verified, while the parts of the next ones are on their way."""
_SINGLE_PUT_BYTES = 128 * 2**20
"""A larger object goes up in several parts, as one above 5 GiB must; those of a killed upload stay until `clean`."""
_UPLOADS_IN_FLIGHT = 4
_MAX_ATTEMPTS = 6
_MAX_WAIT_S = 8.0
_CONNECT_LIMIT_S, _SILENCE_LIMIT_S = 10.0, 20.0
_OTHER_SERVER = (
    "a bucket on another server needs its address: --endpoint-url, storage.endpoint_url or AWS_ENDPOINT_URL"
)
_MISSING = ("404", "NoSuchKey", "NotFound", "NoSuchBucket")
_DENIED = ("401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken")
_CHANGED = ("412", "PreconditionFailed")
_CONFLICT = "ConditionalRequestConflict"
_CONFLICT_WAIT_S = 0.2
_Result = TypeVar("_Result")
_client_lock = threading.Lock()
_log = logging.getLogger(__name__)


_REMEDIES: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    (
        (NoCredentialsError, NoAuthTokenError),
        "no S3 credentials were found; set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
        "`storage.anonymous: true` for a public bucket",
    ),
    ((PartialCredentialsError,), "half of the S3 credentials is missing ({}); set the other half"),
    (
        (SSOError, SSOTokenLoadError, TokenRetrievalError),
        "the AWS login has expired or is missing ({}); log in again (`aws sso login`)",
    ),
    (
        (CredentialRetrievalError, MetadataRetrievalError, InfiniteLoopConfigError),
        "the S3 credentials cannot be got ({}); correct the profile, or set AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY",
    ),
    (
        (ProfileNotFound, ConfigNotFound, ConfigParseError, InvalidConfigError, UnknownCredentialError),
        "the AWS profile or its files cannot be used ({}); correct AWS_PROFILE, ~/.aws/config or ~/.aws/credentials",
    ),
    ((NoRegionError, InvalidRegionError), "no usable region is set ({}); set storage.region or AWS_REGION"),
    ((ParamValidationError,), "the address is none that S3 takes ({}); correct the URI"),
)
"""What is wrong with the settings of this machine, in place of the network."""
_OWN_SETTINGS: tuple[type[Exception], ...] = (ValueError, *(kind for kinds, _ in _REMEDIES for kind in kinds))


class _BrokenAnswerError(Exception):
    """A response ended before what it was to hold."""


@dataclass(frozen=True, kw_only=True)
class S3Store:
    """Objects below `s3://bucket/prefix`."""

    bucket: str
    prefix: str = ""
    endpoint_url: str | None = None
    region: str | None = None
    anonymous: bool = False
    requester_pays: bool = False

    @property
    def uri(self) -> str:
        """`s3://bucket/prefix`."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def read(self, key: str) -> bytes:
        """The whole object."""

        def get() -> bytes:
            response = self._client.get_object(Bucket=self.bucket, Key=self._key(key), **self._payer)
            return _body(response, response.get("ContentLength", -1))

        return self._retried(key, get)

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """Exactly `length` bytes from `start`."""
        data = bytearray(length)
        if length:
            self._part_into(key, start, memoryview(data))
        return bytes(data)

    def write(self, key: str, data: bytes) -> None:
        """One PUT, or several parts when it is large: stored whole or not at all."""
        with self._mapped(key, "write"):
            if len(data) > _SINGLE_PUT_BYTES:
                self._client.upload_fileobj(
                    io.BytesIO(data), self.bucket, self._key(key), Config=_transfer(), ExtraArgs=self._payer
                )
                return
            self._client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data, **self._payer)

    def create(self, key: str, data: bytes) -> bool:
        """One conditional PUT (`If-None-Match: *`); a retry that meets its own object counts as stored."""
        for _ in range(_MAX_ATTEMPTS):
            try:
                with self._mapped(key, "write"):
                    self._client.put_object(
                        Bucket=self.bucket, Key=self._key(key), Body=data, IfNoneMatch="*"
                    )
                return True
            except StorageError as err:
                code = _code(err.__cause__) if isinstance(err.__cause__, ClientError) else ""
                if code in _CHANGED:
                    return self.read(key) == data
                if code != _CONFLICT:
                    raise
            time.sleep(random.uniform(0, _CONFLICT_WAIT_S))  # another caller's PUT of this key is under way
        return False

    def exists(self, key: str) -> bool:
        """Whether an object is stored under exactly this key."""
        try:
            self.info(key)
        except NotFoundError:
            return False
        return True

    def info(self, key: str) -> ObjectInfo:
        """Size and etag of an object."""

        def get() -> ObjectInfo:
            head = self._client.head_object(Bucket=self.bucket, Key=self._key(key), **self._payer)
            if "ContentLength" not in head or not head.get("ETag", "").endswith('"'):
                raise _BrokenAnswerError("the headers broke off")
            return ObjectInfo(key=key, size_bytes=head["ContentLength"], etag=head["ETag"])

        return self._retried(key, get)

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """Objects whose key begins with `prefix`."""
        root = f"{self.prefix}/" if self.prefix else ""

        def get() -> list[ObjectInfo]:
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=root + prefix, **self._payer
            )
            items = [item for page in pages for item in page.get("Contents", [])]
            return [
                ObjectInfo(key=item["Key"].removeprefix(root), size_bytes=item["Size"], etag=item["ETag"])
                for item in items
                if item["Key"] != root and not item["Key"].endswith("/")
            ]

        return sorted(self._retried(prefix, get, action="list"), key=lambda info: info.key)

    def delete(self, key: str) -> None:
        """Remove an object; none there is no error."""
        with self._mapped(key, "delete"):
            self._client.delete_object(Bucket=self.bucket, Key=self._key(key), **self._payer)

    def download(self, key: str, path: Path) -> str:
        """Fetch an object in ranged parts, several in flight, all of the same etag, into a local file."""
        info = self.info(key)
        with atomic_file(path) as temporary:
            descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            try:
                return self._download_parts(key, info, descriptor)
            finally:
                os.close(descriptor)

    def upload(self, path: Path, key: str) -> None:
        """Copy a local file, in several parts when it is large; it appears when all of them are there."""
        with self._mapped(key, "write"):
            self._client.upload_file(
                str(path), self.bucket, self._key(key), Config=_transfer(), ExtraArgs=self._payer
            )

    def clean(self, *, recursive: bool = False) -> None:
        """Abort unfinished uploads: their parts are stored, and paid for, without being seen in any listing.

        What the server does not let this caller do is left for the bucket's lifecycle rules.
        """
        root = f"{self.prefix}/" if self.prefix else ""
        try:
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self.bucket, Prefix=root, **self._payer
            )
            for upload in [found for page in pages for found in page.get("Uploads", [])]:
                if "/" in upload["Key"].removeprefix(root) and not recursive:
                    continue
                self._client.abort_multipart_upload(
                    Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"], **self._payer
                )
                _log.info("s3://%s/%s: aborted an unfinished upload", self.bucket, upload["Key"])
        except (ClientError, BotoCoreError, HTTPClientError) as err:
            _log.info("%s: cannot look for unfinished uploads (%s)", self.uri, mask_secrets(str(err)))

    def child(self, prefix: str) -> S3Store:
        """The store of a longer prefix."""
        longer = self._key(prefix.rstrip("/"))
        return S3Store(
            bucket=self.bucket,
            prefix=longer,
            endpoint_url=self.endpoint_url,
            region=self.region,
            anonymous=self.anonymous,
            requester_pays=self.requester_pays,
        )

    def local_path(self, key: str) -> Path | None:
        """None: an object has no local file."""
        return None

    @property
    def _client(self) -> S3Client:
        with _client_lock:
            return _make_client(os.getpid(), self.endpoint_url, self.region, self.anonymous)

    @property
    def _asked(self) -> str:
        """The server that answers for the bucket, in words."""
        named = (self.endpoint_url, *(os.environ.get(name) for name in ENDPOINT_VARIABLES))
        return next((mask_secrets(url) for url in named if url), "AWS")

    @property
    def _payer(self) -> dict[str, Any]:
        return {"RequestPayer": "requester"} if self.requester_pays else {}

    def _key(self, key: str) -> str:
        check_key(key, self.uri)
        return f"{self.prefix}/{key}" if self.prefix else key

    def _download_parts(self, key: str, info: ObjectInfo, descriptor: int) -> str:
        """Write the parts as they come, and hash them in their order while later ones are on their way."""

        def fetch(start: int) -> None:
            length = min(PART_BYTES, info.size_bytes - start)
            part = memoryview(_part_buffers.of_thread(length))[:length]
            self._part_into(key, start, part, etag=info.etag)
            written = 0
            while written < len(part):
                written += os.pwrite(descriptor, part[written:], start + written)

        os.truncate(descriptor, info.size_bytes)  # so that the cache counts what is still on its way
        starts, hashed = range(0, info.size_bytes, PART_BYTES), hashlib.sha256()
        pool = _part_pool(os.getpid())
        futures = [pool.submit(fetch, start) for start in starts]
        try:
            for start, future in zip(starts, futures, strict=True):
                future.result()
                _hash_range(hashed, descriptor, start, start + PART_BYTES)
        finally:
            for future in futures:
                future.cancel()
            wait(futures)
        return hashed.hexdigest()

    def _part_into(self, key: str, start: int, part: memoryview, *, etag: str | None = None) -> None:
        """Fill `part` with the object's bytes from `start`, of this etag if one is given."""
        arguments: dict[str, Any] = {"Range": f"bytes={start}-{start + len(part) - 1}", **self._payer}
        if etag is not None:
            arguments["IfMatch"] = etag

        def get() -> None:
            response = self._client.get_object(Bucket=self.bucket, Key=self._key(key), **arguments)
            if response.get("ContentLength") != len(part):
                found = response.get("ContentLength")
                raise _BrokenAnswerError(f"{found} bytes were offered where {len(part)} were expected")
            _fill(part, response["Body"])

        self._retried(key, get)

    def _retried(
        self, key: str, get: Callable[[], _Result], *, action: Literal["read", "list"] = "read"
    ) -> _Result:
        """Retry what boto3 does not: an answer that breaks off after it began, or is no answer."""
        with self._mapped(key, action):
            for attempt in range(_MAX_ATTEMPTS - 1):
                try:
                    return get()
                except (
                    _BrokenAnswerError,
                    IncompleteReadError,
                    ResponseParserError,
                    ResponseStreamingError,
                    HTTPClientError,
                    ConnectionError,
                ) as err:
                    check_open_files(err, f"{self.uri}/{key}: cannot {action}")  # boto3 has tried that again
                    _log.info("%s/%s: %s, trying again", self.uri, key, mask_secrets(str(err)))
                    time.sleep(min(_MAX_WAIT_S, 0.1 * 2**attempt) * random.uniform(0.5, 1.0))
            return get()

    @contextlib.contextmanager
    def _mapped(self, key: str, action: Literal["read", "write", "list", "delete"]) -> Iterator[None]:
        where = f"{self.uri}/{key}"
        try:
            yield
        except ClientError as err:
            raise _from_client_error(err, where, action, self._asked) from err
        except _OWN_SETTINGS as err:  # botocore refuses an endpoint with a plain ValueError
            hint = f"; {_OTHER_SERVER}" if isinstance(err, NoCredentialsError) else ""
            raise StorageError(
                f"{where}: cannot {action} at {self._asked}, {_of_settings(err)}{hint}"
            ) from err
        except (BotoCoreError, HTTPClientError, S3UploadFailedError, _BrokenAnswerError) as err:
            check_open_files(err, f"{where}: cannot {action}")
            text = mask_secrets(str(err)) or type(err).__name__
            raise StorageError(
                f"{where}: cannot {action} at {self._asked} ({text}); check the network; {_OTHER_SERVER}"
            ) from err
        except OSError as err:  # of boto3's own files, which it reads for a new client
            check_open_files(err, f"{where}: cannot {action}")
            raise


@functools.lru_cache(maxsize=32)
def _make_client(pid: int, endpoint_url: str | None, region: str | None, anonymous: bool) -> S3Client:
    """A client of this process: `pid` is in the key because connections do not survive a fork."""
    session = boto3.session.Session()
    options: dict[str, Any] = {}
    styles = (session._session.get_scoped_config() or {}).get("s3", {}) if session.profile_name else {}
    has_endpoint = any((endpoint_url, *(os.environ.get(name) for name in ENDPOINT_VARIABLES)))
    if has_endpoint and "addressing_style" not in styles:
        options["s3"] = {"addressing_style": "path"}
    if anonymous:
        options["signature_version"] = UNSIGNED
    config = Config(
        retries={"mode": "standard", "max_attempts": _MAX_ATTEMPTS},
        connect_timeout=_CONNECT_LIMIT_S,
        read_timeout=_SILENCE_LIMIT_S,
        max_pool_connections=64,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        **options,
    )
    return session.client("s3", endpoint_url=endpoint_url, region_name=region, config=config)


def _transfer() -> TransferConfig:
    """How large objects go up."""
    return TransferConfig(
        multipart_threshold=_SINGLE_PUT_BYTES,
        multipart_chunksize=PART_BYTES,
        max_concurrency=_UPLOADS_IN_FLIGHT,
    )


class _PartBuffers(threading.local):
    """A thread's memory for one part."""

    def __init__(self) -> None:
        self._buffer: bytearray | None = None

    def of_thread(self, num_bytes: int) -> bytearray:
        """At least `num_bytes`, the same memory at each call; a thread that fetches nothing takes none."""
        if self._buffer is None or len(self._buffer) < num_bytes:
            self._buffer = bytearray(max(PART_BYTES, num_bytes))
        return self._buffer


_part_buffers = _PartBuffers()


@functools.lru_cache(maxsize=1)
def _part_pool(pid: int) -> ThreadPoolExecutor:
    """The threads that fetch parts; `pid` is in the key because threads do not survive a fork."""
    return ThreadPoolExecutor(PARTS_IN_FLIGHT, thread_name_prefix="s3-part")


def _hash_range(hashed: hashlib._Hash, descriptor: int, start: int, end: int) -> None:
    """Add a file's bytes to a hash: what was written, in blocks that stay in the processor's cache."""
    for position in range(start, end, _HASH_BYTES):
        hashed.update(os.pread(descriptor, min(_HASH_BYTES, end - position), position))


def _fill(part: memoryview, body: Any) -> None:
    """Read a response's body into memory, which it must fill."""
    filled = 0
    while filled < len(part):
        count = body.readinto(part[filled:])
        if not count:
            raise _BrokenAnswerError(f"{filled} bytes came where {len(part)} were expected")
        filled += count


def _body(response: Any, length: int) -> bytes:
    """A response's body, which must be `length` bytes long."""
    data: bytes = response["Body"].read()
    if len(data) != length:
        raise _BrokenAnswerError(f"{len(data)} bytes came where {length} were expected")
    return data


def _of_settings(err: Exception) -> str:
    """Words for what is wrong on this machine and not on the network: credentials, profile, region, address."""
    said = " ".join(mask_secrets(str(err)).split()) or type(err).__name__
    for kinds, text in _REMEDIES:
        if isinstance(err, kinds):
            return text.format(said)
    return (
        f"the address is none that S3 takes ({said}); correct the bucket, or the endpoint (AWS_ENDPOINT_URL)"
    )


def _code(err: ClientError) -> str:
    return str(err.response.get("Error", {}).get("Code", "unknown"))


def _from_client_error(err: ClientError, where: str, action: str, asked: str) -> StorageError:
    """Our error for what the server answered; only its code is repeated."""
    code = _code(err)
    if code == "NoSuchBucket":
        return NotFoundError(
            f"{where}: cannot {action}, there is no such bucket at {asked}; create it or correct the URI; "
            f"{_OTHER_SERVER}"
        )
    if code in _MISSING:
        return NotFoundError(f"{where}: there is no such object; check the URI")
    if code in _DENIED:
        return StorageError(
            f"{where}: {asked} refuses to {action} ({code}); check the credentials and their policy; {_OTHER_SERVER}"
        )
    if code in _CHANGED:
        return StorageError(f"{where}: the object changed while it was read ({code}); try again")
    if code == "InvalidRange":
        return StorageError(f"{where}: shorter than expected ({code}); it was truncated or replaced")
    return StorageError(
        f"{where}: cannot {action}, the server answered {code}; try again or ask its operator"
    )
