"""Rules between settings of different sections.

Pure functions of a configuration whose sections are sound. Each rule names the settings it reads: it is left
out when one of them is already known to be faulty, and a grid is checked over the axes that a rule reads and
no others (`sweep_rules`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

from jepa_core.settings import Data2Vec2Settings, IJepaSettings, MaskSettings, check_encoder_name
from jepa_core.vit_defaults import vit_defaults
from orchestrator.config.faults import Problem, key_path, named_field, problem
from orchestrator.config.models import PROPOSING, RunConfig
from orchestrator.config.yaml12 import KeyPath
from orchestrator.protocol.metrics import CONTEXT, MEAN, PROBE, PROBE_KINDS, RANKING, probe_metric

MAX_GRID_PATCHES = 16_384
MAX_BLOCKS = 256
_MASK_KEYS = tuple(f"masks.{field.name}" for field in fields(MaskSettings))


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A check and the dotted keys of the settings it reads."""

    reads: frozenset[str]
    check: Callable[[RunConfig], list[Problem]]

    @property
    def text(self) -> str:
        """The rule in one sentence."""
        return (self.check.__doc__ or "").strip().splitlines()[0]


RULES: list[Rule] = []


def rule(
    *reads: str,
) -> Callable[[Callable[[RunConfig], list[Problem]]], Callable[[RunConfig], list[Problem]]]:
    """Register a rule and the settings it reads."""

    def register(check: Callable[[RunConfig], list[Problem]]) -> Callable[[RunConfig], list[Problem]]:
        RULES.append(Rule(reads=frozenset(reads), check=check))
        return check

    return register


def check_run(
    config: RunConfig, faulty: Sequence[KeyPath], *, leave_out: frozenset[str] = frozenset()
) -> list[Problem]:
    """Every broken rule, but for those that read a faulty setting or one of `leave_out`."""
    found: list[Problem] = []
    for item in RULES:
        if not item.reads & leave_out and not any(touches(path, item.reads) for path in faulty):
            found += item.check(config)
    return found


def touches(path: KeyPath, keys: frozenset[str]) -> bool:
    """Whether a path is one of the keys, lies within one or holds one."""
    others = [key_path(key) for key in keys]
    return any(path[: len(other)] == other[: len(path)] for other in others)


def _broken(key: str, message: str) -> list[Problem]:
    return [problem(key_path(key), message)]


@rule("encoder.name", "encoder.image_size_px", "encoder.patch_size_px")
def _check_patch_grid(config: RunConfig) -> list[Problem]:
    """The patch grid is of a size that can be trained on."""
    if not knows_patches(config):
        return []
    if config.encoder.grid.num_patches > MAX_GRID_PATCHES:
        return _broken(
            "encoder.image_size_px", f"must make at most {MAX_GRID_PATCHES} patches; enlarge the patches"
        )
    return []


def knows_patches(config: RunConfig) -> bool:
    """Whether the patch size is given, or known from the encoder's name."""
    return config.encoder.patch_size_px is not None or vit_defaults(config.encoder.name) is not None


@rule("encoder.name", "encoder.patch_size_px")
def _check_encoder_name(config: RunConfig) -> list[Problem]:
    """`encoder.name` is a Vision Transformer of timm, whose patch size is known or given."""
    try:
        check_encoder_name(config.encoder.name)
    except ValueError as err:
        return _broken("encoder.name", str(err))
    if not knows_patches(config):
        message = f"must be given for {config.encoder.name}, whose own is not known here"
        return _broken("encoder.patch_size_px", message)
    return []


@rule("encoder.name", "encoder.width", "encoder.num_heads")
def _check_encoder_heads(config: RunConfig) -> list[Problem]:
    """`encoder.width` is a multiple of `encoder.num_heads`."""
    width, num_heads = encoder_dimensions(config)
    if not width or not num_heads or not width % num_heads:
        return []
    key = "encoder.num_heads" if config.encoder.num_heads else "encoder.width"
    return _broken(key, f"encoder.width ({width}) must be a multiple of encoder.num_heads ({num_heads})")


@rule("predictor.width", "predictor.num_heads", "encoder.name", "encoder.num_heads")
def _check_predictor_heads(config: RunConfig) -> list[Problem]:
    """`predictor.width` is a multiple of `predictor.num_heads`, or of the encoder's heads."""
    width, num_heads = config.predictor.width, config.predictor.num_heads or encoder_dimensions(config)[1]
    if not num_heads or num_heads < 1 or not width % num_heads:
        return []
    owner = "predictor.num_heads" if config.predictor.num_heads else "the encoder's heads"
    near = max(1, round(width / num_heads)) * num_heads
    return _broken("predictor.width", f"must be a multiple of {owner} ({num_heads}); try {near}")


@rule("objective.name", "objective.target_norm", "execution.accumulation_steps")
def _check_whole_batches(config: RunConfig) -> list[Problem]:
    """`execution.accumulation_steps` is 1 where the loss is one of the whole batch's statistics."""
    whole = _of_whole_batch(config)
    if not whole or config.execution.accumulation_steps == 1:
        return []
    return _broken("execution.accumulation_steps", f"must be 1 for {whole}; use more workers instead")


