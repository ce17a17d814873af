"""A sweep on a cluster: the driver, the coordinator that its trials report to, and the slots that run them.

`checks` and `labels` refuse a sweep before it trains; `elastic` says how many workers a slot has.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
