"""What features are worth: probes of an encoder and of the baselines (`probing`), and its health (`health`).

`evaluation` does one, `asynchronous` and `evaluator` do it while training goes on, and `data_cache` keeps
decoded images.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
