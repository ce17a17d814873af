"""The wider evaluation of one encoder: which probes are run on which features, and their figures with intervals.

Pure but for the features, which `features` computes and caches. Called by `orchestrator probe`.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from torch import Tensor

from jepa_core.encoder import EncoderSettings, ImageSize, height_and_width
from jepa_core.probes import (
    HeadGrid,
    attentive_probe,
    fine_tune_probe,
    knn_probe,
    low_shot_probe,
    many_head_probe,
    regression_probe,
    wilson_interval,
)
from jepa_core.probes.intervals import LEVEL
from jepa_core.step import prepare_images
from orchestrator.config.models import RunConfig
from orchestrator.data import LabelledImages, ShardSet
from orchestrator.protocol.intervals import Interval
from orchestrator.protocol.metrics import evaluation_metric
from orchestrator.protocol.writing import FLAT, plain_fields
from orchestrator.train.evaluate.evaluation import ProbeData, load_probe_data
from orchestrator.train.evaluate.features import FeatureCache, FeatureModel, OwnModel, extract_sets

_log = logging.getLogger(__name__)
EVALUATIONS = ("linear", "knn", "low-shot", "regression", "attentive", "fine-tune")
DEFAULT_EVALUATIONS = ("linear", "knn", "low-shot", "regression")
COUNTS = ("count",)
"""Labels whose classes are numbers in order, which are also regressed, as are the amounts that the images carry."""
_LOW_SHOT_FRACTIONS = (0.01, 0.1)


@dataclass(frozen=True, kw_only=True)
class ProbeFigure:
    """One figure with its interval, in `unit`: per cent, or for a regression's error what the amount is in.

    Per cent are of the test images (accuracy) or of the label's variance (regression).
    """

    evaluation: str
    label: str
    value: float
    interval: Interval = field(metadata=FLAT)
    detail: str = ""
    unit: str = "%"

    @property
    def metric(self) -> str:
        """Its name in MLflow."""
        return evaluation_metric(self.evaluation, self.label)


@dataclass(frozen=True, kw_only=True)
class ProbeReport:
    """All figures of one encoder, what they are of, and which evaluations failed, with their reasons."""

    target: str
    num_train: int
    num_test: int
    figures: tuple[ProbeFigure, ...]
    failed: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """As a JSON-able dictionary."""
        return plain_fields(self)


class _Job:
    """The evaluations of one encoder on one set of labelled images."""

    def __init__(
        self,
        model: FeatureModel,
        data: ProbeData,
        sets: Mapping[str, Mapping[str, Tensor]],
        config: RunConfig,
        *,
        units: Mapping[str, str],
    ) -> None:
        self.model, self.data, self.config, self.units = model, data, config, units
        self.train, self.test = sets["train"], sets["test"]
        self.seed = config.train.seed

    def run(self, evaluation: str) -> list[ProbeFigure]:
        """The figures of one evaluation, for every label."""
        run: Callable[[str, int], list[ProbeFigure]] = {
            "linear": self._linear,
            "knn": self._knn,
            "low-shot": self._low_shot,
            "regression": self._regression,
            "attentive": self._attentive,
            "fine-tune": self._fine_tune,
        }[evaluation]
        figures = [
            figure for label, classes in self.data.num_classes.items() for figure in run(label, classes)
        ]
        return figures + (self._amounts() if evaluation == "regression" else [])

    def _labels(self, label: str) -> tuple[Tensor, Tensor]:
        return self.data.train.labels[label], self.data.test.labels[label]

    def _linear(self, label: str, classes: int) -> list[ProbeFigure]:
        train_labels, test_labels = self._labels(label)
        pooled = [name for name in ("last", "last4") if name in self.train]
        found = many_head_probe(
            {name: self.train[name] for name in pooled},
            train_labels,
            {name: self.test[name] for name in pooled},
            test_labels,
            num_classes=classes,
            grid=HeadGrid(),
            seed=self.seed,
        )
        return [_accuracy("linear", label, found.correct_N, str(found.choice))]

    def _knn(self, label: str, classes: int) -> list[ProbeFigure]:
        train_labels, test_labels = self._labels(label)
        settings = self.config.probe
        found = knn_probe(
            self.train["last"],
            train_labels,
            self.test["last"],
            test_labels,
            num_classes=classes,
            num_neighbors=settings.knn_neighbors,
            temperature=settings.knn_temperature,
        )
        return [_accuracy("knn", label, found.correct_N, f"{settings.knn_neighbors} neighbours")]

    def _low_shot(self, label: str, classes: int) -> list[ProbeFigure]:
        train_labels, test_labels = self._labels(label)
        figures = []
        for fraction in _LOW_SHOT_FRACTIONS:
            found = low_shot_probe(
                self.train["last"],
                train_labels,
                self.test["last"],
                test_labels,
                num_classes=classes,
                fraction=fraction,
                seed=self.seed,
            )
            # The images are the same in all draws: one draw's worth of them bounds the interval.
            bounds = wilson_interval(round(found.accuracy * len(test_labels)), len(test_labels))
            detail = f"{found.num_images} labelled images, mean of {len(found.draws)} draws"
            figures.append(
                ProbeFigure(
                    evaluation=f"low-shot {100 * fraction:g}%",
                    label=label,
                    value=100 * found.accuracy,
                    interval=_interval(bounds).times(100),
                    detail=detail,
                )
            )
        return figures

    def _regression(self, label: str, classes: int) -> list[ProbeFigure]:
        return self._regressed(label, *self._labels(label), unit="") if label in COUNTS else []

    def _amounts(self) -> list[ProbeFigure]:
        train, test = self.data.train.amounts, self.data.test.amounts
        return [
            figure
            for name, unit in self.units.items()
            for figure in self._regressed(name, train[name], test[name], unit=unit)
        ]

    def _regressed(self, name: str, train_N: Tensor, test_N: Tensor, *, unit: str) -> list[ProbeFigure]:
        found = regression_probe(self.train["last"], train_N, self.test["last"], test_N, seed=self.seed)
        explained = ProbeFigure(
            evaluation="regression",
            label=name,
            value=100 * found.explained,
            interval=_interval(found.explained_interval(seed=self.seed)).times(100),
            detail="variance explained",
        )
        error = ProbeFigure(
            evaluation="regression error",
            label=name,
            value=found.mean_absolute_error,
            interval=_interval(found.error_interval(seed=self.seed)),
            detail="mean absolute error",
            unit=unit,
        )
        return [explained, error]

    def _attentive(self, label: str, classes: int) -> list[ProbeFigure]:
        if "patches" not in self.train:
            raise ValueError("the model has no patch features")
        train_labels, test_labels = self._labels(label)
        found = attentive_probe(
            self.train["patches"],
            train_labels,
            self.test["patches"],
            test_labels,
            num_classes=classes,
            seed=self.seed,
        )
        return [_accuracy("attentive", label, found.correct_N, "one query over the patches")]

    def _fine_tune(self, label: str, classes: int) -> list[ProbeFigure]:
        if not isinstance(self.model, OwnModel):
            raise ValueError("only encoders of ours are fine-tuned")
        train_labels, test_labels = self._labels(label)
        found = fine_tune_probe(
            self.model.encoder,
            self._images(self.data.train),
            train_labels,
            self._images(self.data.test),
            test_labels,
            num_classes=classes,
            seed=self.seed,
        )
        return [_accuracy("fine-tune", label, found.correct_N, "whole encoder, layer decay 0.65")]

    def _images(self, part: LabelledImages) -> Tensor:
        return prepare_images(part.images_uint8_NCHW, self.model.mean, self.model.std, "cpu")


def run_evaluations(
    model: FeatureModel,
    shards: ShardSet,
    config: RunConfig,
    *,
    target: str,
    evaluations: Sequence[str] = DEFAULT_EVALUATIONS,
    cache: Path,
    progress: Callable[[str], None] = lambda text: None,
) -> ProbeReport | None:
    """Run evaluations one after another; None when the shards carry no labels.

    An evaluation that fails is named with its reason, and the others go on. Images come at the model's own size.
    """
    sized = config.model_copy(update={"encoder": _with_size(config.encoder, model.image_size_px)})
    data = load_probe_data(sized, shards)
    if data is None:
        return None
    sets = _feature_sets(model, data, sized, shards, FeatureCache(cache), progress)
    job = _Job(model, data, sets, sized, units=shards.amounts)
    figures: list[ProbeFigure] = []
    failed: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for evaluation in evaluations:
        progress(f"{evaluation} probe")
        started = time.monotonic()
        try:
            figures += job.run(evaluation)
        except Exception as err:  # one evaluation must not cost the others
            _log.info("%s failed", evaluation, exc_info=True)  # it is told in the report
            failed[evaluation] = f"{type(err).__name__}: {err}"
        seconds[evaluation] = time.monotonic() - started
    return ProbeReport(
        target=target,
        num_train=len(data.train.images_uint8_NCHW),
        num_test=len(data.test.images_uint8_NCHW),
        figures=tuple(figures),
        failed=failed,
        seconds=seconds,
    )


def _feature_sets(
    model: FeatureModel,
    data: ProbeData,
    config: RunConfig,
    shards: ShardSet,
    cache: FeatureCache,
    progress: Callable[[str], None],
) -> dict[str, dict[str, Tensor]]:
    sets = {}
    for part, images in (("train", data.train), ("test", data.test)):
        basis = {
            "model": model.digest,
            "data": shards.digest,
            "split": config.data.train_split if part == "train" else config.data.test_split,
            "images": len(images.images_uint8_NCHW),
            "size_px": model.image_size_px,
            "pixels": [model.mean, model.std],
        }
        compute = partial(extract_sets, model, images.images_uint8_NCHW, progress=progress)
        sets[part] = cache.get(basis, compute)
    return sets


def _with_size(encoder: EncoderSettings, image_size_px: ImageSize) -> EncoderSettings:
    """The settings with another image size, for which only images are loaded."""
    if encoder.image_size_px == image_size_px:
        return encoder
    patch_size_px = math.gcd(*height_and_width(image_size_px))  # any that the settings allow
    return replace(encoder, image_size_px=image_size_px, patch_size_px=patch_size_px)


def _interval(bounds: tuple[float, float]) -> Interval:
    return Interval(low=bounds[0], high=bounds[1], level=LEVEL)


def _accuracy(evaluation: str, label: str, correct_N: Tensor, detail: str) -> ProbeFigure:
    hits, count = int(correct_N.sum()), len(correct_N)
    return ProbeFigure(
        evaluation=evaluation,
        label=label,
        value=100 * hits / count,
        interval=_interval(wilson_interval(hits, count)).times(100),
        detail=detail,
    )
