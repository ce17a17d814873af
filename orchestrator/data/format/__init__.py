"""What a shard set is on disk: its manifest, its tar files and their index, its labels, its JPEG files.

To read the code, take them in this order: `notes`, `manifest`, `tar`, `index`, `labels`, `cache`, `shardset`; `jpeg` by
itself.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
