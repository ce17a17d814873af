"""The configuration of a run and of a sweep, composed from the settings beside their owners.

Owns the orchestrator's own sections and the rules of single fields. Leaves out reading files (`load`), the
rules between sections (`rules`) and the core's settings, which are the dataclasses of `jepa_core`. Every
section is frozen and refuses unknown keys. The dotted key of a field (`masks.target_scale`) is its name in
YAML, in `--set`, in the search space and as the MLflow parameter. Construct a `RunConfig` through `load`: it
alone applies every rule.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
)

from jepa_core.settings import (
    CaeSettings,
    Data2Vec2Settings,
    Data2VecSettings,
    DinoSettings,
    EmaSettings,
    EncoderSettings,
    ExecutionSettings,
    IJepaSettings,
    MaeSettings,
    MaskSettings,
    OptimizerSettings,
    PredictorSettings,
    VicRegSettings,
)
from orchestrator.config.uris import (
    check_endpoint_url,
    check_folder,
    check_store_uri,
    check_tracking_uri,
)
from orchestrator.protocol.metrics import RANKING
from orchestrator.protocol.point import frozen

MAX_SEED = 2**63 - 1
MAX_IMAGES = 10**12


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    """Refuse a range whose lower bound is above its upper one."""
    if bounds[0] > bounds[1]:
        raise ValueError("must be [low, high] with low <= high; swap the two")
    return bounds


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuse a list with a value that occurs twice."""
    seen = [repr(value) for value in values]
    repeated = next((text for index, text in enumerate(seen) if text in seen[:index]), None)
    if repeated is not None:
        raise ValueError(f"must not repeat a value; remove the second {repeated}")
    return values


def _first_seeds(value: Any) -> Any:
    """Turn a number of seeds into the first ones, and a list, which strict validation would refuse, into a tuple."""
    if isinstance(value, list):
        return tuple(value)
    is_count = isinstance(value, int) and not isinstance(value, bool)
    return tuple(range(value)) if is_count and 0 < value <= 100 else value


Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}\z")]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Positive = Annotated[float, Field(gt=0)]
Bounds = Annotated[tuple[float, float], AfterValidator(_ordered)]
PositiveBounds = Annotated[tuple[Positive, Positive], AfterValidator(_ordered)]
IntBounds = Annotated[tuple[int, int], AfterValidator(_ordered)]
WidthBounds = Annotated[
    tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]], AfterValidator(_ordered)
]
SpreadBounds = Annotated[
    tuple[Annotated[float, Field(ge=1.0, le=1000.0)], Annotated[float, Field(ge=1.0, le=1000.0)]],
    AfterValidator(_ordered),
]
Area = Annotated[float, Field(gt=0, le=1)]
StoreUri = Annotated[str, AfterValidator(check_store_uri)]


Seeds = Annotated[
    tuple[Seed, ...],
    Field(min_length=1, max_length=100),
    AfterValidator(_distinct),
    BeforeValidator(_first_seeds, json_schema_input_type=int | tuple[Seed, ...]),
]


class Section(BaseModel):
    """Base of every section: frozen, no unknown keys, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataConfig(Section):
    """Where the images come from and how they are cropped."""

    source: StoreUri = "scenes"
    """`scenes` (the embedded procedural set), or a folder or `s3://` prefix of shards, or a folder of
    images."""
    folders: Literal["auto", "classes", "splits", "unlabelled"] = "auto"
    """What the sub-folders of a folder of images are: classes, splits (train, test, ...) of classes, or nothing;
    `auto` tells from their names and what they hold, and asks where it cannot."""
    scenes_train_images: int = Field(default=8000, ge=100, le=10_000_000)
    """Images of the procedural set that are trained on."""
    scenes_test_images: int = Field(default=3000, ge=100, le=10_000_000)
    """Images of the procedural set that probes are tested on."""
    scenes_image_size_px: int = Field(default=48, ge=16, le=512)
    """Side of a procedural image."""
    scenes_seed: Seed = 0
    """Seed of the procedural set; another seed is another data set."""
    train_split: Word = "train"
    """Split that is trained on."""
    test_split: Word = "test"
    """Split that probes are tested on."""
    crop_scale: Annotated[tuple[Area, Area], AfterValidator(_ordered)] = (0.3, 1.0)
    """Area of the random-resized crop as a fraction of the image."""
    crop_aspect_ratio: PositiveBounds = (0.75, 4 / 3)
    """Aspect ratio of the random-resized crop before it is resized, width over height."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Subtracted from each colour channel, of values in 0 to 1."""
    std: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)
    """Each colour channel is divided by this after the mean is subtracted."""
    cache_dir: Annotated[str, AfterValidator(check_folder)] | None = None
    """Node-local folder for downloaded and packed shards; null is `$XDG_CACHE_HOME/orchestrator`."""
    cache_size_gb: float = Field(default=50.0, gt=0)
    """Space the cache folder may take; the least recently used shards go first."""
    loader_threads: int = Field(default=2, ge=0, le=256)
    """Decoding threads a worker; 0 decodes in the training thread."""
    shuffle_shards: int = Field(default=16, ge=1)
    """Samples are shuffled among this many shards at a time."""
    allow_loss: bool = False
    """Go on where samples of the source are known to be lost (truncated shards, dead links, other formats); what was
    lost is told, and kept in the manifest. False refuses such a source."""
    max_bad_fraction: float = Field(default=0.01, ge=0, le=1)
    """Share of the split's samples that may be unusable (16 at least, none at 0) before the run stops."""


