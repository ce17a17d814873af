"""What is kept of a sweep, in its folder: its events (`log`), its driver (`lease`), what it is asked (`requests`).

`folders` finds the sweeps of a folder or bucket; `resume` says whether one can go on under a given configuration.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
