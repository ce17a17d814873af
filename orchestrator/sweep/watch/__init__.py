"""How a sweep stands, read off its journal.

`status` reads it once, `follower` event by event into the tracker and the live view.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
