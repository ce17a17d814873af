"""Image shards: packing, opening, caching, ordering, decoding and streaming them.

    shards = prepare_data(config)
    with BatchStream(shards, ...) as stream:
        for batch in stream: ...

Rooms, from the lowest: `format` (what a shard set is on disk), `read` (which image is read when, and how), `scenes`
(the embedded images), `pack` (what fills a shard set). The only door to webdataset, which writes the tar files.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