class TrainConfig(Section):
    """Length, batch and resources of one run."""

    images: int = Field(default=1_000_000, ge=1, le=MAX_IMAGES)
    """Images seen over the whole run; the schedules span exactly these."""
    batch_size: int = Field(default=256, ge=1, le=1_000_000)
    """Global batch size over all workers."""
    seed: Seed = 0
    """Seed of weights, data order and masks; a sweep sets it from `sweep.seeds`."""
    init_from: Annotated[str, StringConstraints(min_length=1, max_length=1000)] | None = None
    """Published checkpoint to start from, a file or an `s3://` object: a dict of `encoder`, `predictor` and
    `target_encoder`; null starts untrained."""
    num_workers: int = Field(default=1, ge=1, le=4096)
    """Ray Train workers (data-parallel ranks)."""
    min_workers: int | None = Field(default=None, ge=1, le=4096)
    """Fewest workers that a trial goes on with when nodes are lost, until they are back; null waits for all of them.
    It runs with `num_workers` or one of its divisors; masks, data order and batch stay those of `num_workers`."""
    gpus_per_worker: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    """GPUs a worker; fractions share a GPU between trials. `auto` is 1 where the cluster has GPUs, else 0."""
    gpu_type: Word | None = None
    """Kind of GPU by Ray's name (`H100`, `L40S`, ...); null takes any, and refuses a cluster of several kinds."""
    cpus_per_worker: float = Field(default=1.0, gt=0)
    """CPUs that Ray reserves for a worker."""
    threads_per_worker: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"
    """torch's intra-op threads; `auto` is max(1, floor(cpus_per_worker))."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto` is bfloat16 autocast on a GPU and float32 on a CPU."""
    report_every_images: int = Field(default=10_000, ge=1)
    """Cadence of training metrics sent to the driver."""
    checkpoint_every_images: int = Field(default=100_000, ge=1)
    """Cadence of checkpoints."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Newest checkpoints that are kept. The weights of the highest probe since warm-up are kept beside them."""
    max_failures: int = Field(default=3, ge=0)
    """Times a worker or trial may fail and go on from its checkpoint."""


class AsyncEvaluationConfig(Section):
    """What an asynchronous evaluation holds, apart from training's own resources."""

    cpus: float = Field(default=1.0, gt=0)
    """CPUs that Ray reserves for an evaluation; torch uses as many threads, at least one."""
    gpus: float = Field(default=0.0, ge=0)
    """GPUs an evaluation; a fraction of one shares it. 0 evaluates on the CPU, in float32."""


class ProbeConfig(Section):
    """Frozen-feature evaluation during training and at its end."""

    every_images: int | None = Field(default=None, ge=1)
    """Cadence of probes during training; null probes at the rungs and at the end only."""
    beside: AsyncEvaluationConfig | None = None
    """Evaluate between the rungs in a task of its own while training goes on; null, or where the cluster has no
    room for one beside a trial, has training stop for it. A rung and the end always wait for their evaluation."""
    max_failures: int = Field(default=1, ge=0, le=100)
    """Times an evaluation may fail and be tried again; then it is noted as missing, and training goes on."""
    labels: Annotated[tuple[Word, ...], Field(min_length=1), AfterValidator(_distinct)] | None = None
    """Labels to probe; null takes every label of the shards."""
    encoder: Literal["target", "context", "both"] = "target"
    """Encoder that probes read: `target`, the moving average, or `context`, which is trained. `both` probes the target
    under the usual names and the context encoder as `probe/linear_context/...` and `probe/knn_context/...`."""
    train_images: int = Field(default=4000, ge=10)
    """Images the probes are fitted on, at most."""
    test_images: int = Field(default=2000, ge=10)
    """Images the probes are tested on, at most."""
    knn_neighbors: int = Field(default=20, ge=1)
    """Neighbours that vote."""
    knn_temperature: float = Field(default=0.07, gt=0)
    """Temperature of the votes' weights, exp(cosine / temperature)."""
    linear_l2: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1e-4, 1e-3, 1e-2, 1e-1)
    """L2 penalties of the linear probe, chosen on a validation part of the probe's training images."""


