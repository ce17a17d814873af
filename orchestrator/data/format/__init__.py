"""What a shard set is on disk: its manifest, its tar files and their index, its labels, its JPEG files.

Read in this order: `notes`, `manifest`, `tar`, `index`, `labels`, `cache`, `shardset`; `jpeg` by itself.
"""
