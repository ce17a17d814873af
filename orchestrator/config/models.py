"""The configuration of a run and of a sweep, composed from the settings beside their owners.

Owns the orchestrator's own sections and the cross-section rules. Leaves out reading files (`load`) and the core's
settings, which are the dataclasses of `jepa_core`. Every section is frozen and refuses unknown keys. The dotted key of
a field (`masks.target_scale`) is its name in YAML, in `--set`, in the search space and as the MLflow parameter.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from jepa_core.ema import EmaSettings
from jepa_core.encoder import EncoderSettings
from jepa_core.masks import MaskSettings
from jepa_core.objectives.ijepa import IJepaSettings
from jepa_core.optim import OptimizerSettings
from jepa_core.predictor import PredictorSettings


class Section(BaseModel):
    """Base of every section: frozen, no unknown keys, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class DataConfig(Section):
    """Where the images come from and how they are cropped."""

    source: str = "scenes"
    """`scenes` (the embedded procedural set), or a folder or `s3://` prefix of shards, or a folder of images."""
    scenes_train_images: int = Field(default=8000, ge=100)
    scenes_test_images: int = Field(default=3000, ge=100)
    scenes_image_size_px: int = Field(default=48, ge=16, le=512)
    scenes_seed: int = Field(default=0, ge=0)
    train_split: str = "train"
    test_split: str = "test"
    crop_scale: tuple[float, float] = (0.3, 1.0)
    """Area of the random-resized crop as a fraction of the image."""
    crop_aspect_ratio: tuple[float, float] = (0.75, 4 / 3)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    cache_dir: str | None = None
    """Node-local folder for downloaded and packed shards; None is `$XDG_CACHE_HOME/orchestrator`."""
    cache_size_gb: float = Field(default=50.0, gt=0)
    loader_threads: int = Field(default=2, ge=0)
    """Decoding threads a worker; 0 decodes in the training thread."""
    shuffle_shards: int = Field(default=16, ge=1)
    """Samples are shuffled among this many shards at a time."""


class TrainConfig(Section):
    """Length, batch and resources of one run."""

    images: int = Field(default=1_000_000, ge=1)
    """Images seen over the whole run; the schedules span exactly these."""
    batch_size: int = Field(default=256, ge=1)
    """Global batch size over all workers."""
    seed: int = Field(default=0, ge=0)
    num_workers: int = Field(default=1, ge=1)
    """Ray Train workers (data-parallel ranks)."""
    gpus_per_worker: float | Literal["auto"] = "auto"
    """GPUs a worker; fractions share a GPU between trials. `auto` is 1 where the cluster has GPUs and 0 elsewhere."""
    cpus_per_worker: float = Field(default=1.0, gt=0)
    threads_per_worker: int | Literal["auto"] = "auto"
    """torch's intra-op threads; `auto` is max(1, floor(cpus_per_worker))."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto` is bfloat16 autocast on a GPU and float32 on a CPU."""
    report_every_images: int = Field(default=10_000, ge=1)
    """Cadence of training metrics sent to the driver."""
    checkpoint_every_images: int = Field(default=100_000, ge=1)
    keep_checkpoints: int = Field(default=2, ge=1)
    max_failures: int = Field(default=3, ge=0)
    """Times a worker or trial may fail and go on from its checkpoint."""


class ProbeConfig(Section):
    """Frozen-feature evaluation during training and at its end."""

    every_images: int | None = Field(default=None, ge=1)
    """Cadence of probes during training; None probes at the rungs and at the end only."""
    labels: tuple[str, ...] | None = None
    """Labels to probe; None takes every label of the shards."""
    train_images: int = Field(default=4000, ge=10)
    test_images: int = Field(default=2000, ge=10)
    knn_neighbors: int = Field(default=20, ge=1)
    knn_temperature: float = Field(default=0.07, gt=0)
    linear_l2: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1)
    """L2 penalties of the linear probe, chosen on a validation part of the probe's training images."""


class TrackingConfig(Section):
    """Where metrics and artifacts go."""

    uri: str | None = None
    """MLflow tracking URI; None is an SQLite file `mlflow.db` in the runs folder."""
    experiment: str | None = None
    """MLflow experiment; None is the sweep's name."""


class StorageConfig(Section):
    """Where runs, checkpoints and reports are written."""

    uri: str = "runs"
    """Folder or `s3://bucket/prefix`."""
    endpoint_url: str | None = None
    """S3 endpoint for reading and writing; None is the standard boto3 chain (`AWS_ENDPOINT_URL` among it)."""
    region: str | None = None
    anonymous: bool = False


class Choice(Section):
    """An axis that takes one of the listed values."""

    choices: Annotated[list[Any], Field(min_length=1)]


class Uniform(Section):
    """An axis drawn evenly between two bounds."""

    uniform: tuple[float, float]


class LogUniform(Section):
    """An axis drawn evenly in its logarithm between two bounds."""

    log_uniform: tuple[float, float]


class IntUniform(Section):
    """An integer axis, both bounds included."""

    int_uniform: tuple[int, int]


class Centered(Section):
    """A pair `[centre - width / 2, centre + width / 2]` whose centre is drawn evenly between two bounds."""

    center: tuple[float, float]
    width: float = Field(ge=0)


class CenteredRatio(Section):
    """A pair `[centre / spread, centre * spread]` whose centre is drawn log-evenly between two bounds."""

    center_ratio: tuple[float, float]
    spread: float = Field(default=1.0, ge=1.0)


Axis = Choice | Uniform | LogUniform | IntUniform | Centered | CenteredRatio


class AshaConfig(Section):
    """Asynchronous successive halving over rungs counted in images seen."""

    first_rung_images: int = Field(ge=1)
    reduction_factor: int = Field(default=3, ge=2)


class SweepConfig(Section):
    """Which keys are searched, how, and what stops a trial early."""

    space: dict[str, Axis] = Field(default_factory=dict)
    """Dotted key -> axis."""
    search: Literal["grid", "random", "optuna"] = "grid"
    num_trials: int | None = Field(default=None, ge=1)
    """Trials to draw for random and optuna; a cap on grid."""
    seeds: tuple[int, ...] = (0,)
    """Run seeds; every geometry is trained once with each."""
    metric: str = "probe/linear/mean"
    """Metric that ranks trials; higher is better."""
    asha: AshaConfig | None = None
    max_concurrent_trials: int | Literal["auto"] = "auto"
    search_seed: int = Field(default=0, ge=0)


class RunConfig(Section):
    """One sweep file: a base configuration and a search over it."""

    name: str = Field(default="ijepa", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    data: DataConfig = DataConfig()
    encoder: EncoderSettings = EncoderSettings()
    predictor: PredictorSettings = PredictorSettings()
    masks: MaskSettings = MaskSettings()
    objective: IJepaSettings = IJepaSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    ema: EmaSettings = EmaSettings()
    train: TrainConfig = TrainConfig()
    probe: ProbeConfig = ProbeConfig()
    tracking: TrackingConfig = TrackingConfig()
    storage: StorageConfig = StorageConfig()
    sweep: SweepConfig = SweepConfig()
