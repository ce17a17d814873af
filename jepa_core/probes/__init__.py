"""Probes: frozen features and labels in, accuracy out.

`linear_probe` and `knn_probe` are cheap and run during training; the others are the wider evaluation of a finished
encoder. `fine_tune_probe` alone changes the encoder, a copy of it.
"""

from jepa_core.probes.attentive import attentive_probe
from jepa_core.probes.finetune import FineTuneSettings, fine_tune_probe
from jepa_core.probes.heads import HeadChoice, HeadGrid, HeadsResult, many_head_probe
from jepa_core.probes.intervals import bootstrap_interval, wilson_interval
from jepa_core.probes.knn import knn_probe
from jepa_core.probes.linear import LinearProbe, linear_probe
from jepa_core.probes.lowshot import LowShotResult, low_shot_probe
from jepa_core.probes.regression import RegressionResult, regression_probe
from jepa_core.probes.result import ProbeResult

__all__ = [
    "FineTuneSettings",
    "HeadChoice",
    "HeadGrid",
    "HeadsResult",
    "LinearProbe",
    "LowShotResult",
    "ProbeResult",
    "RegressionResult",
    "attentive_probe",
    "bootstrap_interval",
    "fine_tune_probe",
    "knn_probe",
    "linear_probe",
    "low_shot_probe",
    "many_head_probe",
    "regression_probe",
    "wilson_interval",
]
