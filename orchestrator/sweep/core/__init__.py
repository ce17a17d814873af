"""What is known of a sweep, and the rules that decide: pure, without clock, storage or Ray.

`record` is the state of a sweep, and counts its device hours; `fold` makes it of the journal's events; `ledger` says
what the hours went on, and `hours` what a trial costs at its full length. The rules: where trials are compared
(`rungs`, `promotion`), which members of a population take over whose weights (`generations`), which geometries get a
further seed (`seeds`), what stops a run that no longer learns (`health`), what may still be spent (`budget`), and
which trial runs next (`queue`). `lineage` tells under which settings a trial was trained, `noise` how far luck moves a
figure.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
