"""Probes: frozen features and labels in, accuracy out."""

from jepa_core.probes.knn import knn_probe
from jepa_core.probes.linear import linear_probe
from jepa_core.probes.result import ProbeResult

__all__ = ["ProbeResult", "knn_probe", "linear_probe"]
