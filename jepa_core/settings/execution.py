"""The settings of how a step is computed, beside what it computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

AttentionKernel = Literal["auto", "fused", "written_out"]
OptimizerKernel = Literal["auto", "fused", "foreach", "loop"]


@dataclass(frozen=True, kw_only=True)
class ExecutionSettings:
    """How a step is computed; nothing here changes what it computes, beyond rounding."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    attention: AttentionKernel = "auto"
    """`fused` (scaled_dot_product_attention), `written_out`, or `auto`: the faster on the device."""
    optimizer: OptimizerKernel = "auto"
    """AdamW's kernel; `auto` is fused on CPU and CUDA and foreach elsewhere, `loop` is torch's plain one."""
    accumulation_steps: int = 1
    """Micro-batches that each worker's batch is split into; their gradients add up to the batch's."""
    activation_checkpointing: bool = False
    """Compute each block's activations again in the backward pass: more arithmetic, less memory."""
    compile: Literal["off", "blocks"] = "off"
    """`blocks` compiles the transformer blocks with torch.compile."""
    compile_backend: str = "inductor"
    """Backend of torch.compile."""
    pad_tokens_to: int = 1
    """Pad token counts of blocks up to a multiple, so that counts that vary ask for few shapes; 1 pads nothing."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """What several workers do: `ddp` keeps whole copies, `fsdp` shards the whole state (FSDP2)."""

    def __post_init__(self) -> None:
        for key in ("accumulation_steps", "pad_tokens_to"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key} must be at least 1, not {getattr(self, key)}")
