"""Settings that do not follow the model, the run's length or the data, said by a plan before anything is spent.

Pure functions of a configuration and of what is known of its data. None of them is a fault: a user may want each.
"""

from __future__ import annotations

from collections.abc import Mapping

from jepa_core.settings import height_and_width
from jepa_core.vit_defaults import vit_defaults
from orchestrator.config.models import RunConfig
from orchestrator.config.rules import encoder_dimensions
from orchestrator.data import Survey

_DIMENSIONS = ("patch_size_px", "width", "depth", "num_heads", "image_size_px")
_CADENCES = ("train.report_every_images", "train.checkpoint_every_images", "probe.every_images")


def default_notes(config: RunConfig, survey: Survey) -> list[str]:
    """What a plan has to say of settings that do not fit each other."""
    return [
        *_model_notes(config),
        *_predictor_notes(config),
        *_length_notes(config),
        *_data_notes(config, survey),
    ]


def _model_notes(config: RunConfig) -> list[str]:
    """Dimensions that are not those of the model that is named."""
    encoder, known = config.encoder, vit_defaults(config.encoder.name)
    if known is None:
        return []
    changed = []
    for name in _DIMENSIONS:
        given, own = getattr(encoder, name), getattr(known, name)
        if given is not None and given not in (own, (own, own)):
            changed.append(f"{name} {_shown(given)} for its {own}")
    return [f"encoder is not {encoder.name} as timm defines it: {', '.join(changed)}"] if changed else []


def _shown(value: object) -> str:
    return " x ".join(str(side) for side in value) if isinstance(value, tuple) else str(value)


def _predictor_notes(config: RunConfig) -> list[str]:
    width, _ = encoder_dimensions(config)
    if config.objective.name != "ijepa" or not width or config.predictor.width <= width:
        return []
    return [
        f"predictor.width {config.predictor.width} is above the encoder's {width}; published ones are narrower"
    ]


def _length_notes(config: RunConfig) -> list[str]:
    """Cadences longer than the run: they come to one time, at its end."""
    images, late = config.train.images, []
    for key in _CADENCES:
        section, _, name = key.partition(".")
        value = getattr(getattr(config, section), name)
        if value is not None and value > images:
            late.append(f"{key} ({value:,})")
    return [f"beyond train.images ({images:,}), so once, at the end: {', '.join(late)}"] if late else []


def _data_notes(config: RunConfig, survey: Survey) -> list[str]:
    """Settings that the number of images or their size does not bear."""
    held = survey.num_samples.get(config.data.train_split)
    notes = [] if held is None else _count_notes(config, survey.num_classes, held)
    if survey.image_size_px is not None:
        notes += _size_notes(survey.image_size_px, height_and_width(config.encoder.image_size_px))
    return notes


def _count_notes(config: RunConfig, num_classes: Mapping[str, int], held: int) -> list[str]:
    batch_size, probe, notes = config.train.batch_size, config.probe, []
    if batch_size > held:
        notes.append(
            f"train.batch_size {batch_size:,} is above the {held:,} training images: a batch holds images twice"
        )
    for name, count in num_classes.items():
        of_class = min(held, probe.train_images) / count
        is_probed = probe.labels is None or name in probe.labels
        if is_probed and count > 1 and probe.knn_neighbors > of_class:
            notes.append(
                f"probe.knn_neighbors {probe.knn_neighbors} is above the {of_class:.3g} images a class of {name} that "
                "the k-NN probe is given: votes of other classes count, however good the features are"
            )
    return notes


def _size_notes(found_px: tuple[int, int], wanted_px: tuple[int, int]) -> list[str]:
    if all(found >= wanted for found, wanted in zip(found_px, wanted_px, strict=True)):
        return []
    found, wanted = _shown(found_px), _shown(wanted_px)
    return [
        f"images of {found} px (height and width, median of a few) are scaled up to {wanted} (encoder.image_size_px): "
        "that costs time and adds no detail"
    ]