@rule("objective.name", "objective.target_norm", "train.min_workers", "train.num_workers")
def _check_elastic_batches(config: RunConfig) -> list[Problem]:
    """`train.min_workers` is null where masks are drawn for each worker and targets normalised over all of them."""
    least = config.train.min_workers
    if not _has_batch_targets(config) or least is None or least >= config.train.num_workers:
        return []
    message = (
        "must be null under objective.target_norm batch: fewer workers would draw the masks of larger batches; "
        "leave it out, or set objective.target_norm to instance"
    )
    return _broken("train.min_workers", message)


def _of_whole_batch(config: RunConfig) -> str:
    """Whose loss is one of the whole batch's statistics, and of which; empty where it is not."""
    if config.objective.name == "vicreg":
        return "vicreg, whose variances and covariances are the whole batch's"
    if _has_batch_targets(config):
        return "objective.target_norm batch, whose means and variances are the whole batch's"
    return ""


def _has_batch_targets(config: RunConfig) -> bool:
    return isinstance(config.objective, IJepaSettings) and config.objective.target_norm == "batch"


@rule("objective.name", "objective.target_layers", "encoder.name", "encoder.depth")
def _check_target_layers(config: RunConfig) -> list[Problem]:
    """`objective.target_layers` is at most `encoder.depth`."""
    objective, depth = config.objective, encoder_depth(config)
    if not isinstance(objective, IJepaSettings) or depth is None or objective.target_layers <= depth:
        return []
    return _broken("objective.target_layers", f"must be at most the encoder's blocks ({depth})")


@rule(
    "objective.name",
    "objective.target_norm",
    "encoder.name",
    "encoder.image_size_px",
    "encoder.patch_size_px",
)
def _check_instance_targets(config: RunConfig) -> list[Problem]:
    """`objective.target_norm` is not `instance` where an image is one patch."""
    objective = config.objective
    if not isinstance(objective, IJepaSettings) or objective.target_norm != "instance":
        return []
    if not knows_patches(config) or config.encoder.grid.num_patches > 1:
        return []
    return _broken(
        "objective.target_norm", "cannot be instance where an image is one patch: every target would be 0"
    )


@rule(
    "objective.name", "objective.decoder_groups", "objective.decoder_width", "encoder.name", "encoder.width"
)
def _check_decoder_groups(config: RunConfig) -> list[Problem]:
    """`objective.decoder_groups` divides `objective.decoder_width`, or the encoder's width."""
    objective = config.objective
    if not isinstance(objective, Data2Vec2Settings):
        return []
    width = objective.decoder_width or encoder_dimensions(config)[0]
    if not width or width % objective.decoder_groups == 0:
        return []
    return _broken("objective.decoder_groups", f"must divide the decoder's width ({width})")


def encoder_dimensions(config: RunConfig) -> tuple[int | None, int | None]:
    """Width and heads of the encoder as far as its settings or its timm name tell; None where they do not."""
    known = vit_defaults(config.encoder.name)
    width, num_heads = (known.width, known.num_heads) if known else (None, None)
    return config.encoder.width or width, config.encoder.num_heads or num_heads


def encoder_depth(config: RunConfig) -> int | None:
    """Blocks of the encoder as far as its settings or its timm name tell; None where they do not."""
    known = vit_defaults(config.encoder.name)
    return config.encoder.depth or (known.depth if known else None)


@rule("train.batch_size", "train.num_workers")
def _check_batch_splits(config: RunConfig) -> list[Problem]:
    """`train.batch_size` is a multiple of `train.num_workers`."""
    batch_size, num_workers = config.train.batch_size, config.train.num_workers
    if batch_size % num_workers == 0:
        return []
    near = max(1, round(batch_size / num_workers)) * num_workers
    return _broken("train.batch_size", f"must be a multiple of train.num_workers ({num_workers}); try {near}")


@rule("train.min_workers", "train.num_workers")
def _check_elastic(config: RunConfig) -> list[Problem]:
    """`train.min_workers` divides `train.num_workers`."""
    least, most = config.train.min_workers, config.train.num_workers
    if least is None or most % least == 0:
        return []
    near = max(size for size in range(1, min(least, most) + 1) if most % size == 0)
    return _broken("train.min_workers", f"must divide train.num_workers ({most}); try {near}")


@rule("train.images", "train.batch_size")
def _check_at_least_one_step(config: RunConfig) -> list[Problem]:
    """`train.images` is at least `train.batch_size`."""
    if config.train.images >= config.train.batch_size:
        return []
    return _broken(
        "train.images", f"must be at least one batch, train.batch_size ({config.train.batch_size})"
    )


@rule("train.gpus_per_worker")
def _check_whole_gpus(config: RunConfig) -> list[Problem]:
    """`train.gpus_per_worker` is a fraction up to 1 or a whole number."""
    gpus = config.train.gpus_per_worker
    if isinstance(gpus, str) or gpus <= 1 or float(gpus).is_integer():
        return []
    return _broken(
        "train.gpus_per_worker", "must be a fraction up to 1 or a whole number; a GPU is shared or owned"
    )