class HealthConfig(Section):
    """Which runs are stopped because they no longer learn. These rules only stop; the probe alone ranks."""

    stop_unhealthy: bool = True
    """Stop a trial whose loss is not finite, that collapsed or diverged, or whose target encoder stands still."""
    grace_fraction: float = Field(default=0.1, ge=0, lt=1)
    """Share of a trial's images before any rule but that of a loss that is not finite may stop it."""
    patience_reports: int = Field(default=2, ge=1, le=1000)
    """Reports in a row at which a rule must hold."""
    max_loss_ratio: float = Field(default=3.0, gt=1)
    """Diverged: the loss is more than this many times its lowest so far."""
    divergence_floor: float = Field(default=0.5, ge=0)
    """A loss below this is never called diverged: predicting nothing costs about as much."""
    max_layer_normed_loss: float = Field(default=1.5, gt=0)
    """Diverged, for I-JEPA but under `objective.target_norm: none`: the loss is above this; predicting zeros costs at
    most about 0.4 (smooth L1) or 1 (L2)."""
    min_rank_fraction: float = Field(default=0.12, ge=0, lt=1)
    """Collapsed: the features' effective rank is below this share of the untrained encoder's."""
    min_std_fraction: float = Field(default=0.03, ge=0, lt=1)
    """Collapsed: the features' spread is below this share of the untrained encoder's."""
    min_target_spread_fraction: float = Field(default=0.0, ge=0, lt=1)
    """Collapsed: what the loss compares differs between images by less than this share of the untrained model's.
    0 stops nobody; sound short trials of DINO fell to 0.00, of I-JEPA to 0.06."""
    min_target_movement: float = Field(default=1e-7, ge=0)
    """Stalled: the target encoder's weights change by less than this, relatively, between two reports."""


class TrackingConfig(Section):
    """Where metrics and artifacts go."""

    uri: Annotated[str, AfterValidator(check_tracking_uri)] | None = None
    """MLflow tracking URI; null is an SQLite file `mlflow.db` in the runs folder."""
    experiment: Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f/]{1,200}\z")] | None = None
    """MLflow experiment; null is the sweep's name."""


class StorageConfig(Section):
    """Where runs, checkpoints and reports are written."""

    uri: StoreUri = "runs"
    """Folder or `s3://bucket/prefix`."""
    endpoint_url: Annotated[str, AfterValidator(check_endpoint_url)] | None = None
    """S3 endpoint for reading and writing; null is the standard boto3 chain (`AWS_ENDPOINT_URL` among it)."""
    region: Word | None = None
    """S3 region; null is the standard boto3 chain."""
    anonymous: bool = False
    """Read public buckets without credentials."""
    requester_pays: bool = False
    """Agree to pay for requests to buckets whose owner does not."""


def _is_empty(value: Any) -> bool:
    """Whether a mapping that is seldom used need not be written out."""
    return not value


def _listed(value: Any) -> Any:
    """One value as a list of it."""
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


class Times(Section):
    """A tied value: the axis' value, or both of a pair, times a factor."""

    times: float
    """The factor."""


Given = Annotated[
    tuple[Any, ...],
    BeforeValidator(_listed),
    Field(min_length=1),
    AfterValidator(frozen),
    AfterValidator(_distinct),
]
Tie = Literal["same"] | Times | Annotated[tuple[Any, ...], AfterValidator(frozen)]


class AxisSection(Section):
    """What an axis of any kind may say beside its values."""

    when: dict[str, Given] = Field(default_factory=dict, max_length=8, exclude_if=_is_empty)
    """Axis -> values: this one exists only at points where each of those axes has one of its values."""
    also: dict[str, Tie] = Field(default_factory=dict, max_length=8, exclude_if=_is_empty)
    """Keys that this axis sets too: key -> `same`, `{times: FACTOR}`, or a list with a value for each choice."""


