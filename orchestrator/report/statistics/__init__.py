"""What the record of a sweep shows, as numbers: rows of trials, differences with their intervals, surfaces, compute."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
