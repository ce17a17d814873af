"""Small image data sets for tests: folders, shards, configurations."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from orchestrator.config import apply_overrides, default_config
from orchestrator.config.models import RunConfig
from orchestrator.data import BatchStream, PackSettings, ShardInfo, ShardSet, prepare_data
from orchestrator.data.format.cache import Cache, hash_descriptor
from orchestrator.data.pack.sources import ImageFile, ImageFolderSource
from orchestrator.data.pack.write import PackSample, pack
from orchestrator.storage import LocalStore, open_store


def image_bytes(
    seed: int, *, size: tuple[int, int] = (24, 24), format: str = "PNG", mode: str = "RGB"
) -> bytes:
    """A smooth random image."""
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR).convert(mode)
    out = io.BytesIO()
    image.save(out, format=format)
    return out.getvalue()


def image_folder(
    root: Path, *, classes: Sequence[str] = ("ant", "bee", "cat"), images: int = 20, first: int = 0
) -> Path:
    """One sub-folder a class."""
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for index in range(images):
            (root / name / f"{index:03d}.png").write_bytes(image_bytes(first + 1000 * number + index))
    return root


def write_tar(path: Path, members: Sequence[tuple[str, bytes]], **options: Any) -> Path:
    """A tar file of these members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@dataclass(frozen=True)
class RemoteFolder(LocalStore):
    """A folder that behaves as if it were far away: downloads are logged, one line each, and may be slow."""

    log: str = ""
    delay_s: float = 0.0

    def local_path(self, key: str) -> Path | None:
        return None

    def download(self, key: str, path: Path) -> str:
        with open(self.log, "a") as log:
            log.write(f"{key}\n")
        time.sleep(self.delay_s)
        return super().download(key, path)


def fetch_shards(arguments: tuple[Cache, LocalStore, Sequence[ShardInfo]]) -> list[str]:
    """Open every shard through the cache and hash what is read: the work of one process."""
    cache, store, infos = arguments
    found = []
    for info in infos:
        descriptor = cache.open_shard(store, info.name, size_bytes=info.size_bytes, sha256=info.sha256)
        found.append(hash_descriptor(descriptor))
        os.close(descriptor)
    return found


def data_config(source: str | Path, cache_dir: Path, **overrides: Any) -> RunConfig:
    """The default configuration with this source and cache folder, and `data.*` overrides."""
    values: Mapping[str, Any] = {"source": str(source), "cache_dir": str(cache_dir), **overrides}
    return apply_overrides(default_config(), {f"data.{name}": value for name, value in values.items()})


def open_stream(shards: ShardSet, config: RunConfig, **options: Any) -> BatchStream:
    """A stream of 16 px images in batches of 8."""
    settings: dict[str, Any] = {
        "image_size_px": 16,
        "batch_size": 8,
        "rank": 0,
        "world_size": 1,
        "seed": 3,
        "start_step": 0,
        "total_steps": 15,
        **options,
    }
    return BatchStream(shards, data=config.data, **settings)


def global_stream(
    shards: ShardSet, config: RunConfig, *, world_size: int = 1, **options: Any
) -> list[list[str]]:
    """The keys of every global batch, put together from the ranks."""
    ranks = []
    for rank in range(world_size):
        with open_stream(shards, config, rank=rank, world_size=world_size, **options) as stream:
            ranks.append([batch.keys for batch in stream])
    return [[key for keys in shares for key in keys] for shares in zip(*ranks, strict=True)]


def stream_keys(config: RunConfig) -> list[list[str]]:
    """The keys of an epoch's batches, read as a run of its own: the work of one process."""
    shards = prepare_data(config)
    steps = -(-shards.manifest.num_samples("train") // 8)
    return global_stream(shards, config, total_steps=steps)


def stream_for_ever(config: RunConfig, started: Path) -> None:
    """Read epoch after epoch until killed."""
    shards = prepare_data(config)
    started.touch()
    while True:
        global_stream(shards, config, total_steps=30)


@dataclass(frozen=True)
class SlowSource(ImageFolderSource):
    """An image folder on a slow disk."""

    def _load(self, file: ImageFile) -> PackSample:
        time.sleep(0.002)
        return super()._load(file)


def pack_slowly(source: str, uri: str, started: Path) -> None:
    """Pack a folder of images."""
    store = open_store(uri)
    store.exists("manifest.json")  # what connecting takes is no part of the packing
    started.touch()
    pack(SlowSource(Path(source)), store, PackSettings(shard_size_mb=0.02))