class Choice(AxisSection):
    """An axis that takes one of the listed values."""

    choices: Annotated[
        tuple[Any, ...], Field(min_length=1), AfterValidator(frozen), AfterValidator(_distinct)
    ]
    """The values, in the order a grid takes them."""


class Uniform(AxisSection):
    """An axis drawn evenly between two bounds."""

    uniform: Bounds
    """Lowest and highest value."""


class LogUniform(AxisSection):
    """An axis drawn evenly in its logarithm between two bounds."""

    log_uniform: PositiveBounds
    """Lowest and highest value, both above 0."""


class IntUniform(AxisSection):
    """An integer axis, both bounds included."""

    int_uniform: IntBounds
    """Lowest and highest value."""


class Centered(AxisSection):
    """A pair `[centre - width / 2, centre + width / 2]` whose centre is drawn evenly between two bounds."""

    center: Bounds
    """Lowest and highest centre."""
    width: Annotated[float, Field(ge=0)] | WidthBounds
    """High minus low of every pair; `[low, high]` draws it evenly too."""


class CenteredRatio(AxisSection):
    """A pair `[centre / spread, centre * spread]` whose centre is drawn log-evenly between two bounds."""

    center_ratio: PositiveBounds
    """Lowest and highest centre, both above 0."""
    spread: Annotated[float, Field(ge=1.0, le=1000.0)] | SpreadBounds = 1.0
    """High over centre, and centre over low, of every pair; `[low, high]` draws it log-evenly too."""


AXIS_KINDS = ("choices", "uniform", "log_uniform", "int_uniform", "center", "center_ratio")


def _axis_kind(value: Any) -> str | None:
    """The one key that says which kind of axis a mapping is; None unless exactly one is there."""
    keys = value if isinstance(value, dict) else getattr(type(value), "model_fields", {})
    found = [kind for kind in AXIS_KINDS if kind in keys]
    return found[0] if len(found) == 1 else None


Axis = Choice | Uniform | LogUniform | IntUniform | Centered | CenteredRatio
"""An axis of the search, told apart by its key."""

TaggedAxis = Annotated[
    Annotated[Choice, Tag("choices")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[LogUniform, Tag("log_uniform")]
    | Annotated[IntUniform, Tag("int_uniform")]
    | Annotated[Centered, Tag("center")]
    | Annotated[CenteredRatio, Tag("center_ratio")],
    Discriminator(_axis_kind),
]


DEFAULT_OBJECTIVE = "ijepa"


def _objective_name(value: Any) -> Any:
    """The method that settings are for; I-JEPA where they do not say."""
    name = value.get("name", DEFAULT_OBJECTIVE) if isinstance(value, dict) else getattr(value, "name", None)
    return name if isinstance(name, str) else None


TaggedObjective = Annotated[
    Annotated[IJepaSettings, Tag("ijepa")]
    | Annotated[MaeSettings, Tag("mae")]
    | Annotated[Data2VecSettings, Tag("data2vec")]
    | Annotated[Data2Vec2Settings, Tag("data2vec2")]
    | Annotated[CaeSettings, Tag("cae")]
    | Annotated[VicRegSettings, Tag("vicreg")]
    | Annotated[DinoSettings, Tag("dino")],
    Discriminator(_objective_name),
]
"""The settings of a pre-training method, told apart by their `name`."""


class AshaConfig(Section):
    """Asynchronous successive halving over rungs counted in images seen."""

    variant: Literal["promotion", "stopping"] | None = None
    """`promotion`: a trial waits at a rung with its checkpoint while others come to it, and the best go on.
    `stopping`: a trial goes on, or stops for good, by those that came before it. Null is `stopping` under a search
    that proposes as it goes (`optuna`, `gp`), which has to hear of each trial's end, else `promotion`."""

    first_rung_images: int = Field(ge=1)
    """Images after which a trial is first compared with the others."""
    reduction_factor: int = Field(default=3, ge=2, le=100)
    """One in this many goes on at a rung, and rungs grow by this factor."""
    brackets: int = Field(default=1, ge=1, le=10)
    """Hyperband: trials are dealt to this many brackets; each later one leaves out one more of the first rungs."""


class PbtConfig(Section):
    """Population based training: members go on from each other's weights, under settings that change on the way."""

    every_images: int = Field(ge=1)
    """Length of a generation, in images: then the members are ranked."""
    replaced_fraction: float = Field(default=0.25, gt=0, le=0.5)
    """Share of the members, the lowest, that goes on from the weights of one of as many highest."""
    resample_probability: float = Field(default=0.25, ge=0, le=1)
    """Chance that such a member draws a setting anew from its axis, in place of changing the one it takes over."""
    factors: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=10)] = (0.8, 1.2)
    """What a number that is taken over is multiplied by, one of them at random, within its axis' bounds; one of
    `choices` moves to a neighbour instead."""


