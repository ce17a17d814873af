"""Ray's token: finding it, keeping it private, and switching token authentication on.

Ray protects a cluster by one shared token, and stock Ray starts a cluster without one unless a token exists already.
Here every cluster that we start or join uses it. The token's value never enters a log, a repr or a job's metadata.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.config.uris import local_path
from orchestrator.errors import ClusterError

MODE_VARIABLE = "RAY_AUTH_MODE"
_TOKEN_VARIABLE = "RAY_AUTH_TOKEN"
_PATH_VARIABLE = "RAY_AUTH_TOKEN_PATH"
_MIN_TOKEN_CHARACTERS = 16


@dataclass(frozen=True, kw_only=True)
class Token:
    """A token and where it came from."""

    value: str = field(repr=False)
    source: str


def find_token(path: str | None = None, environment: Mapping[str, str] | None = None) -> Token | None:
    """The token in `path`, else where Ray itself looks: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token.

    Raises:
        ClusterError: A named file is missing, empty or unreadable.
    """
    environment = os.environ if environment is None else environment
    if path is not None:
        return _read(local_path(path), f"the token file {path}")
    if environment.get(_TOKEN_VARIABLE):
        return Token(value=environment[_TOKEN_VARIABLE].strip(), source=_TOKEN_VARIABLE)
    if environment.get(_PATH_VARIABLE):
        named = environment[_PATH_VARIABLE]
        return _read(local_path(named), f"{_PATH_VARIABLE} ({named})")
    default = default_token_path(environment)
    return _read(default, str(default)) if default.exists() else None


def default_token_path(environment: Mapping[str, str] | None = None) -> Path:
    """`~/.ray/auth_token`."""
    environment = os.environ if environment is None else environment
    return Path(environment.get("HOME") or local_path("~")) / ".ray" / "auth_token"


@contextmanager
def private_token() -> Iterator[Token]:
    """The token of a local cluster, made when there is none; where HOME cannot be written, for the block alone."""
    try:
        token = ensure_private_token()
    except OSError:
        with tempfile.TemporaryDirectory(prefix="orchestrator-token-") as folder:
            path = Path(folder) / "auth_token"
            _write_new(path)
            os.environ[_PATH_VARIABLE] = str(path)
            try:
                yield _read(path, str(path))
            finally:
                del os.environ[_PATH_VARIABLE]
        return
    yield token


def _write_new(path: Path) -> None:
    """Write a fresh token to a file that its owner alone can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))


def ensure_private_token() -> Token:
    """The token of a local cluster, made when there is none; its file is readable by its owner alone.

    Ray would make the same file with the permissions of the umask, which lets everybody read it on most machines.

    Raises:
        ClusterError: A named file is missing, empty or unreadable.
        OSError: It cannot be made.
    """
    path = default_token_path()
    token = find_token()
    if token is None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write_new(path)
        token = find_token()
        assert token is not None
    if path.exists() and path.stat().st_mode & 0o077 and path.stat().st_uid == os.geteuid():
        with suppress(OSError):  # a file system without permissions; doctor says who can read it
            path.chmod(0o600)
    return token


def use_token() -> None:
    """Switch token authentication on for the Ray of this process and its children, unless RAY_AUTH_MODE is set.

    Ray reads the variable once when it is imported; its own way of switching refreshes what it has read.
    """
    if MODE_VARIABLE not in os.environ:
        from ray._private.authentication.authentication_token_setup import _enable_token_auth

        _enable_token_auth()


def _read(path: Path, source: str) -> Token:
    try:
        value = path.read_text(encoding="ascii", errors="strict").strip()
    except (OSError, ValueError) as err:
        reason = getattr(err, "strerror", None) or "not a text file"
        raise ClusterError(
            f"no token in {source}: {reason}; write the cluster's token to a file that only you can read"
        ) from None
    if len(value) < _MIN_TOKEN_CHARACTERS or any(character.isspace() for character in value):
        raise ClusterError(
            f"no token in {source}: a token is one word of at least {_MIN_TOKEN_CHARACTERS} characters; "
            "make one with `ray get-auth-token --generate`"
        )
    return Token(value=value, source=source)
