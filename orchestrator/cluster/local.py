"""What a Ray of this machine alone needs before it starts: a folder with room for its sockets, a token, resources.

The same checks are made by a sweep that starts and by `orchestrator doctor`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import ClusterError

_MAX_SOCKET_BYTES = 107
"""Of a Unix socket's path on Linux; macOS allows three fewer."""
_SESSION_BYTES = len("/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store") + 3
_MAX_FOLDER_BYTES = _MAX_SOCKET_BYTES - _SESSION_BYTES
_FULL_FRACTION = 0.95
"""Of its disk, above which Ray refuses to put objects there (its `local_fs_capacity_threshold`)."""
_SHORT = "/tmp"
_PRIVATE = "orchestrator-"


@dataclass(frozen=True, kw_only=True)
class RayFolder:
    """Where a local Ray keeps its sockets and logs; None as `path` asks for a private folder below /tmp."""

    path: Path | None
    reason: str = ""
    """Why it is not where Ray would put it."""


def find_ray_folder(environment: Mapping[str, str] | None = None) -> RayFolder:
    """Ray's own choice (RAY_TMPDIR, TMPDIR or /tmp) where it works, else a private folder below /tmp.

    Raises:
        ClusterError: RAY_TMPDIR, which was chosen, does not work, or /tmp does not either.
    """
    environment = os.environ if environment is None else environment
    chosen = environment.get("RAY_TMPDIR")
    base = Path(chosen or environment.get("TMPDIR") or _SHORT)
    reason = _unfit(base / "ray")
    if not reason:
        return RayFolder(path=base / "ray")
    remedy = (
        f"set RAY_TMPDIR to a folder of yours with a path of at most {_MAX_FOLDER_BYTES - len('/ray')} bytes"
    )
    if chosen:
        raise ClusterError(f"Ray cannot use RAY_TMPDIR ({chosen}): {reason}; {remedy}")
    if not _is_writable(Path(_SHORT)):
        raise ClusterError(
            f"Ray can use neither {base} ({reason}) nor {_SHORT}, which cannot be written; {remedy}"
        )
    return RayFolder(path=None, reason=f"{base / 'ray'}: {reason}")


@contextmanager
def ray_folder() -> Iterator[Path]:
    """The folder of a Ray that is started now; a private one is removed when the block ends well.

    Raises:
        ClusterError: There is none that works.
    """
    found = find_ray_folder()
    if found.path is not None:
        yield found.path
        return
    private = tempfile.mkdtemp(prefix=_PRIVATE, dir=_SHORT)
    yield Path(private)
    shutil.rmtree(private, ignore_errors=True)  # kept after an error: its logs say more


def ray_folder_warnings() -> list[str]:
    """What a sweep should know of its Ray's folder and does not fail of.

    Raises:
        ClusterError: There is no folder that works.
    """
    found = find_ray_folder()
    warnings = []
    if found.path is None:
        warnings.append(f"{found.reason}: Ray's sockets and logs go to a folder of their own below {_SHORT}")
    disk = shutil.disk_usage(_nearest(found.path or Path(_SHORT)))
    if disk.used > _FULL_FRACTION * (disk.used + disk.free):
        warnings.append(
            f"the disk of {found.path or _SHORT} is {100 * disk.used / (disk.used + disk.free):.0f} % full: above "
            f"{100 * _FULL_FRACTION:.0f} % Ray keeps no object there; free some, or set RAY_TMPDIR to another disk"
        )
    return warnings


def ignored_address(environment: Mapping[str, str] | None = None) -> str:
    """RAY_ADDRESS, which a local Ray does not join; empty where it is not set."""
    environment = os.environ if environment is None else environment
    return environment.get("RAY_ADDRESS", "")


def _unfit(folder: Path) -> str:
    """Why Ray cannot keep its sockets in a folder; empty when it can."""
    length = len(os.fsencode(folder))
    if length > _MAX_FOLDER_BYTES:
        return (
            f"its path has {length} bytes, and with {_MAX_FOLDER_BYTES} the path of a socket there reaches the "
            f"{_MAX_SOCKET_BYTES} that the system allows"
        )
    nearest = _nearest(folder)
    if not _is_writable(nearest):
        return f"{nearest} cannot be written"
    return ""


def _is_writable(folder: Path) -> bool:
    """Whether a folder can be made in it; permissions alone do not tell."""
    try:
        os.rmdir(tempfile.mkdtemp(prefix=_PRIVATE, dir=folder))
    except OSError:
        return False
    return True


def _nearest(folder: Path) -> Path:
    """The folder itself, or the nearest above it that is there."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder
