"""Ray as a sweep needs it: joined or started on this machine, on loopback, with a token, and watched.

`connect` is what others use: a `with` block that has a cluster. `local`, `loopback` and `token` make a Ray of this
machine alone; `watchdog` and `processes` end what is left when it dies.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
