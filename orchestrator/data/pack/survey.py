"""What a `data.source` holds, found out without packing, rendering or downloading a shard.

For `orchestrator plan` and the `shards` commands, which say what is there before anything is spent on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from orchestrator.config.models import RunConfig
from orchestrator.data.format import MANIFEST_NAME, LabelInfo, Note, ShardSet
from orchestrator.data.pack.left_out import left_out_text
from orchestrator.data.pack.prepare import (
    SCENES,
    described_name,
    folder_source,
    locate_source,
    open_cache,
    open_shards,
    packed_folder_name,
    scenes_name,
    scenes_source,
)
from orchestrator.data.pack.sizes import HeightAndWidth, size_in_shards, size_in_source
from orchestrator.data.pack.sources import ImageFolderSource
from orchestrator.data.pack.write import PackSource
from orchestrator.text import counted

SourceKind = Literal["shards", "tars", "scenes", "folder"]
_KIND_TEXT: Mapping[SourceKind, str] = {
    "shards": "packed shards",
    "tars": "WebDataset shards without a manifest; each is read once on first use",
    "scenes": "procedural scenes; rendered and packed on first use",
    "folder": "images that are no shards yet; packed on first use",
}


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What is there.

    `shards` is the shard set that a run would read, None where it has to be made first. `num_samples` is by split,
    `labels` by name; both are empty where only reading the shards would tell. `size_bytes` is that of the
    shards, 0 where they are not packed.
    """

    source: str
    kind: SourceKind
    shards: ShardSet | None = None
    num_samples: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, LabelInfo] = field(default_factory=dict)
    num_shards: int = 0
    size_bytes: int = 0
    image_size_px: HeightAndWidth | None = None
    """The median height and width of a few training images; None where only downloading them would tell."""
    remarks: tuple[str, ...] = ()
    """What is left out, in one line, and what else there is to say of the source."""
    notes: tuple[Note, ...] = ()
    """What is known of shards: samples that are lost, labels that are not used, what is read in an unusual way."""

    @property
    def num_classes(self) -> Mapping[str, int]:
        """Classes by label."""
        return {name: info.num_classes for name, info in self.labels.items()}

    @property
    def labels_known(self) -> bool:
        """Whether `num_classes` is what there is; shards without a manifest tell when they are read."""
        return self.kind != "tars"

    def text(self) -> str:
        """In one line."""
        parts = [f"{split} {count:,}" for split, count in self.num_samples.items()]
        if self.num_shards:
            parts.append(f"{counted(self.num_shards, 'shard')}, {self.size_bytes / 1e6:,.1f} MB")
        labels = ", ".join(f"{name} ({count})" for name, count in self.num_classes.items())
        parts.append(f"labels {labels}" if labels else "no labels known")
        return f"{self.source}: {_KIND_TEXT[self.kind]}; {'; '.join(parts)}"

    def lines(self) -> list[str]:
        """In one line, and one for each remark and note."""
        return [self.text(), *self.remarks, *(f"note: {note.text()}" for note in self.notes)]

    def to_json(self) -> dict[str, Any]:
        """As a JSON-able dictionary."""
        return {
            "source": self.source,
            "kind": self.kind,
            "ready": self.shards is not None,
            "uri": None if self.shards is None else self.shards.uri,
            "digest": None if self.shards is None else self.shards.digest,
            "num_samples": dict(self.num_samples),
            "num_classes": dict(self.num_classes),
            "remarks": list(self.remarks),
            "num_shards": self.num_shards,
            "size_bytes": self.size_bytes,
            "image_size_px": self.image_size_px,
            "notes": [{**note.to_json(), "text": note.text(), "lost": note.is_lost} for note in self.notes],
        }


def survey_source(config: RunConfig) -> Survey:
    """Look at a configuration's `data.source` as `prepare_data` would find it, and leave it as it is.

    Raises:
        DataError: Missing, empty or of no kind that can be read.
        StorageError: It cannot be reached.
    """
    data, storage = config.data, config.storage
    if data.source == SCENES:
        return _packed_or(config, scenes_name(data), "scenes", scenes_source(data))
    found = locate_source(data, storage)
    if found.is_packed:
        return _of_shards(config, open_shards(data.source, data, storage))
    if not found.tars:
        source = folder_source(found.store, data)
        return _packed_or(config, packed_folder_name(source), "folder", source)
    beside = left_out_text(found.images_beside)
    remarks = (beside,) if beside else ()
    described = open_cache(data).folder / "packed" / described_name(found)
    if (described / MANIFEST_NAME).is_file():
        return _of_shards(config, open_shards(str(described), data, storage), remarks)
    sizes = {info.key: info.size_bytes for info in found.store.list()}
    return Survey(
        source=data.source,
        kind="tars",
        num_shards=len(found.tars),
        size_bytes=sum(sizes[key] for key in found.tars),
        remarks=remarks,
        notes=found.beside,
    )


def _packed_or(config: RunConfig, name: str, kind: SourceKind, source: PackSource) -> Survey:
    """The packed form in the cache folder where there is one, else the source itself."""
    packed: Path = open_cache(config.data).folder / "packed" / name
    remarks = source.remarks if isinstance(source, ImageFolderSource) else ()
    if (packed / MANIFEST_NAME).is_file():
        return _of_shards(config, open_shards(str(packed), config.data, config.storage), remarks)
    return Survey(
        source=config.data.source,
        kind=kind,
        num_samples=dict(source.num_samples),
        labels=dict(source.labels),
        image_size_px=_size_of(config, kind, source),
        remarks=remarks,
    )


def _size_of(config: RunConfig, kind: SourceKind, source: PackSource) -> HeightAndWidth | None:
    """The size of a source's images, without rendering any."""
    if kind == "scenes":
        return config.data.scenes_image_size_px, config.data.scenes_image_size_px
    return size_in_source(source, "train")


def _of_shards(config: RunConfig, shards: ShardSet, remarks: tuple[str, ...] = ()) -> Survey:
    infos = shards.manifest.shards
    return Survey(
        source=config.data.source,
        kind="shards",
        shards=shards,
        num_samples={split: shards.manifest.num_samples(split) for split in shards.splits},
        labels=dict(shards.labels),
        num_shards=len(infos),
        size_bytes=sum(info.size_bytes for info in infos),
        image_size_px=size_in_shards(shards, config.data.train_split),
        remarks=remarks,
        notes=shards.manifest.notes,
    )
