from .foreign import split_pattern as split_pattern
from .prepare import open_cache as open_cache

__all__ = [
    "open_cache",
    "split_pattern",
]
