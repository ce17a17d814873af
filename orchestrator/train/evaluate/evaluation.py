"""Probes of a run: frozen features of the labelled images, of the encoder that `probe.encoder` names.

What they are compared with, the untrained encoder and raw pixels, is in `baselines`.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from jepa_core.encoder import Encoder
from jepa_core.parallel import gathered
from jepa_core.probes import LinearProbe, knn_probe
from jepa_core.step import TrainState, autocast, prepare_images
from orchestrator.config.models import RunConfig
from orchestrator.data import BadSample, LabelledImages, ShardSet, load_images
from orchestrator.protocol.metrics import (
    MEAN,
    MISSING,
    PROBE_KINDS,
    PROBE_S,
    is_of_context,
    of_context,
    probe_metric,
)
from orchestrator.train.distributed import Rank
from orchestrator.train.evaluate.health import collapse_signs, health_of

_log = logging.getLogger(__name__)
_BATCH_IMAGES = 256
_BATCH_IMAGES_OF_CPU = 64
"""So few that what one layer writes is still in a core's cache when the next one reads it."""
_HEALTH_IMAGES = 256


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
    batch_images = _BATCH_IMAGES_OF_CPU if rank.device.type == "cpu" else _BATCH_IMAGES
    was_training = encoder.training
    encoder.eval()
    pooled = [
        _tokens(encoder, own[start : start + batch_images], config=config, rank=rank).mean(dim=1)
        for start in range(0, len(own), batch_images)
    ]
    encoder.train(was_training)
    features = torch.cat(pooled) if pooled else torch.zeros(0, encoder.width, device=rank.device)
    return rank.gather_rows(features, share)[: len(images_BCHW)].cpu()


def ranked_encoder(config: RunConfig) -> Literal["target", "context"]:
    """The encoder whose probe is the ranking metric."""
    reads_context = config.probe.encoder == "context" or is_of_context(config.sweep.metric)
    return "context" if reads_context else "target"


def evaluate(state: TrainState, probes: ProbeData, *, config: RunConfig, rank: Rank) -> Evaluation:
    """Probe the encoders of `probe.encoder`. Every rank must call it; rank 0 gets the result, others an empty one."""
    with gathered(state.objective):
        return _evaluate(state, probes, config=config, rank=rank)


def _evaluate(state: TrainState, probes: ProbeData, *, config: RunConfig, rank: Rank) -> Evaluation:
    started = time.monotonic()
    objective, wanted = state.objective, config.probe.encoder
    encoders = {False: objective.context_encoder if wanted == "context" else objective.target_encoder}
    if wanted == "both":
        encoders[True] = objective.context_encoder
    metrics: dict[str, float] = {}
    correct: dict[str, str] = {}
    for told_apart, encoder in encoders.items():
        found = probe_encoder(encoder, probes, config=config, rank=rank)
        metrics |= {of_context(name) if told_apart else name: value for name, value in found.metrics.items()}
        if told_apart == is_of_context(config.sweep.metric):
            correct = found.correct
    if rank.index != 0:
        return Evaluation()
    if MISSING in metrics:  # of either encoder: a row has the figures of all, or of none
        metrics, correct = {MISSING: 1.0}, {}
    if all(math.isfinite(value) for value in metrics.values()):
        metrics.update(_health(state, probes, config=config, rank=rank))
        metrics[PROBE_S] = time.monotonic() - started
    return Evaluation(metrics=metrics, correct=correct)


def probe_encoder(encoder: Encoder, probes: ProbeData, *, config: RunConfig, rank: Rank) -> Evaluation:
    """The probes of one encoder under the usual names; not numbers where its features are not finite."""
    train = extract_features(encoder, probes.train.images_uint8_NCHW, config=config, rank=rank)
    test = extract_features(encoder, probes.test.images_uint8_NCHW, config=config, rank=rank)
    if rank.index != 0:
        return Evaluation()
    if not (torch.isfinite(train).all() and torch.isfinite(test).all()):
        return Evaluation(metrics=dict.fromkeys(_probe_names(probes), math.nan))
    return try_probe(train, test, probes, config=config)


def try_probe(train_ND: Tensor, test_ND: Tensor, probes: ProbeData, *, config: RunConfig) -> Evaluation:
    """`probe_features`, tried again where it fails, and then noted as missing: training goes on without it."""
    for _ in range(1 + config.probe.max_failures):
        try:
            return probe_features(train_ND, test_ND, probes, config=config)
        except Exception:
            _log.warning("the probe failed", exc_info=True)
    return Evaluation(metrics={MISSING: 1.0})


def _probe_names(probes: ProbeData) -> list[str]:
    return [probe_metric(kind, name) for kind in PROBE_KINDS for name in (*probes.num_classes, MEAN)]


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
        result.metrics[probe_metric("linear", label)] = 100 * linear.accuracy
        result.metrics[probe_metric("knn", label)] = 100 * knn.accuracy
        result.correct[label] = np.packbits(linear.correct_N.numpy()).tobytes().hex()
    for kind in PROBE_KINDS:
        values = [result.metrics[probe_metric(kind, label)] for label in probes.num_classes]
        result.metrics[probe_metric(kind)] = sum(values) / len(values)
    return result


def _tokens(encoder: Encoder, images_BCHW: Tensor, *, config: RunConfig, rank: Rank) -> Tensor:
    normalised = prepare_images(images_BCHW, config.data.mean, config.data.std, rank.device)
    with autocast(rank.device, rank.precision):
        tokens_BND: Tensor = encoder(normalised)
    return tokens_BND.float()
