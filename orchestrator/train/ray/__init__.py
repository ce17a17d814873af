"""Ray Train's side of a slot: its worker group (`launch`), and what a worker does (`slot`)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