@rule("sweep.asha", "train.images")
def _check_first_rung(config: RunConfig) -> list[Problem]:
    """`sweep.asha.first_rung_images` is at most `train.images`."""
    asha = config.sweep.asha
    if asha is None or asha.first_rung_images <= config.train.images:
        return []
    message = f"must be at most train.images ({config.train.images}); a rung after the end stops nothing"
    return _broken("sweep.asha.first_rung_images", message)


@rule("sweep.asha", "sweep.search", "sweep.points")
def _check_variant(config: RunConfig) -> list[Problem]:
    """Trials wait at rungs (`promotion`) only where all are known before the sweep starts."""
    sweep = config.sweep
    if sweep.asha is None or sweep.asha.variant != "promotion" or sweep.points:
        return []
    if sweep.search not in PROPOSING:
        return []
    message = (
        f"cannot be promotion when sweep.search is {sweep.search}, which hears of a trial before it proposes the "
        "next; leave it out (stopping), or set sweep.search to grid, random or sobol"
    )
    return _broken("sweep.asha.variant", message)


@rule("sweep.trade_off", "sweep.search", "sweep.asha")
def _check_trade_off(config: RunConfig) -> list[Problem]:
    """`sweep.trade_off` needs a search that proposes (`optuna` or `gp`), and no `sweep.asha`."""
    sweep = config.sweep
    if sweep.trade_off is None:
        return []
    if sweep.search not in PROPOSING:
        message = f"needs a search that proposes, not {sweep.search}; set sweep.search to optuna or gp"
        return _broken("sweep.trade_off", message)
    if sweep.asha is not None:
        message = "cannot stand beside sweep.asha, which stops what is cheap and less accurate; remove one"
        return _broken("sweep.trade_off", message)
    return []


@rule("sweep.warm_start", "sweep.search")
def _check_warm_start(config: RunConfig) -> list[Problem]:
    """`sweep.warm_start` needs a search that proposes (`optuna` or `gp`)."""
    if config.sweep.warm_start is None or config.sweep.search in PROPOSING:
        return []
    message = f"needs a search that proposes, not {config.sweep.search}; set sweep.search to optuna or gp"
    return _broken("sweep.warm_start", message)


@rule("sweep.metric", "probe.labels", "probe.encoder")
def _check_metric(config: RunConfig) -> list[Problem]:
    """`sweep.metric` is a probe accuracy, of one of `probe.labels` where they are given."""
    match = re.fullmatch(
        rf"{PROBE}({'|'.join(PROBE_KINDS)})({CONTEXT})?/([A-Za-z0-9._-]+)", config.sweep.metric
    )
    if not match:
        names = " or ".join(probe_metric(kind, "<label>") for kind in PROBE_KINDS)
        message = f"must be a probe accuracy, {names}; try {RANKING}"
        return _broken("sweep.metric", message)
    if match.group(2) and config.probe.encoder != "both":
        message = f"is measured under probe.encoder both alone, not {config.probe.encoder}; set probe.encoder to both"
        return _broken("sweep.metric", message)
    labels = config.probe.labels
    if labels is not None and match.group(3) not in (*labels, MEAN):
        return _broken("sweep.metric", f"must name one of probe.labels ({', '.join(labels)}) or mean")
    return []


@rule("data.train_split", "data.test_split")
def _check_splits_differ(config: RunConfig) -> list[Problem]:
    """`data.test_split` differs from `data.train_split`."""
    if config.data.train_split != config.data.test_split:
        return []
    return _broken(
        "data.test_split", "must differ from data.train_split; accuracy on training images tells nothing"
    )


@rule("probe.knn_neighbors", "probe.train_images")
def _check_neighbors(config: RunConfig) -> list[Problem]:
    """`probe.knn_neighbors` is at most `probe.train_images`."""
    if config.probe.knn_neighbors <= config.probe.train_images:
        return []
    return _broken("probe.knn_neighbors", f"must be at most probe.train_images ({config.probe.train_images})")


@rule(*_MASK_KEYS, "encoder.name", "encoder.image_size_px", "encoder.patch_size_px")
def _check_masks(config: RunConfig) -> list[Problem]:
    """Every mask geometry can be sampled on its patch grid."""
    for name in ("num_target_blocks", "num_context_blocks"):
        if not 1 <= getattr(config.masks, name) <= MAX_BLOCKS:
            return _broken(f"masks.{name}", f"must be from 1 to {MAX_BLOCKS}")
    if not knows_patches(config) or _check_patch_grid(config):
        return []
    from jepa_core.geometry.feasibility import plan_geometry  # here: it loads numpy

    try:
        plan_geometry(config.masks, config.encoder.grid)
    except ValueError as error:
        field = named_field(str(error), "masks")
        return _broken(f"masks.{field}" if field else "masks", str(error))
    return []
