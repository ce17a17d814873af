"""Probes of a run: frozen features of the labelled images, of the encoder that `probe.encoder` names, and baselines.

The baselines are measured in the same run with the same probe: the untrained encoder (the run's own initial weights)
and raw pixels. They do not depend on the masks, so they are stored and shared by the trials of a sweep: those of the
encoder for each (data, encoder, probe, seed), those of pixels for each (data, image size, probe).
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_core.encoder import Encoder
from jepa_core.parallel import gathered
from jepa_core.probes import LinearProbe, knn_probe
from jepa_core.step import TrainState, autocast, prepare_images
from orchestrator.config.models import RunConfig
from orchestrator.data import BadSample, LabelledImages, ShardSet, load_images
from orchestrator.data.format.cache import file_lock
from orchestrator.errors import NotFoundError
from orchestrator.storage import Store
from orchestrator.train.distributed import Rank
from orchestrator.train.evaluate.health import collapse_signs, health_of
from orchestrator.train.reporting import MISSING

_log = logging.getLogger(__name__)
_CONTEXT = "_context"
_BATCH_IMAGES = 256
_HEALTH_IMAGES = 256
_PIXELS_SIDE_PX = 32


@dataclass(frozen=True, kw_only=True)
class ProbeData:
    """The labelled images of a run's probes, and the labels that are probed."""

    train: LabelledImages
    test: LabelledImages
    num_classes: Mapping[str, int]

    @property
    def bad_samples(self) -> frozenset[BadSample]:
        """What had to be left out of either split."""
        return frozenset((*self.train.bad_samples, *self.test.bad_samples))


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Metrics of one evaluation; `correct` holds the linear probe's hits on the test images, as hexadecimal bits."""

    metrics: dict[str, float] = field(default_factory=dict)
    correct: dict[str, str] = field(default_factory=dict)


def load_probe_data(config: RunConfig, shards: ShardSet) -> ProbeData | None:
    """Decode the probe images, without augmentation; None when the shards carry no labels."""
    wanted = config.probe.labels if config.probe.labels is not None else tuple(shards.labels)
    if not wanted:
        return None

    def load(split: str, num_images: int) -> LabelledImages:
        return load_images(
            shards,
            split,
            num_images,
            image_size_px=config.encoder.image_size_px,
            threads=max(1, config.data.loader_threads),
            max_bad_fraction=config.data.max_bad_fraction,
        )

    return ProbeData(
        train=load(config.data.train_split, config.probe.train_images),
        test=load(config.data.test_split, config.probe.test_images),
        num_classes={name: shards.labels[name].num_classes for name in wanted},
    )


