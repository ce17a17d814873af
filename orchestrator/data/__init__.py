"""Image shards: packing, opening, caching, ordering, decoding and streaming them.

    shards = prepare_data(config)
    with BatchStream(shards, ...) as stream:
        for batch in stream: ...

Read in this order: `manifest`, `index`, `order`, `shardset`, `decode`, `stream`; then `cache`, `quarantine`; then what
fills a shard set: `sources`, `pack`, `foreign`, `prepare`. The only door to webdataset, which writes the tar files.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.data.manifest import LabelInfo, Manifest, ShardInfo
    from orchestrator.data.pack import Progress
    from orchestrator.data.prepare import open_shards, pack_dataset, prepare_data
    from orchestrator.data.quarantine import BadSample
    from orchestrator.data.shardset import ShardSet
    from orchestrator.data.stream import Batch, BatchStream, LabelledImages, load_images
    from orchestrator.data.survey import Survey, survey_source
    from orchestrator.data.verify import ShardFault, Verification, verify_shards

__all__ = [
    "BadSample",
    "Batch",
    "BatchStream",
    "LabelInfo",
    "LabelledImages",
    "Manifest",
    "Progress",
    "ShardFault",
    "ShardInfo",
    "ShardSet",
    "Survey",
    "Verification",
    "load_images",
    "open_shards",
    "pack_dataset",
    "prepare_data",
    "survey_source",
    "verify_shards",
]

_MODULES = {
    "BadSample": "quarantine",
    "Batch": "stream",
    "BatchStream": "stream",
    "LabelInfo": "manifest",
    "LabelledImages": "stream",
    "Manifest": "manifest",
    "Progress": "pack",
    "ShardFault": "verify",
    "ShardInfo": "manifest",
    "ShardSet": "shardset",
    "Survey": "survey",
    "Verification": "verify",
    "load_images": "stream",
    "open_shards": "prepare",
    "pack_dataset": "prepare",
    "prepare_data": "prepare",
    "survey_source": "survey",
    "verify_shards": "verify",
}


def __getattr__(name: str) -> Any:
    """Import on first use: a process that only renders scenes need not wait for torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
