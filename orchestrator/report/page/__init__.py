"""The page of a sweep as one HTML file: its parts (`document`, `tables`), its plots, its style.

`masks` is a page of its own: the audit that `orchestrator masks` writes.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
