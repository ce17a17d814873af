from .decode import FORMATS as FORMATS
from .decode import UndecodableError as UndecodableError
from .decode import decode_rgb as decode_rgb
from .order import ORDER_VERSION as ORDER_VERSION
from .order import hash_each as hash_each
from .order import hash_of as hash_of
from .order import uniforms as uniforms
from .quarantine import bearable as bearable

__all__ = [
    "FORMATS",
    "ORDER_VERSION",
    "UndecodableError",
    "bearable",
    "decode_rgb",
    "hash_each",
    "hash_of",
    "uniforms",
]
