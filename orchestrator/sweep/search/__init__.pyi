from .rounds import Search as Search
from .warm_start import read_warm_start as read_warm_start

__all__ = [
    "Search",
    "read_warm_start",
]
