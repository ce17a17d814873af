"""What fills a shard set: folders, shards that others wrote, or scenes.

`sources` finds images (`folder_walk`, `folder_layout`), `write` packs them, `foreign` opens shards of others, `prepare`
does what a configuration asks for. `survey` and `verify` look at data without changing them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
