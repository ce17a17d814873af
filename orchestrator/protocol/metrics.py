"""Names of metrics: the keys of a row. A journal holds them, MLflow shows them and `sweep.metric` is one of them.

Names are data: journals and MLflow hold them for good, so none changes. What the core measures (`train/`, `masks/`,
`health/`) it names itself; of those, what is read here is named here once more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

# Accuracy of a probe in per cent of the test images: of the trained encoder, of the untrained one, of raw pixels.
PROBE = "probe/"
UNTRAINED = "baseline/untrained/"
PIXELS = "baseline/pixels/"
ProbeKind = Literal["linear", "knn"]
PROBE_KINDS: tuple[ProbeKind, ...] = ("linear", "knn")
MEAN = "mean"
"""In the place of a label: the mean over all labels."""
CONTEXT = "_context"
"""After a probe's kind: of the context encoder, where `probe.encoder` is `both`."""

# One evaluation
MISSING = "evaluation/missing"
"""1 in a row whose evaluation failed for good, which has no `probe/...` figures then."""
ASYNC_CPU_CORE_S = "evaluation/cpu_core_s"
"""CPU core seconds of an asynchronous evaluation."""
ASYNC_GPU_S = "evaluation/gpu_s"
"""GPU seconds of an asynchronous evaluation."""

# Training, mean of the steps since the row before
LOSS = "train/loss"
"""The objective's loss."""
MOMENTUM = "train/momentum"
"""Of the target encoder's moving average, from 0 to 1."""
IMAGES_PER_S = "train/images_per_s"
"""Images a second, of all workers together."""
GIGAFLOP_PER_IMAGE = "train/gigaflop_per_image"
"""Operations of one image's step without padding and recomputation, in 1e9."""
GIGAFLOP_PER_S = "train/gigaflop_per_s"
"""Operations a second of one worker, in 1e9."""
MFU = "train/mfu"
"""Share of the device's peak operations that training used, from 0 to 1."""
PEAK_MEMORY_BYTES = "memory/peak_bytes"
"""Most memory: of a GPU since the row before, of the process in its life on a CPU."""

# Time
CHECKPOINT_S = "time/checkpoint_s"
"""Seconds for checkpoints that were written since the row before."""
PROBE_S = "time/probe_s"
"""Seconds for the probe, or of waiting for asynchronous ones."""

# Data
WAIT_FRACTION = "data/wait_fraction"
"""Share of the time in which training waited for images, from 0 to 1."""
BAD_SAMPLES = "data/bad_samples"
"""Samples that could not be used so far."""
BAD_PROBE_SAMPLES = "data/bad_probe_samples"
"""Samples that the probes had to leave out."""

# Masks, as drawn: mean of the images
CONTEXT_PATCHES = "masks/context_patches"
"""Patches of a context block."""
TARGET_PATCHES = "masks/target_patches"
"""Patches of a target block."""
CONTEXT_FRACTION = "masks/context_fraction"
"""Share of the image in a context block, from 0 to 1."""
TARGET_FRACTION = "masks/target_fraction"
"""Share of the image in a target block, from 0 to 1."""
CONTEXT_PADDING_FRACTION = "masks/context_padding_fraction"
"""Share of the context patches that only fill the batch up, from 0 to 1."""
TARGET_PADDING_FRACTION = "masks/target_padding_fraction"
"""Share of the target patches that only fill the batch up, from 0 to 1."""