class ListedPoint(Section):
    """One point of an explicit list."""

    name: Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,100}\z")]
    """What the point is called in tables and in MLflow."""
    set: dict[str, Any] = Field(default_factory=dict, max_length=32)
    """Dotted key -> value; what is not set stands as it does outside the sweep."""
    published: float | None = None
    """A published value of the ranking metric, to stand beside the measured one."""


PROPOSING = ("optuna", "gp")
"""Searches that propose each point by what they have heard of those before it."""


class SweepConfig(Section):
    """Which keys are searched, how, and what stops a trial early."""

    space: dict[str, TaggedAxis] = Field(default_factory=dict, max_length=32)
    """Dotted key -> axis: `choices`, `uniform`, `log_uniform`, `int_uniform`, `center` or `center_ratio`."""
    points: Annotated[tuple[ListedPoint, ...], Field(max_length=1000)] = ()
    """Points to run as they are listed, in place of `space`: each a `name`, a `set` of keys and maybe a
    `published` value."""
    published_source: Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,300}\z")] | None = None
    """Where the published values come from and what exactly was measured there."""
    search: Literal["grid", "random", "sobol", "optuna", "gp"] = "grid"
    """How points are chosen; a grid takes every combination of `choices`."""
    num_trials: int | None = Field(default=None, ge=1, le=100_000)
    """Points to draw for every search but grid, and a cap on grid."""
    seeds: Seeds | Literal["auto"] = (0,)
    """Run seeds; every geometry is trained once with each. A number n stands for the seeds 0 to n - 1. `auto` is seed
    0 for all, then one more at a time for those that cannot be told from the best, up to `max_seeds`."""
    max_seeds: int = Field(default=5, ge=2, le=100)
    """Most seeds of a geometry when `seeds` is `auto`."""
    metric: str = RANKING
    """Metric that ranks trials; higher is better."""
    trade_off: Literal["gpu_hours"] | None = None
    """Search by `optuna` or `gp` for what nothing beats on both `metric` and a trial's GPU hours (CPU core hours
    without a GPU); null searches for the highest `metric`."""
    warm_start: Annotated[str, StringConstraints(min_length=1, max_length=1000)] | None = None
    """Earlier sweep, an id in `storage.uri` or a sweep's folder, of whose finished trials an `optuna` or `gp` search is
    told beforehand; null starts from nothing."""
    asha: AshaConfig | None = None
    """Early stopping by successive halving; null trains every trial to its end."""
    pbt: PbtConfig | None = None
    """Population based training over the space's axes; null keeps every trial's settings and weights its own."""
    max_concurrent_trials: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Trials at once; `auto` is as many as the cluster's resources hold."""
    search_seed: Seed = 0
    """Seed of every search but grid."""


class BudgetConfig(Section):
    """What a sweep may cost at most, and what an hour is worth."""

    gpu_hours: Annotated[float, Field(gt=0)] | None = None
    """Hard cap on allocated GPU hours, idle ones and retries included; null is no cap."""
    cpu_core_hours: Annotated[float, Field(gt=0)] | None = None
    """Hard cap on allocated CPU core hours, where no GPU is held; null is no cap."""
    price_per_gpu_hour: Annotated[float, Field(ge=0)] | None = None
    """Price of an allocated GPU hour, for the ledger; null tells no price."""
    currency: Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,8}\z")] = "USD"
    """Unit of the price."""


class RunConfig(Section):
    """One sweep file: a base configuration and a search over it."""

    name: Word = "ijepa"
    """Name of the sweep: the start of its runs' identifiers and the default MLflow experiment."""
    data: DataConfig = DataConfig()
    encoder: EncoderSettings = EncoderSettings()
    predictor: PredictorSettings = PredictorSettings()
    masks: MaskSettings = MaskSettings()
    objective: TaggedObjective = IJepaSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    ema: EmaSettings = EmaSettings()
    execution: ExecutionSettings = ExecutionSettings()
    train: TrainConfig = TrainConfig()
    probe: ProbeConfig = ProbeConfig()
    health: HealthConfig = HealthConfig()
    tracking: TrackingConfig = TrackingConfig()
    storage: StorageConfig = StorageConfig()
    sweep: SweepConfig = SweepConfig()
    budget: BudgetConfig = BudgetConfig()
