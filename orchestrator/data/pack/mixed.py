"""Folders that hold both shards and images as files: which of the two a source means, and what lies beside it.

Pure functions of the keys below a folder. Called by `prepare`, which opens a source, and by `survey`, which tells.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.data.pack.folder_walk import is_image_name, is_litter
from orchestrator.data.pack.left_out import LeftOut, printable

_SHARD_EXTENSIONS = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
_FEWEST_CLASSES = 2


def is_image_folder(keys: Sequence[str]) -> bool:
    """Whether images are meant: at least two folders of them, and more of them than of tar files."""
    images = [key for key in _images(keys) if "/" in key]
    num_tars = sum(key.endswith(_SHARD_EXTENSIONS) for key in keys)
    return len({key.partition("/")[0] for key in images}) >= _FEWEST_CLASSES and len(images) > num_tars


def images_beside(keys: Sequence[str]) -> tuple[LeftOut, ...]:
    """The image files that lie beside shards, which are read instead."""
    images = _images(keys)
    if not images:
        return ()
    return (
        LeftOut(
            one="image beside the shards",
            many="images beside the shards",
            count=len(images),
            example=printable(images[0]),
        ),
    )


def _images(keys: Sequence[str]) -> list[str]:
    return [key for key in keys if is_image_name(key) and not any(is_litter(part) for part in key.split("/"))]
