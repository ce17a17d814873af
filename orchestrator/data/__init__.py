"""Image shards: packing, opening, caching, ordering, decoding and streaming them.

    shards = prepare_data(config)
    with BatchStream(shards, ...) as stream:
        for batch in stream: ...

Read in this order: `notes`, `manifest`, `tar`, `index`, `labels`, `order`, `shardset`, `jpeg`, `decode`, `stream`,
`labelled`; then `cache`, `readahead`, `quarantine`; then what fills a shard set: `sources`, `pack`, `foreign`,
`prepare`. The only door to webdataset, which writes the tar files.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.data.labelled import LabelledImages, load_images
    from orchestrator.data.manifest import LabelInfo, Manifest, ShardInfo
    from orchestrator.data.notes import Note
    from orchestrator.data.pack import PackSettings, Progress
    from orchestrator.data.prepare import open_shards, pack_dataset, prepare_data
    from orchestrator.data.quarantine import (
        BadSample,
        check_borne,
        count_samples,
        keep_trial_ledger,
        read_ledger,
        read_sweep_ledger,
    )
    from orchestrator.data.reencode import Reencode
    from orchestrator.data.shardset import ShardSet
    from orchestrator.data.stream import Batch, BatchStream
    from orchestrator.data.survey import Survey, survey_source
    from orchestrator.data.verify import ShardFault, Verification, verify_shards, verify_source

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
    "BadSample": "quarantine",
    "Batch": "stream",
    "BatchStream": "stream",
    "LabelInfo": "manifest",
    "LabelledImages": "labelled",
    "Manifest": "manifest",
    "Note": "notes",
    "PackSettings": "pack",
    "Progress": "pack",
    "Reencode": "reencode",
    "ShardFault": "verify",
    "ShardInfo": "manifest",
    "ShardSet": "shardset",
    "Survey": "survey",
    "Verification": "verify",
    "check_borne": "quarantine",
    "count_samples": "quarantine",
    "keep_trial_ledger": "quarantine",
    "load_images": "labelled",
    "open_shards": "prepare",
    "pack_dataset": "prepare",
    "prepare_data": "prepare",
    "read_ledger": "quarantine",
    "read_sweep_ledger": "quarantine",
    "survey_source": "survey",
    "verify_shards": "verify",
    "verify_source": "verify",
}


def __getattr__(name: str) -> Any:
    """Import on first use: a process that only renders scenes need not wait for torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
