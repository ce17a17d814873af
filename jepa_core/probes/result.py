"""What a classification probe returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class ProbeResult:
    """Hits on the test images [N], bool, on the CPU; `l2` is the penalty that a linear probe chose."""

    correct_N: Tensor
    l2: float | None = None

    @property
    def accuracy(self) -> float:
        """Share of the test images that were classified rightly, 0 to 1."""
        return float(self.correct_N.double().mean())


def check_features(train_ND: Tensor, train_labels: Tensor, test_ND: Tensor, test_labels: Tensor) -> None:
    """Refuse features and labels that do not belong together.

    Raises:
        ValueError: A part is empty, or features and labels differ in number, or the widths differ.
    """
    check_widths(train_ND, test_ND)
    for part, features, labels in (("train", train_ND, train_labels), ("test", test_ND, test_labels)):
        if len(features) != len(labels):
            raise ValueError(f"the {part} part has {len(features)} features and {len(labels)} labels")


def check_widths(train_ND: Tensor, test_ND: Tensor) -> None:
    """Refuse features of two parts that do not belong together.

    Raises:
        ValueError: A part is empty, or the widths differ.
    """
    for part, features in (("train", train_ND), ("test", test_ND)):
        if len(features) == 0:
            raise ValueError(f"the {part} part has no images")
    if train_ND.shape[1] != test_ND.shape[1]:
        raise ValueError(f"train features are {train_ND.shape[1]} wide, test features {test_ND.shape[1]}")


def batched(rows: Tensor, batch_size: int) -> list[Tensor]:
    """The rows in parts of `batch_size`, the last one shorter."""
    return [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
