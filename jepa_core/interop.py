"""Reading the published implementation's weights.

Owns the mapping between its state-dict keys and ours. The encoders' keys agree but for the position embedding, which
is fixed and therefore not stored here; the predictor's have other names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

_WRAPPER = "module."
_POSITIONS = ("pos_embed", "predictor_pos_embed")
_PREDICTOR_PREFIXES = (
    ("predictor_embed.", "embed."),
    ("predictor_blocks.", "blocks."),
    ("predictor_norm.", "norm."),
    ("predictor_proj.", "project."),
)
Value = TypeVar("Value")


def from_reference(part: str, weights: Mapping[str, Value]) -> dict[str, Value]:
    """Rename one part of a published checkpoint to our keys.

    `part` is `encoder`, `target_encoder` or `predictor`. Keys may carry the `module.` prefix of data-parallel
    training. Position embeddings are dropped: they are a function of the grid.

    Raises:
        ValueError: The part is unknown.
    """
    if part not in ("encoder", "target_encoder", "predictor"):
        raise ValueError(f"a published checkpoint has no part {part!r}")
    renamed: dict[str, Value] = {}
    for key, value in weights.items():
        bare = key.removeprefix(_WRAPPER)
        if bare not in _POSITIONS:
            renamed[_ours(bare) if part == "predictor" else bare] = value
    return renamed


def _ours(key: str) -> str:
    for theirs, ours in _PREDICTOR_PREFIXES:
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    return key
