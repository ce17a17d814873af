"""What is kept of a sweep, in its folder: its events (`log`), its driver (`lease`), what it is asked (`requests`).

`folders` finds the sweeps of a folder or bucket; `resume` says whether one can go on, and with which configuration.
"""
