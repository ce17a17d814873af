from __future__ import annotations

import pytest
import torch
from core_models import tiny_state

from jepa_core.interop import from_reference


def test_wrapped_and_bare_keys_give_the_same_weights() -> None:
    bare = {"predictor_embed.weight": 1, "predictor_blocks.0.norm1.bias": 2, "mask_token": 3}
    wrapped = {f"module.{key}": value for key, value in bare.items()}
    assert from_reference("predictor", wrapped) == from_reference("predictor", bare)
    assert from_reference("predictor", bare) == {"embed.weight": 1, "blocks.0.norm1.bias": 2, "mask_token": 3}


def test_a_published_encoder_loads_strictly() -> None:
    encoder = tiny_state().objective.context_encoder
    published = {f"module.{key}": value + 1 for key, value in encoder.state_dict().items()}
    published["module.pos_embed"] = torch.zeros(1, 36, 32)
    encoder.load_state_dict(from_reference("encoder", published), strict=True)
    assert torch.equal(encoder.norm.bias, torch.ones(32))


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(ValueError, match="no part 'opt'"):
        from_reference("opt", {})