# Signs of collapse, of the target encoder on held-out images
HEALTH = "health/"
FEATURE_STD = "health/std"
"""Spread of the pooled features of different images: about 1 is healthy, 0 when all are one."""
COSINE = "health/cosine"
"""Mean cosine between the features of different images, from -1 to 1."""
EFFECTIVE_RANK = "health/effective_rank"
"""Dimensions that the pooled features use."""
POSITION_SHARE = "health/position_share"
"""Share of the patch features' variance that their position explains, from 0 to 1."""
TARGET_SPREAD = "health/target_spread"
"""Spread of a method's targets, in the method's own measure."""
TARGET_MOVEMENT = "health/target_movement"
"""Relative change of the target encoder's weights since the row before."""
LIDAR = "health/lidar"
"""LiDAR's rank of the context features over draws of the context."""
LOSS_OVER_CONSTANT = "health/loss_over_constant"
"""The loss over that of the best constant prediction; 1 has learnt nothing."""
LOSS_OVER_POSITION = "health/loss_over_position"
"""The loss over that of the best prediction from the position alone; 1 has learnt nothing."""
LOSS_OF_CONSTANT = "health/loss_of_constant"
"""The loss of the best constant prediction."""

# Cost of a trial so far, and of a sweep
GPU_HOURS = "cost/gpu_hours"
"""Allocated GPUs times hours."""
CPU_CORE_HOURS = "cost/cpu_core_hours"
"""Allocated CPU cores times hours."""
DEVICE_HOURS = "cost/device_hours"
"""GPU hours, or CPU core hours where there is no GPU: the one cost that every run has."""
ENERGY_KWH = "cost/energy_kwh"
"""Energy of its GPUs in kWh."""
GPU_ENERGY_J = "energy/gpu_j"
"""Joules of the trial's GPUs since the row before."""

# MLflow's alone
HEADLINE = "accuracy"
"""The ranking metric once more, in per cent: it sorts first, so plots and lists start with it."""


def probe_metric(kind: ProbeKind, label: str = MEAN, *, of: str = PROBE) -> str:
    """The accuracy of a probe on a label: of the trained encoder, or of a baseline (`UNTRAINED`, `PIXELS`)."""
    return f"{of}{kind}/{label}"


RANKING = probe_metric("linear")
"""What ranks trials unless `sweep.metric` says otherwise."""


def baseline_metric(metric: str, of: str = UNTRAINED) -> str:
    """The same probe's accuracy of a baseline: of `probe/linear/class`, `baseline/untrained/linear/class`."""
    return of + metric.removeprefix(PROBE)


def of_context(metric: str) -> str:
    """A probe's figure as that of the context encoder; what is no probe's figure stays as it is."""
    base = next((each for each in (PROBE, UNTRAINED, PIXELS) if metric.startswith(each)), None)
    if base is None:
        return metric
    kind, label = metric.removeprefix(base).split("/", 1)
    return f"{base}{kind}{CONTEXT}/{label}"


def is_of_context(metric: str) -> bool:
    """Whether it is a probe's figure of the context encoder, told apart from the target encoder's."""
    return f"{CONTEXT}/" in metric


def label_of(metric: str) -> str:
    """The label of a probe's figure, or `MEAN`."""
    return metric.rpartition("/")[2]


def by_label(metrics: Mapping[str, float], kind: ProbeKind, *, of: str = PROBE) -> dict[str, float]:
    """A row's accuracies of one probe by label, `MEAN` among them."""
    start = probe_metric(kind, "", of=of)
    return {name.removeprefix(start): value for name, value in metrics.items() if name.startswith(start)}


def phase_s(phase: str) -> str:
    """Seconds a step in a phase of the step, on one worker."""
    return f"time/{phase}_s"


def evaluation_metric(evaluation: str, label: str) -> str:
    """A figure of `orchestrator probe`, in the figure's own unit."""
    return f"evaluation/{evaluation.replace(' ', '_').replace('%', 'pct')}/{label}"


def low_of(metric: str) -> str:
    """The lower end of a figure's interval."""
    return f"{metric}/low"


def high_of(metric: str) -> str:
    """The upper end of a figure's interval."""
    return f"{metric}/high"


def evaluation_s(evaluation: str) -> str:
    """Seconds that an evaluation of `orchestrator probe` took."""
    return f"evaluation/time/{evaluation}_s"
