"""What a sweep would do, told before it is run: its plan, a quote, and recorded curves under other rules.

`plan` gathers what `geometries`, `model_costs`, `defaults` and `target_lag` find. `quote` measures short runs;
`simulate` and `replay` run curves through the real coordinator on a clock of their own.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
