"""The tree below a folder of images, links followed, and what in it is not read.

Owns the file system: which entries are images, links that lead nowhere or in a circle, files of other formats. What
the folders mean (classes, parts) is `folder_layout`'s.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from orchestrator.data.format import IMAGE_EXTENSIONS, JPEG_ALIASES
from orchestrator.data.pack.left_out import LeftOutCounts

_LITTER = frozenset({"thumbs.db", "desktop.ini", "@eadir", "lost+found", "icon\r"})
"""What systems leave in folders, beside names that begin with a dot or two underscores: left out without a word."""
_BROKEN = ("link that leads nowhere", "links that lead nowhere")
_CIRCULAR = ("link that leads in a circle", "links that lead in a circle")
_UNREADABLE = ("entry that cannot be opened", "entries that cannot be opened")
_SPECIAL = ("entry that is neither file nor folder", "entries that are neither file nor folder")
_EMPTY = ("empty image file", "empty image files")

Identity = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class FoundImage:
    """One image file and what tells that it changed."""

    path: Path
    size_bytes: int
    mtime_ns: int

    @property
    def extension(self) -> str:
        """Its extension inside a shard."""
        found = self.path.suffix[1:].lower()
        return "jpg" if found in JPEG_ALIASES else found


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A folder: its images, and its sub-folders by name."""

    path: Path
    images: list[FoundImage] = field(default_factory=list)
    folders: list[Folder] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.name

    @cached_property
    def num_images(self) -> int:
        """Images in it and below it."""
        return len(self.images) + sum(folder.num_images for folder in self.folders)

    @property
    def filled(self) -> list[Folder]:
        """The sub-folders with images."""
        return [folder for folder in self.folders if folder.num_images]

    def every(self) -> Iterator[FoundImage]:
        """All images in it and below it."""
        yield from self.images
        for folder in self.folders:
            yield from folder.every()

    def first(self) -> Path:
        """The first image, as an example; there must be one."""
        return next(self.every()).path


def walk(root: Path, left_out: LeftOutCounts) -> Folder:
    """The tree below a folder; links are followed, one that leads back to a folder above it is left out."""
    return _Walk(root, left_out).folder(root, ())


class _Walk:
    """One walk: notes what is not read by its path below the root."""

    def __init__(self, root: Path, left_out: LeftOutCounts) -> None:
        self._root, self._left_out = root, left_out

    def folder(self, path: Path, above: tuple[Identity, ...]) -> Folder:
        found = Folder(path=path)
        try:
            status = path.stat()
            entries = sorted(path.iterdir())
        except OSError:
            self._note(_UNREADABLE, path)
            return found
        inside = (*above, (status.st_dev, status.st_ino))
        for entry in entries:
            if not is_litter(entry.name):
                self._entry(entry, inside, found)
        return found

    def _entry(self, path: Path, inside: tuple[Identity, ...], found: Folder) -> None:
        try:
            status = path.stat()
        except OSError as err:
            self._note(_reason(err), path)
            return
        if stat.S_ISDIR(status.st_mode):
            if (status.st_dev, status.st_ino) in inside:
                self._note(_CIRCULAR, path)
            else:
                found.folders.append(self.folder(path, inside))
        elif not stat.S_ISREG(status.st_mode):
            self._note(_SPECIAL, path)
        elif not is_image_name(path.name):
            self._note((path.suffix.lower() or "file without extension",) * 2, path)
        elif not status.st_size:
            self._note(_EMPTY, path)
        else:
            image = FoundImage(path=path, size_bytes=status.st_size, mtime_ns=status.st_mtime_ns)
            found.images.append(image)

    def _note(self, reason: tuple[str, str], path: Path) -> None:
        self._left_out.add(*reason, os.fspath(path.relative_to(self._root)))


def is_litter(name: str) -> bool:
    """Whether an entry is none of the user's data: hidden, or left by a system."""
    return name.startswith((".", "__")) or name.lower() in _LITTER


def is_image_name(name: str) -> bool:
    """Whether a file with this name is read as an image."""
    return name.rpartition(".")[2].lower() in (*IMAGE_EXTENSIONS, *JPEG_ALIASES)


def _reason(err: OSError) -> tuple[str, str]:
    """Why an entry that is listed cannot be looked at."""
    if err.errno == errno.ELOOP:
        return _CIRCULAR
    return _BROKEN if err.errno in (errno.ENOENT, errno.ENOTDIR) else _UNREADABLE
