"""One trial from its plan to its last report (`run`), and what it does on the way.

`plan` lays out the stops; `checkpoint` and `best` write weights; `lineage` starts from the weights of another trial;
`costs`, `energy` and `weight_change` measure; `preemption` hears that the run must stop soon.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
