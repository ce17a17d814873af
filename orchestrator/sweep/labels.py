"""Whether data carry the labels that a sweep is ranked by, before anything is spent on it."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.config.models import RunConfig
from orchestrator.data import Survey
from orchestrator.errors import DataError

UNLABELLED = (
    "the images have no labels, so nothing is probed and no geometry can be ranked: give a folder with one sub-folder "
    "a class, or shards with .cls or .json members"
)


def check_labels(config: RunConfig, labels: Sequence[str]) -> None:
    """A sweep over several points has labels to rank them by, and those that the configuration names are there.

    One configuration alone may be trained on images without labels.

    Raises:
        DataError: It has none, or lacks one that is named.
    """
    sweep, where = config.sweep, f"data.source: {config.data.source}"
    if not labels and (sweep.space or sweep.points):
        raise DataError(
            f"{where}: {UNLABELLED}; `orchestrator train` trains the base configuration without them"
        )
    named = [*(config.probe.labels or ())]
    of_metric = sweep.metric.rpartition("/")[2]
    if of_metric != "mean" and (sweep.space or sweep.points):
        named.append(of_metric)
    missing = [name for name in dict.fromkeys(named) if name not in labels]
    if missing:
        there = ", ".join(labels) or "none"
        raise DataError(
            f"{where}: has no label {', '.join(missing)} (probe.labels, sweep.metric); there are: {there}"
        )


def label_notes(config: RunConfig, survey: Survey) -> list[str]:
    """What a plan has to say of the labelled images, as far as it is known without reading the shards."""
    if not survey.labels_known:
        return []
    try:
        check_labels(config, list(survey.num_classes))
    except DataError as err:
        return [str(err)]
    if not survey.num_classes:
        return [UNLABELLED]
    return [
        f"the {part} part has {held:,} images and {key} asks for {wanted:,}: accuracies are measured with {held:,}"
        for part, split, key, wanted in (
            ("test", config.data.test_split, "probe.test_images", config.probe.test_images),
            ("training", config.data.train_split, "probe.train_images", config.probe.train_images),
        )
        if (held := survey.num_samples.get(split, wanted)) < wanted
    ]
