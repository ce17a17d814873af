"""What features are worth: the probes of a run and of what it is compared with, and signs of collapse.

`evaluation` probes a run, `asynchronous` and `evaluator` while training goes on; `baselines` probes the untrained
encoder and raw pixels, `health` looks for collapse. `probing` is `orchestrator probe`, on what `features` extracts.
`data_cache` keeps decoded images.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
