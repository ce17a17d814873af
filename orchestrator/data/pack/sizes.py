"""How large images are, from the headers of a few: for what is said before anything is packed or trained.

Nothing is decoded, downloaded or written. Called by `survey`.
"""

from __future__ import annotations

import io
import itertools
import statistics
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image

from orchestrator.data.format import ShardSet, image_extension
from orchestrator.data.pack.folder_walk import is_image_name
from orchestrator.data.pack.write import PackSource
from orchestrator.data.read import FORMATS
from orchestrator.errors import DataError

_NUM_IMAGES = 16

HeightAndWidth = tuple[int, int]


def size_in_source(source: PackSource, split: str) -> HeightAndWidth | None:
    """The median height and width of the first images of a source; None where none can be read."""
    return _median(_of_samples(source, split))


def size_in_shards(shards: ShardSet, split: str) -> HeightAndWidth | None:
    """The same of local shards; None for those that would have to be downloaded."""
    infos = shards.splits.get(split, ())
    path = shards.store.local_path(infos[0].name) if infos else None
    return None if path is None else _median(_of_tar(path))


def _of_samples(source: PackSource, split: str) -> Iterator[bytes]:
    if not source.num_samples.get(split):
        return
    for load in itertools.islice(source.samples(split), _NUM_IMAGES):
        _, members = load()
        extension = image_extension(members)
        if extension is not None:
            yield members[extension]


def _of_tar(path: Path) -> Iterator[bytes]:
    with tarfile.open(path, "r:") as tar:
        images = (member for member in tar if member.isfile() and is_image_name(member.name))
        for member in itertools.islice(images, _NUM_IMAGES):
            file = tar.extractfile(member)
            if file is not None:
                yield file.read()


def _median(images: Iterable[bytes]) -> HeightAndWidth | None:
    """The medians of what can be read; an image or a shard that cannot is somebody else's to name."""
    sizes = []
    try:
        for data in images:
            size = _size(data)
            if size is not None:
                sizes.append(size)
    except (OSError, DataError, tarfile.TarError):
        pass
    if not sizes:
        return None
    heights, widths = zip(*sizes, strict=True)
    return round(statistics.median(heights)), round(statistics.median(widths))


def _size(data: bytes) -> HeightAndWidth | None:
    """Height and width as the header tells them."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.height, image.width
    except Exception:  # Pillow raises many kinds on damaged files
        return None