@torch.no_grad()
def extract_features(encoder: Encoder, images_BCHW: Tensor, *, config: RunConfig, rank: Rank) -> Tensor:
    """Average-pooled features of uint8 images, computed by all ranks together.

    Returns [B, D] float32 on the CPU, the same on every rank.
    """
    share = -(-len(images_BCHW) // rank.world_size)
    own = images_BCHW[rank.index * share : (rank.index + 1) * share]
    was_training = encoder.training
    encoder.eval()
    pooled = [
        _tokens(encoder, own[start : start + _BATCH_IMAGES], config=config, rank=rank).mean(dim=1)
        for start in range(0, len(own), _BATCH_IMAGES)
    ]
    encoder.train(was_training)
    features = torch.cat(pooled) if pooled else torch.zeros(0, encoder.width, device=rank.device)
    return rank.gather_rows(features, share)[: len(images_BCHW)].cpu()


def ranked_encoder(config: RunConfig) -> Literal["target", "context"]:
    """The encoder whose probe is the ranking metric."""
    reads_context = config.probe.encoder == "context" or f"{_CONTEXT}/" in config.sweep.metric
    return "context" if reads_context else "target"


def evaluate(state: TrainState, probes: ProbeData, *, config: RunConfig, rank: Rank) -> Evaluation:
    """Probe the encoders of `probe.encoder`. Every rank must call it; rank 0 gets the result, others an empty one."""
    with gathered(state.objective):
        return _evaluate(state, probes, config=config, rank=rank)


def _evaluate(state: TrainState, probes: ProbeData, *, config: RunConfig, rank: Rank) -> Evaluation:
    started = time.monotonic()
    objective, wanted = state.objective, config.probe.encoder
    encoders = {"": objective.context_encoder if wanted == "context" else objective.target_encoder}
    if wanted == "both":
        encoders[_CONTEXT] = objective.context_encoder
    metrics: dict[str, float] = {}
    correct: dict[str, str] = {}
    for suffix, encoder in encoders.items():
        found = _probed_encoder(encoder, probes, config=config, rank=rank)
        metrics |= {_with_suffix(name, suffix): value for name, value in found.metrics.items()}
        if suffix == (_CONTEXT if f"{_CONTEXT}/" in config.sweep.metric else ""):
            correct = found.correct
    if rank.index != 0:
        return Evaluation()
    if MISSING in metrics:  # of either encoder: a row has the figures of all, or of none
        metrics, correct = {MISSING: 1.0}, {}
    if all(math.isfinite(value) for value in metrics.values()):
        metrics.update(_health(state, probes, config=config, rank=rank))
        metrics["time/probe_s"] = time.monotonic() - started
    return Evaluation(metrics=metrics, correct=correct)


def _probed_encoder(encoder: Encoder, probes: ProbeData, *, config: RunConfig, rank: Rank) -> Evaluation:
    """The probes of one encoder under the usual names; not numbers where its features are not finite."""
    train = extract_features(encoder, probes.train.images_uint8_NCHW, config=config, rank=rank)
    test = extract_features(encoder, probes.test.images_uint8_NCHW, config=config, rank=rank)
    if rank.index != 0:
        return Evaluation()
    if not (torch.isfinite(train).all() and torch.isfinite(test).all()):
        return Evaluation(metrics=dict.fromkeys(_probe_names(probes), math.nan))
    return _tried_probe(train, test, probes, config=config)


def _with_suffix(metric: str, suffix: str) -> str:
    """`probe/linear/class` as `probe/linear_context/class`; what is no probe's figure stays as it is."""
    if not metric.startswith("probe/"):
        return metric
    _, kind, label = metric.split("/", 2)
    return f"probe/{kind}{suffix}/{label}"


def _tried_probe(train_ND: Tensor, test_ND: Tensor, probes: ProbeData, *, config: RunConfig) -> Evaluation:
    """`probe_features`, tried again where it fails, and then noted as missing: training goes on without it."""
    for _ in range(1 + config.probe.max_failures):
        try:
            return probe_features(train_ND, test_ND, probes, config=config)
        except Exception:
            _log.warning("the probe failed", exc_info=True)
    return Evaluation(metrics={MISSING: 1.0})


def _probe_names(probes: ProbeData) -> list[str]:
    return [f"probe/{kind}/{name}" for kind in ("linear", "knn") for name in (*probes.num_classes, "mean")]


def measure_health(
    state: TrainState, probes: ProbeData, *, config: RunConfig, rank: Rank
) -> dict[str, float]:
    """Health of the target encoder on a few test images, without a probe. Every rank must call it; rank 0 gets it."""
    with gathered(state.objective):
        if rank.index != 0:
            return {}
        return _health(state, probes, config=config, rank=rank)


def measure_signs(state: TrainState, probes: ProbeData, *, config: RunConfig, rank: Rank) -> dict[str, float]:
    """The few of these metrics that the health rules read. Every rank must call it; rank 0 gets them."""
    with gathered(state.objective):
        if rank.index != 0:
            return {}
        images = _health_images(probes, config=config, rank=rank)
        return collapse_signs(state, images, config=config, rank=rank)


def _health(state: TrainState, probes: ProbeData, *, config: RunConfig, rank: Rank) -> dict[str, float]:
    return health_of(state, _health_images(probes, config=config, rank=rank), config=config, rank=rank)


def _health_images(probes: ProbeData, *, config: RunConfig, rank: Rank) -> Tensor:
    held_out = probes.test.images_uint8_NCHW[:_HEALTH_IMAGES]
    return prepare_images(held_out, config.data.mean, config.data.std, rank.device)


def probe_features(train_ND: Tensor, test_ND: Tensor, probes: ProbeData, *, config: RunConfig) -> Evaluation:
    """Linear and k-NN probes of every label; accuracies are in per cent."""
    result = Evaluation()
    settings = config.probe
    linear_probe = LinearProbe(train_ND, test_ND)
    for label, num_classes in probes.num_classes.items():
        train_labels, test_labels = probes.train.labels[label], probes.test.labels[label]
        linear = linear_probe.fit(
            train_labels,
            test_labels,
            num_classes=num_classes,
            l2=settings.linear_l2,
            seed=config.train.seed,
        )
        knn = knn_probe(
            train_ND,
            train_labels,
            test_ND,
            test_labels,
            num_classes=num_classes,
            num_neighbors=settings.knn_neighbors,
            temperature=settings.knn_temperature,
        )
        result.metrics[f"probe/linear/{label}"] = 100 * linear.accuracy
        result.metrics[f"probe/knn/{label}"] = 100 * knn.accuracy
        result.correct[label] = np.packbits(linear.correct_N.numpy()).tobytes().hex()
    for kind in ("linear", "knn"):
        values = [result.metrics[f"probe/{kind}/{label}"] for label in probes.num_classes]
        result.metrics[f"probe/{kind}/mean"] = sum(values) / len(values)
    return result


def baselines(
    state: TrainState, shards: ShardSet, probes: ProbeData, *, config: RunConfig, rank: Rank, store: Store
) -> dict[str, float]:
    """The untrained encoder's and the raw pixels' probe accuracies, in per cent.

    `state` must be untrained. Every rank must call it. Rank 0 reads the stored figures of each when another trial has
    measured them (of pixels: with the same data and probe; of the encoder: with the same encoder and seed, too), and
    stores them otherwise. Of the trials that start together on a node one measures, and the others wait for it.
    """

    def untrained() -> dict[str, float]:
        # Untrained, the two encoders of a method are one; they are told apart in what is returned below.
        probe = config.probe.model_copy(update={"encoder": "target"})
        measured = config.model_copy(update={"probe": probe})
        return _as_baseline("untrained", evaluate(state, probes, config=measured, rank=rank))

    def pixels() -> dict[str, float]:
        if rank.index != 0:
            return {}
        features = _pixels(probes.train.images_uint8_NCHW), _pixels(probes.test.images_uint8_NCHW)
        train = config.train.model_copy(update={"seed": 0})  # one figure for trials of every seed
        return _as_baseline(
            "pixels", _tried_probe(*features, probes, config=config.model_copy(update={"train": train}))
        )

    found: dict[str, float] = {}
    for key, measure in (
        (_untrained_key(config, shards, rank), untrained),
        (_pixels_key(config, shards), pixels),
    ):
        with _alone_on_node(shards, key, rank):
            found |= _stored_or(measure, key, rank=rank, store=store)
    if config.probe.encoder == "both":
        found |= {_of_context(name): value for name, value in found.items()}
    return found


def _of_context(baseline: str) -> str:
    """`baseline/untrained/linear/class` as `baseline/untrained/linear_context/class`."""
    what, name, kind, label = baseline.split("/", 3)
    return f"{what}/{name}/{kind}{_CONTEXT}/{label}"


def _stored_or(
    measure: Callable[[], dict[str, float]], key: str, *, rank: Rank, store: Store
) -> dict[str, float]:
    """A baseline's figures on rank 0: those that are stored under `key`, or measured and then stored."""
    stored = _stored(store, f"{key}.json") if rank.index == 0 else None
    if rank.broadcast(stored is not None):
        return stored or {}
    found = measure()
    if any(name.endswith("/linear/mean") for name in found):  # on rank 0, unless the probe failed
        store.write(f"{key}.json", json.dumps(found, sort_keys=True).encode())
    return found


def _alone_on_node(shards: ShardSet, key: str, rank: Rank) -> AbstractContextManager[object]:
    """A lock between the processes of a node, held by rank 0 and let go when its process dies."""
    if rank.index != 0:
        return nullcontext()
    return file_lock(shards.cache.folder / "locks" / f"baseline-{key}.lock")


def _stored(store: Store, name: str) -> dict[str, float] | None:
    try:
        figures: dict[str, float] = json.loads(store.read(name))
    except (NotFoundError, ValueError):  # a damaged one is measured and stored again
        return None
    return figures


def _as_baseline(name: str, evaluation: Evaluation) -> dict[str, float]:
    return {
        f"baseline/{name}/{metric.removeprefix('probe/')}": value
        for metric, value in evaluation.metrics.items()
        if metric.startswith("probe/")
    }


def _tokens(encoder: Encoder, images_BCHW: Tensor, *, config: RunConfig, rank: Rank) -> Tensor:
    normalised = prepare_images(images_BCHW, config.data.mean, config.data.std, rank.device)
    with autocast(rank.device, rank.precision):
        tokens_BND: Tensor = encoder(normalised)
    return tokens_BND.float()


def _pixels(images_NCHW: Tensor) -> Tensor:
    """Raw pixels as features: at most 32 x 32, so that the probe's size stays bounded."""
    images = images_NCHW.float() / 255
    if max(images.shape[-2:]) > _PIXELS_SIDE_PX:
        size = (min(images.shape[-2], _PIXELS_SIDE_PX), min(images.shape[-1], _PIXELS_SIDE_PX))
        images = F.interpolate(images, size=size, mode="bilinear", antialias=True)
    return images.flatten(1)


def _pixels_key(config: RunConfig, shards: ShardSet) -> str:
    """What the probe accuracies of raw pixels depend on."""
    return _digest(_probed(config, shards))


def _untrained_key(config: RunConfig, shards: ShardSet, rank: Rank) -> str:
    """What the probe accuracies of the untrained encoder depend on."""
    return _digest(
        {
            **_probed(config, shards),
            "normalisation": [config.data.mean, config.data.std],
            "encoder": asdict(config.encoder),
            "seed": config.train.seed,
            "precision": rank.precision,
        }
    )


def _probed(config: RunConfig, shards: ShardSet) -> dict[str, Any]:
    return {
        "data": shards.digest,
        "splits": [config.data.train_split, config.data.test_split],
        "size": config.encoder.image_size_px,
        "probe": config.probe.model_dump(
            mode="json", exclude={"every_images", "beside", "max_failures", "encoder"}
        ),
    }


def _digest(basis: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(basis, sort_keys=True, default=str).encode()).hexdigest()[:16]
