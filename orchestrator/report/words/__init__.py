"""What is said of a sweep: `verdict` decides it, `sentences` puts it into words, `winner` recommends what to train.

`summary` gathers all for the command line and the page; `terms` are the words for what is compared.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
