"""Names of metrics that more than one room reads: the keys of a row, which MLflow shows."""

from __future__ import annotations

MISSING = "evaluation/missing"
"""1 in a row whose evaluation failed for good, which has no `probe/...` figures then."""
