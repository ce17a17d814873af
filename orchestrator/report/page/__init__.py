"""The page of a sweep as one HTML file: its parts (`document`, `tables`, `masks`), its plots, its style."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
