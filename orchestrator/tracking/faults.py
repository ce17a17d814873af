"""What an error of MLflow, SQLAlchemy, HTTP or a disk means: refused, gone for now, or of no use until someone acts.

An error in, one of ours out, with one line that says what, where and the remedy. Other libraries' errors are told
by their texts and codes, as they pass from one to the next before they come here. Called by `mlflow` and `checks`.
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Iterator

from orchestrator.config.uris import mask_secrets
from orchestrator.errors import TrackingError
from orchestrator.storage import OPEN_FILES_REMEDY, find_open_files_limit
from orchestrator.tracking.base import UnavailableError, UnusableError

_REFUSED_CALL = frozenset(
    {
        "INVALID_PARAMETER_VALUE",
        "BAD_REQUEST",
        "MALFORMED_REQUEST",
        "RESOURCE_DOES_NOT_EXIST",
        "RESOURCE_ALREADY_EXISTS",
        "INVALID_STATE",
        "FEATURE_DISABLED",
    }
)
_REFUSED_ACCESS = frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"})
_NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_NAME_UNKNOWN = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
_DRIVERS = {"psycopg": "'psycopg[binary]'", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}
CREDENTIALS = (
    "give one that may: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
)

NO_SERVER = (
    "what answers there is no MLflow server; give its address, with the path before `/api` if it has one"
)

# In the text of any error of the chain, and what it means in our words. None of these passes by itself.
_LASTING = (
    (
        r"file is not a database|disk image is malformed",
        "the file is damaged, or no SQLite database; move it away or put a copy in its place",
    ),
    (r"readonly database", "the database is read-only; give write access to the file and its folder"),
    (
        r"unable to open database file",
        "the file cannot be opened; give write access to it and its folder, or set tracking.uri to another place",
    ),
    (
        r"out-of-date database schema|Can't locate revision",
        "the database belongs to another version of MLflow; back it up and run `mlflow db upgrade`, install the "
        "version that made it, or set tracking.uri to a new place",
    ),
    (
        r"NoSuchModuleError|Could not parse SQLAlchemy URL|UnsupportedModelRegistryStoreURI|InvalidUrlException",
        "this is no address of a tracking store; use http(s)://host:port, sqlite:///file.db or a folder",
    ),
    (
        r"password authentication failed|Access denied for user|no password supplied|[Pp]ermission denied for",
        "the database refuses this account; set its user and password where its driver looks (PGPASSFILE, ~/.my.cnf)",
    ),
    (
        r'role ".*" does not exist|database ".*" does not exist|Unknown database',
        "there is no such database or user",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|certificate verify failed",
        "its certificate is not trusted; set MLFLOW_TRACKING_SERVER_CERT_PATH to the PEM file that signs it",
    ),
    (r"WRONG_VERSION_NUMBER|wrong version number", "the server does not speak https; write http://"),
    (r"not in a valid JSON format", NO_SERVER),
    (r"BadStatusLine|InvalidHeader", "what answers there does not speak HTTP; check host and port"),
)


def as_ours(uri: str, error: BaseException) -> TrackingError:
    """One of our errors for one that came from below: its kind says whether waiting, or repeating, can help."""
    chain = list(_chain(error))
    where = mask_secrets(uri)
    limit = find_open_files_limit(error)
    if limit is not None:
        return UnavailableError(f"{where} cannot be reached ({limit}); {OPEN_FILES_REMEDY}")
    lasting = _lasting(chain)
    if lasting:
        return UnusableError(f"{where}: {lasting}")
    passing = _passing(chain)
    if passing:
        return UnavailableError(f"{where} cannot be written now: {passing}")
    code = next((str(each.error_code) for each in chain if hasattr(each, "error_code")), "")
    if code in _REFUSED_ACCESS:
        return UnusableError(f"{where} refuses this account ({first_line(error)}); {CREDENTIALS}")
    if code == "ENDPOINT_NOT_FOUND":
        return UnusableError(f"{where}: {NO_SERVER}")
    if code in _REFUSED_CALL:
        return TrackingError(f"{where} refused: {first_line(error)}")
    return UnavailableError(f"{where} cannot be reached: {reason_text(error)}")


def reason_text(error: BaseException) -> str:
    """The innermost cause of an error in a few words, with its type."""
    chain = list(_chain(error))
    for each in reversed(chain):
        if isinstance(each, OSError) and each.strerror and each.errno:
            return each.strerror
    if any("timeout" in type(each).__name__.lower() for each in chain):
        return "no answer in time"
    return f"{type(error).__name__}: {first_line(error)}"


def first_line(error: BaseException) -> str:
    """The first line of an error's text, with credentials masked, cut at 300 characters."""
    return mask_secrets(next(iter(str(error).strip().splitlines()), ""))[:300]


def _lasting(chain: list[BaseException]) -> str:
    """Why waiting cannot help; empty where it can."""
    for each in chain:
        if isinstance(each, ModuleNotFoundError) and each.name:
            package = _DRIVERS.get(each.name, each.name)
            return f"the Python package `{each.name}` is not installed; pip install {package}"
        if isinstance(each, socket.gaierror):
            if each.errno in _NAME_UNKNOWN:
                return "the host's name is not known; check the address for typing errors"
        elif isinstance(each, OSError) and not isinstance(each, ssl.SSLError) and each.errno in _NO_ACCESS:
            named = f" ({each.filename})" if each.filename else ""
            return f"{each.strerror}{named}; give write access, or set tracking.uri to another place"
    text = "\n".join(f"{type(each).__name__}: {each}" for each in chain)
    return next((remedy for pattern, remedy in _LASTING if re.search(pattern, text)), "")


def _passing(chain: list[BaseException]) -> str:
    """What keeps a database from being written for a while; empty where it is something else."""
    text = "\n".join(map(str, chain))
    if any(isinstance(each, OSError) and each.errno in _NO_ROOM for each in chain) or "disk is full" in text:
        return "the disk is full; free some of it"
    if "database is locked" in text:
        return "another program holds the database; wait for it, or end it"
    return ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and all that led to it, outermost first; urllib3 keeps the reason in an attribute, requests in args."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        each = waiting.pop(0)
        if not isinstance(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting += [each.__cause__, each.__context__, getattr(each, "reason", None), *each.args]
