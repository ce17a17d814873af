"""Image shards: packing, opening, caching, ordering, decoding and streaming them.

    shards = prepare_data(config)
    with BatchStream(shards, ...) as stream:
        for batch in stream: ...

Read in this order: `manifest`, `index`, `order`, `shardset`, `decode`, `stream`; then `cache`, `quarantine`; then what
fills a shard set: `sources`, `pack`, `foreign`, `prepare`. The only door to webdataset, which writes the tar files.
"""

from orchestrator.data.manifest import LabelInfo, Manifest, ShardInfo
from orchestrator.data.pack import Progress
from orchestrator.data.prepare import open_shards, pack_dataset, prepare_data
from orchestrator.data.quarantine import BadSample
from orchestrator.data.shardset import ShardSet
from orchestrator.data.stream import Batch, BatchStream, LabelledImages, load_images
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
    "Verification",
    "load_images",
    "open_shards",
    "pack_dataset",
    "prepare_data",
    "verify_shards",
]
