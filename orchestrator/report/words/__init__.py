"""What is said of a sweep: the verdict, the winner, and every sentence of the report.

`summary` gathers it; the command line and the page print it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
