"""Giving a finished file its name only where none has it, on file systems with and without hard links.

A hard link does it in one step. Where there is none (exFAT, SMB, many FUSE mounts) the kernel's rename that replaces
nothing does; where there is none of that either, a claim beside the name does: of several writers one makes it, and
renames while it holds it. A reader never sees a half-written file in any of these. One promise is weaker
with a claim: a writer that stands still for half a minute between its claim and its rename may not be the only one that
is told it was first.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_ABSENT = (
    errno.EPERM,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EINVAL,
    errno.EMLINK,
    errno.EXDEV,
)
"""What a file system answers that cannot do a thing, or not as it is asked."""
_AT_FDCWD, _NO_REPLACE = -100, 1
_CLAIM_LIMIT_S = 30.0
_POLL_S = 0.05


def claim_name(path: Path, prefix: str) -> Path:
    """The claim on a path, under a name that begins with `prefix`."""
    return path.with_name(f"{prefix}claim-{path.name}")


def move_new(temporary: Path, path: Path, claim: Path) -> bool:
    """Give `temporary` the name `path` unless it is taken; returns whether it has it. `temporary` may be left over.

    Raises:
        OSError: Neither can be done.
    """
    for way in (_link, _rename_no_replace):
        done = _tried(way, temporary, path)
        if done is not None:
            return done
    return _rename_under_claim(temporary, path, claim)


def _tried(way: Callable[[Path, Path], None], temporary: Path, path: Path) -> bool | None:
    """Whether it gave the name; None where the file system cannot do it so."""
    try:
        way(temporary, path)
    except FileExistsError:
        return False
    except OSError as err:
        if err.errno in _ABSENT:
            return None
        raise
    return True


def _link(temporary: Path, path: Path) -> None:
    os.link(temporary, path)


def _rename_no_replace(temporary: Path, path: Path) -> None:
    """Linux's `renameat2`, of which Python knows nothing."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if rename(_AT_FDCWD, os.fsencode(temporary), _AT_FDCWD, os.fsencode(path), _NO_REPLACE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))


def _rename_under_claim(temporary: Path, path: Path, claim: Path) -> bool:
    while not _claimed(claim):
        if path.exists():
            return False
        _drop_stale(claim)
        time.sleep(_POLL_S)
    try:
        if path.exists():
            return False
        temporary.replace(path)
        return True
    finally:
        claim.unlink(missing_ok=True)


def _claimed(claim: Path) -> bool:
    try:
        os.close(os.open(claim, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return False
    return True


def _drop_stale(claim: Path) -> None:
    """Remove the claim of a writer that was killed while it held it."""
    with suppress(FileNotFoundError):
        if time.time() - claim.stat().st_mtime > _CLAIM_LIMIT_S:
            claim.unlink()
