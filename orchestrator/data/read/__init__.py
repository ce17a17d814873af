"""Images as a run sees them: which one when (`order`), decoded and cropped (`decode`), in batches (`stream`).

`readahead` fetches the shards of the coming steps, `labelled` decodes whole sets for a probe, and `quarantine` keeps a
list of what could not be used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
