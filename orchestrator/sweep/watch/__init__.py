"""How a sweep stands, read off its journal.

`status` reads it once, `follower` event by event into the tracker and the live view.
"""
