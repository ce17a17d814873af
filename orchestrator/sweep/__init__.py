"""Sweeps: from a search space to trials that ran, were compared and were paid for.

Rooms, from the lowest: `space` (points), `core` (what is known of a sweep, and the rules that decide), `journal` (what
is kept of it), `search` (what is tried next) and `watch` (how it stands), `run` (trials on a cluster), `foresight`
(what a sweep would do). A room imports only from lower ones.
"""
