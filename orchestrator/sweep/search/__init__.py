"""What is tried next: Ray Tune's searches, told what is known already (`known`, `warm_start`).

`rounds` runs Tune and keeps a number of trials going; `optuna` proposes; `tune_trial` is a trial as Tune sees it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
