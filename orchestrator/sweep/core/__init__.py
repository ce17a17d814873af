"""What is known of a sweep, and the rules that decide: pure, without clock, storage or Ray.

`record` folds the journal's events into the state of a sweep, and `ledger` says where its device hours went. Each rule
reads that state: where trials are compared (`rungs`, `promotion`), whose weights a trial goes on from (`generations`,
`lineage`), which geometries get a further seed (`seeds`, `noise`), what stops a run that no longer learns (`health`),
what may still be spent (`budget`), and which trial runs next (`queue`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
