"""Whether data carry the labels that a sweep is ranked by, before anything is spent on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.config.models import RunConfig
from orchestrator.data import LabelInfo, Note, ShardSet, Survey
from orchestrator.errors import DataError
from orchestrator.protocol.metrics import MEAN, label_of
from orchestrator.text import counted

MIN_CLASSES = 2
UNLABELLED = (
    "the images have no labels, so nothing is probed and no geometry can be ranked: give a folder with one sub-folder "
    "a class, or shards with .cls or .json members"
)


def check_labels(config: RunConfig, labels: Mapping[str, LabelInfo], notes: Sequence[Note] = ()) -> None:
    """A sweep over several points has labels to rank them by, and those that the configuration names are there.

    One configuration alone may be trained on images without labels, or with one class. `notes` say why labels that are
    there are not used.

    Raises:
        DataError: It has none, lacks one that is named, or those that rank have one class only.
    """
    sweep, where = config.sweep, f"data.source: {config.data.source}"
    ranks = bool(sweep.space or sweep.points)
    if not labels and ranks:
        raise DataError(
            f"{where}: {unlabelled(notes)}; `orchestrator train` trains the base configuration without them"
        )
    named = [*(config.probe.labels or ())]
    of_metric = label_of(sweep.metric)
    if of_metric != MEAN and ranks:
        named.append(of_metric)
    missing = [name for name in dict.fromkeys(named) if name not in labels]
    if missing:
        there = ", ".join(labels) or "none"
        raise DataError(
            f"{where}: has no label {', '.join(missing)} (probe.labels, sweep.metric); there are: {there}"
            + "".join(f"\n  {note.text()}" for note in notes if note.is_of_labels)
        )
    ranking = (config.probe.labels or tuple(labels)) if of_metric == MEAN else (of_metric,)
    if ranks and ranking and all(labels[name].num_classes < MIN_CLASSES for name in ranking):
        raise DataError(f"{where}: {_one_class(ranking[0], labels[ranking[0]])}")


def check_parts(config: RunConfig, num_samples: Mapping[str, int], labels: Mapping[str, LabelInfo]) -> None:
    """The parts that are trained on and, where there are labels, tested on hold images.

    Raises:
        DataError: One is missing or empty.
    """
    data = config.data
    wanted = {"data.train_split": data.train_split}
    if labels:
        wanted["data.test_split"] = data.test_split
    for key, split in wanted.items():
        if not num_samples.get(split):
            there = ", ".join(f"{name} ({count:,})" for name, count in num_samples.items())
            raise DataError(
                f"data.source: {data.source}: has no images in the part {split!r} ({key}); there are: {there}; "
                "set it to one of these, or add images"
            )


def _one_class(label: str, info: LabelInfo) -> str:
    """What one class means, and what to do."""
    what = f"only one class ({info.class_names[0] if info.class_names else label})"
    return (
        f"{what}: nothing can be ranked; give one sub-folder or label value for each of two classes or more"
    )


def check_survey(config: RunConfig, survey: Survey) -> None:
    """What is known of a source before it is packed or read allows the sweep.

    Raises:
        DataError: As `check_labels` and `check_parts`.
    """
    if survey.labels_known:
        check_labels(config, survey.labels, survey.notes)
        check_parts(config, survey.num_samples, survey.labels)


def check_shards(config: RunConfig, shards: ShardSet) -> None:
    """The shards of a sweep carry what ranks it.

    Raises:
        DataError: As `check_labels` and `check_parts`.
    """
    counts = {split: shards.manifest.num_samples(split) for split in shards.splits}
    check_labels(config, shards.labels, shards.manifest.notes)
    check_parts(config, counts, shards.labels)


def unlabelled(notes: Sequence[Note]) -> str:
    """That nothing can be ranked: for want of labels, or because those that are there cannot be used."""
    reasons = [note.text() for note in notes if note.is_of_labels]
    if not reasons:
        return UNLABELLED
    return (
        "\n  ".join(["no label can be used, so nothing is probed and no geometry can be ranked:", *reasons])
        + "\nwrite the number or the name of its class beside each image, in .cls or .json"
    )


def label_notes(config: RunConfig, survey: Survey) -> list[str]:
    """What a plan has to say of the labelled images, as far as it is known without reading the shards."""
    if not survey.labels_known:
        return []
    try:
        check_survey(config, survey)
    except DataError as err:
        return [str(err)]
    if not survey.labels:
        return [unlabelled(survey.notes)]
    alone = [
        f"label {name}: {_one_class(name, info)}"
        for name, info in survey.labels.items()
        if info.num_classes < MIN_CLASSES
    ]
    return alone + [
        f"the {part} part has {counted(held, 'image')} and {key} asks for {wanted:,}: accuracies are "
        f"measured with {held:,}"
        for part, split, key, wanted in (
            ("test", config.data.test_split, "probe.test_images", config.probe.test_images),
            ("training", config.data.train_split, "probe.train_images", config.probe.train_images),
        )
        if (held := survey.num_samples.get(split, wanted)) < wanted
    ]
