"""The labelled images of the probes: without augmentation, those that cannot be used left out."""

from __future__ import annotations

import contextlib
import functools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from jepa_core.settings import ImageSize, height_and_width
from orchestrator.data.format import DamagedShardError, Pixels, SampleReader, ShardSet
from orchestrator.data.read.decode import UndecodableError, central_box, channels_first, decode_into
from orchestrator.data.read.order import GlobalOrder, Int64s
from orchestrator.data.read.quarantine import (
    MAX_BAD_FRACTION,
    BadSample,
    Quarantine,
    damaged_shard,
    ledger_path,
)
from orchestrator.data.read.readahead import DOWNLOADS_IN_FLIGHT
from orchestrator.errors import DataError, OrchestratorError
from orchestrator.text import counted

# C channels, H W pixels, N images of a probe.
_PROBE_WINDOW_SHARDS = 64


@dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """Images without augmentation, and by name their integer labels [N] and their amounts [N], float64."""

    images_uint8_NCHW: Tensor
    labels: dict[str, Tensor]
    keys: list[str]
    amounts: dict[str, Tensor] = field(default_factory=dict)
    bad_samples: tuple[BadSample, ...] = ()
    """What had to be left out."""


def load_images(
    shards: ShardSet,
    split: str,
    num_images: int,
    *,
    image_size_px: ImageSize,
    threads: int = 1,
    max_bad_fraction: float = MAX_BAD_FRACTION,
) -> LabelledImages:
    """Up to `num_images` of a split: the largest centred box, resized; a sample without its labels is left out.

    Which ones is a function of the manifest alone; they come from few shards, so a probe need not fetch all of them.

    A sample that cannot be used is left out, up to the bound that holds for training on the split.

    Raises:
        DataError: No such split, or too many samples cannot be used.
    """
    infos, first_id = shards.split(split)
    sizes = [info.num_samples for info in infos]
    order = GlobalOrder(sizes, seed=0, window_shards=_PROBE_WINDOW_SHARDS, first_id=first_id)
    ids = np.sort(order.locate(np.arange(min(num_images, order.num_samples), dtype=np.int64))[1])
    quarantine = Quarantine(order.num_samples, max_bad_fraction=max_bad_fraction, ledger=ledger_path(shards))
    samples = _LabelledSamples(shards, quarantine)
    samples.fetch(ids)
    pixels_NHWC = np.empty((len(ids), *height_and_width(image_size_px), 3), dtype=np.uint8)
    if threads > 1:
        with ThreadPoolExecutor(threads, "probe-images") as pool:
            found = list(pool.map(samples.load, ids.tolist(), pixels_NHWC))
    else:
        found = [
            samples.load(sample_id, out) for sample_id, out in zip(ids.tolist(), pixels_NHWC, strict=True)
        ]
    rows = [row for row, sample in enumerate(found) if sample is not None]
    if not rows:
        raise DataError(
            f"{shards.uri}: none of {counted(len(ids), 'image')} of split {split!r} can be used; pack them again"
        )
    kept = [sample for sample in found if sample is not None]
    return LabelledImages(
        images_uint8_NCHW=channels_first(pixels_NHWC[rows] if len(rows) < len(ids) else pixels_NHWC),
        labels={name: torch.tensor([labels[name] for _, labels, _ in kept]) for name in shards.labels},
        keys=[key for key, _, _ in kept],
        amounts={
            name: torch.tensor([amounts[name] for _, _, amounts in kept], dtype=torch.float64)
            for name in shards.amounts
        },
        bad_samples=quarantine.entries,
    )


class _LabelledSamples:
    """Decodes a sample and reads its labels, or puts it into quarantine."""

    def __init__(self, shards: ShardSet, quarantine: Quarantine) -> None:
        self._shards, self._quarantine = shards, quarantine
        self._reader = SampleReader(shards, max_open=_PROBE_WINDOW_SHARDS)

    def fetch(self, ids: Int64s) -> None:
        """Download the shards of samples side by side; what goes wrong is met again when they are read."""

        def fetch_one(shard: int) -> None:
            with contextlib.suppress(OrchestratorError):
                self._reader.open(shard)

        if self._reader.is_remote:
            shards = dict.fromkeys(self._reader.locate(sample_id)[0] for sample_id in ids.tolist())
            with ThreadPoolExecutor(DOWNLOADS_IN_FLIGHT, "probe-shards") as pool:
                list(pool.map(fetch_one, shards))

    def load(self, sample_id: int, out_HWC: Pixels) -> tuple[str, dict[str, int], dict[str, float]] | None:
        """Key, labels and amounts; None when the sample cannot be used."""
        shard, member = self._reader.locate(sample_id)
        try:
            opened = self._reader.open(shard)
        except DamagedShardError as err:
            self._quarantine.add(damaged_shard(self._reader, shard, err))
            return None
        self._quarantine.add_damage(opened)
        sample = opened.sample(member)
        try:
            aspect_ratio = out_HWC.shape[1] / out_HWC.shape[0]
            decode_into(sample.image, out_HWC, functools.partial(central_box, aspect_ratio=aspect_ratio))
            labels = opened.checked_labels(member, self._shards.labels)
            return sample.key, labels, opened.checked_amounts(member, self._shards.amounts)
        except (UndecodableError, DataError) as err:
            self._quarantine.add(
                BadSample(shard=sample.shard, key=sample.key, offset=sample.offset, reason=str(err))
            )
            return None
