"""A small disk of its own that can be filled: a tmpfs, which only root may mount."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SmallDisk:
    """A mounted file system of a few megabytes."""

    folder: Path

    def fill(self) -> int:
        """Take all that is free, to the last byte; returns how many there were."""
        with (self.folder / "filler").open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"\0" * 4096):
                pass
        return (self.folder / "filler").stat().st_size

    def free(self) -> None:
        """Give back what `fill` took."""
        (self.folder / "filler").unlink()


@contextlib.contextmanager
def small_disk(folder: Path, *, megabytes: int = 4) -> Iterator[SmallDisk]:
    """Mount a tmpfs of this size at a folder for the length of a `with` block."""
    folder.mkdir(parents=True, exist_ok=True)
    size = f"size={megabytes}m"
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], check=True, capture_output=True
    )
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
