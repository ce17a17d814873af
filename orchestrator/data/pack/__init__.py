"""What fills a shard set: folders, shards that others wrote, or scenes.

`sources` finds images (`folder_walk`, `folder_layout`), `write` packs them, `foreign` opens shards of others, `prepare`
does what a configuration asks for. `survey` and `verify` look at data without changing them.
"""
