"""Image shards: packing, opening, caching, ordering, decoding and streaming them.

    shards = prepare_data(config)
    with BatchStream(shards, ...) as stream:
        for batch in stream: ...

Rooms, from the lowest: `format` (what a shard set is on disk), `read` (which image is read when, and how), `scenes`
(the embedded images), `pack` (what fills a shard set). The only door to webdataset, which writes the tar files.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.data.format.manifest import LabelInfo, Manifest, ShardInfo
    from orchestrator.data.format.notes import Note
    from orchestrator.data.format.shardset import ShardSet
    from orchestrator.data.pack.prepare import open_shards, pack_dataset, prepare_data
    from orchestrator.data.pack.reencode import Reencode
    from orchestrator.data.pack.survey import Survey, survey_source
    from orchestrator.data.pack.verify import ShardFault, Verification, verify_shards, verify_source
    from orchestrator.data.pack.write import PackSettings, Progress
    from orchestrator.data.read.labelled import LabelledImages, load_images
    from orchestrator.data.read.quarantine import (
        BadSample,
        check_borne,
        count_samples,
        keep_trial_ledger,
        read_ledger,
        read_sweep_ledger,
    )
    from orchestrator.data.read.stream import Batch, BatchStream

__all__ = [
    "BadSample",
    "Batch",
    "BatchStream",
    "LabelInfo",
    "LabelledImages",
    "Manifest",
    "Note",
    "PackSettings",
    "Progress",
    "Reencode",
    "ShardFault",
    "ShardInfo",
    "ShardSet",
    "Survey",
    "Verification",
    "check_borne",
    "count_samples",
    "keep_trial_ledger",
    "load_images",
    "open_shards",
    "pack_dataset",
    "prepare_data",
    "read_ledger",
    "read_sweep_ledger",
    "survey_source",
    "verify_shards",
    "verify_source",
]

_MODULES = {
    "BadSample": "read.quarantine",
    "Batch": "read.stream",
    "BatchStream": "read.stream",
    "LabelInfo": "format.manifest",
    "LabelledImages": "read.labelled",
    "Manifest": "format.manifest",
    "Note": "format.notes",
    "PackSettings": "pack.write",
    "Progress": "pack.write",
    "Reencode": "pack.reencode",
    "ShardFault": "pack.verify",
    "ShardInfo": "format.manifest",
    "ShardSet": "format.shardset",
    "Survey": "pack.survey",
    "Verification": "pack.verify",
    "check_borne": "read.quarantine",
    "count_samples": "read.quarantine",
    "keep_trial_ledger": "read.quarantine",
    "load_images": "read.labelled",
    "open_shards": "pack.prepare",
    "pack_dataset": "pack.prepare",
    "prepare_data": "pack.prepare",
    "read_ledger": "read.quarantine",
    "read_sweep_ledger": "read.quarantine",
    "survey_source": "pack.survey",
    "verify_shards": "pack.verify",
    "verify_source": "pack.verify",
}


def __getattr__(name: str) -> Any:
    """Import on first use: a process that only renders scenes need not wait for torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
