"""From a search space to trials (`points`), and from a point back to its coordinates in the space (`units`)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
