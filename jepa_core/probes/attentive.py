"""The attentive probe: one query attends to the frozen patch features, and a linear head reads what it finds.

Shape suffixes: N images, P patches, D width, B images of a batch, C classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_core.probes.result import ProbeResult, batched, check_features
from jepa_core.weights import build_untouched, draw, initialise, part_generator


class AttentivePool(nn.Module):
    """Cross-attention from a learned query to an image's patches, then a linear head.

    Source: Chen et al. 2023 (CAE, arXiv 2202.03026), section 4.1, "attentive probing".
    Deviates: features are layer-normed without affine parameters instead of batch-normed.
    """

    def __init__(self, width: int, num_heads: int, num_classes: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Parameter(torch.zeros(1, 1, width))
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, tokens_BPD: Tensor) -> Tensor:
        """Scores [B, C] from patch features."""
        tokens = F.layer_norm(tokens_BPD, tokens_BPD.shape[-1:])
        query = self._heads(self.query.expand(len(tokens), -1, -1))
        mixed = F.scaled_dot_product_attention(
            query, self._heads(self.key(tokens)), self._heads(self.value(tokens))
        )
        scores: Tensor = self.head(mixed.transpose(1, 2).flatten(1))
        return scores

    def _heads(self, tokens: Tensor) -> Tensor:
        rows, count, width = tokens.shape
        return tokens.reshape(rows, count, self.num_heads, width // self.num_heads).transpose(1, 2)


def attentive_probe(
    train_NPD: Tensor,
    train_labels: Tensor,
    test_NPD: Tensor,
    test_labels: Tensor,
    *,
    num_classes: int,
    num_heads: int = 1,
    epochs: int = 30,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> ProbeResult:
    """Train an attentive probe on frozen patch features and classify the test images.

    Raises:
        ValueError: Features and labels do not belong together, or the width is no multiple of the heads.
    """
    check_features(train_NPD.flatten(1), train_labels, test_NPD.flatten(1), test_labels)
    width = train_NPD.shape[-1]
    if width % num_heads:
        raise ValueError(f"width {width} must be a multiple of num_heads {num_heads}")
    pool = build_untouched(lambda: AttentivePool(width, num_heads, num_classes))
    generator = part_generator(seed, "attentive probe")
    initialise(pool, generator)
    draw(pool.query, generator)
    pool.to(train_NPD.device)
    order = torch.Generator().manual_seed(seed)
    steps_an_epoch = -(-len(train_NPD) // batch_size)
    optimizer = torch.optim.AdamW(pool.parameters(), lr=learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=epochs * steps_an_epoch, pct_start=0.1
    )
    for _ in range(epochs):
        for rows_B in batched(torch.randperm(len(train_NPD), generator=order), batch_size):
            loss = F.cross_entropy(pool(train_NPD[rows_B].float()), train_labels[rows_B].long())
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        guesses = torch.cat([pool(part.float()).argmax(-1) for part in batched(test_NPD, batch_size)])
    return ProbeResult(correct_N=(guesses == test_labels).cpu())
