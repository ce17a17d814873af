"""Rules between settings, and rules of the search."""

import pytest

from orchestrator.config import apply_overrides, dump, parse_config
from orchestrator.errors import ConfigError


def faults_of(text):
    with pytest.raises(ConfigError) as caught:
        parse_config(text, source="f.yaml")
    return {fault.key: f"{fault.rule}; {fault.remedy}" for fault in caught.value.faults}


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        (
            "encoder: {image_size_px: 225}",
            "encoder.image_size_px",
            "multiple of patch_size_px (16); try 224",
        ),
        ("encoder: {image_size_px: 1000000}", "encoder.image_size_px", "at most 16384 patches"),
        ("encoder: {width: 100, num_heads: 7}", "encoder.width", "multiple of num_heads (7); try 98"),
        ("encoder: {name: resnet50}", "encoder.name", "'resnet50' is not a timm Vision Transformer"),
        ("encoder: {name: vit_smal_patch16_224}", "encoder.name", "nearest: vit_small_patch16_224"),
        ("encoder: {num_heads: 7}", "encoder.num_heads", "encoder.width (384)"),
        ("predictor: {width: 100}", "predictor.width", "multiple of the encoder's heads (6); try 102"),
        ("predictor: {width: 100, num_heads: 3}", "predictor.width", "multiple of num_heads (3); try 99"),
        (
            "train: {batch_size: 10, num_workers: 4}",
            "train.batch_size",
            "multiple of train.num_workers (4); try 8",
        ),
        ("train: {images: 100}", "train.images", "at least one batch"),
        ("train: {gpus_per_worker: 1.5}", "train.gpus_per_worker", "fraction up to 1"),
        (
            "sweep: {asha: {first_rung_images: 2000000}}",
            "sweep.asha.first_rung_images",
            "at most train.images",
        ),
        ("sweep: {metric: train/loss}", "sweep.metric", "must be a probe accuracy"),
        (
            "probe: {labels: [class]}\nsweep: {metric: probe/knn/count}",
            "sweep.metric",
            "one of probe.labels (class)",
        ),
        (
            "sweep: {metric: probe/linear_context/mean}",
            "sweep.metric",
            "is measured under probe.encoder both alone, not target",
        ),
        ("ema: {window: 2.0}", "ema.window", "must be above 0 and at most 1, not 2.0"),
        (
            "ema: {window: 0.1, final_momentum: 0.999}",
            "ema.final_momentum",
            "is not read where window is set",
        ),
        ("data: {test_split: train}", "data.test_split", "must differ"),
        ("probe: {knn_neighbors: 5000}", "probe.knn_neighbors", "at most probe.train_images (4000)"),
        (
            "objective: {target_layers: 13}",
            "objective.target_layers",
            "must be at most the encoder's blocks (12)",
        ),
        (
            "objective: {target_layers: 3}\nencoder: {depth: 2}",
            "objective.target_layers",
            "must be at most the encoder's blocks (2)",
        ),
        ("objective: {target_layers: 0}", "objective.target_layers", "must be above 0, not 0"),
        ("objective: {target_norm: group}", "objective.target_norm", "must be one of 'layer', 'batch'"),
        (
            "objective: {target_norm: tanh, normalize_predictions: true}",
            "objective.normalize_predictions",
            "cannot be true with target_norm tanh",
        ),
        (
            "objective: {target_norm: batch}\nexecution: {accumulation_steps: 2}",
            "execution.accumulation_steps",
            "must be 1 for objective.target_norm batch",
        ),
        (
            "objective: {target_norm: batch}\ntrain: {num_workers: 4, min_workers: 2}",
            "train.min_workers",
            "must be null under objective.target_norm batch",
        ),
        (
            "objective: {target_norm: instance}\nencoder: {image_size_px: 16}",
            "objective.target_norm",
            "where an image is one patch",
        ),
    ],
)
def test_a_rule_between_settings_is_explained(text, key, words):
    assert words in faults_of(text)[key]


@pytest.mark.parametrize(
    ("sweep", "key", "words"),
    [
        ("space: {target_scale: {choices: [1]}}", "target_scale", "did you mean `masks.target_scale`?"),
        (
            "space: {objective.normalize_targets: {choices: [true, false]}}",
            "objective.normalize_targets",
            "did you mean `objective.target_norm`?",
        ),
        (
            "space: {masks.target_scal: {choices: [1]}}",
            "masks.target_scal",
            "did you mean `masks.target_scale`?",
        ),
        ("space: {train.seed: {choices: [1, 2]}}", "train.seed", "list the seeds in `sweep.seeds`"),
        ("space: {train.num_workers: {choices: [1, 2]}}", "train.num_workers", "set it outside the space"),
        ("space: {storage.uri: {choices: [a, b]}}", "storage.uri", "cannot be searched"),
        ("space: {sweep.seeds: {choices: [[1]]}}", "sweep.seeds", "cannot be searched"),
        ("space: {probe.knn_neighbors: {choices: [1]}}", "probe.knn_neighbors", "cannot be searched"),
        ("space: {masks.target_scale: [[0.1, 0.2]]}", "masks.target_scale", "write `choices: [...]`"),
        (
            "space: {masks.target_scale: {choice: [[0.1, 0.2]]}}",
            "masks.target_scale",
            "did you mean `choices`?",
        ),
        (
            "space: {train.batch_size: {int_uniform: [32, 64]}}",
            "train.batch_size",
            "must be `choices` in a grid",
        ),
        ("space: {train.batch_size: {choices: []}}", "train.batch_size.choices", "at least 1 values"),
        ("space: {train.batch_size: {choices: [32, 32]}}", "train.batch_size.choices", "must not repeat"),
        (
            "space: {train.batch_size: {choices: [32, x]}}",
            "train.batch_size.choices[1]",
            "must be a whole number",
        ),
        (
            "space: {masks.target_scale: {choices: [[0.1, 0.2], 3]}}",
            "masks.target_scale.choices[1]",
            "must be a list",
        ),
        (
            "space: {train.batch_size: {choices: [2, 2000000]}}",
            "train.batch_size.choices[1]",
            "must be at most",
        ),
        (
            "{search: random, space: {masks.target_scale: {center: [0.1, 0.2], width: 0.1}}}",
            "num_trials",
            "required",
        ),
        ("{search: optuna, num_trials: 3}", "space", "must hold an axis"),
        (
            "{search: random, num_trials: 3, space: {masks.target_scale: {uniform: [0.1, 0.2]}}}",
            "masks.target_scale",
            "use `center` and `width`",
        ),
        (
            "{search: random, num_trials: 3, space: {ema.start_momentum: {center: [0.1, 0.2], width: 0.1}}}",
            "ema.start_momentum",
            "is not a pair",
        ),
        (
            "{search: random, num_trials: 3, space: {encoder.depth: {uniform: [1, 4]}}}",
            "encoder.depth",
            "use `int_uniform`",
        ),
        (
            "{search: random, num_trials: 3, space: {masks.sampler: {int_uniform: [1, 4]}}}",
            "masks.sampler",
            "is not a number",
        ),
        (
            "{search: random, num_trials: 3, space: {train.batch_size: {int_uniform: [-4, 4]}}}",
            "train.batch_size",
            "must be at least 1",
        ),
        (
            "{search: random, num_trials: 3, space: {optimizer.learning_rate: {log_uniform: [0, 1]}}}",
            "optimizer.learning_rate.log_uniform[0]",
            "must be greater than 0",
        ),
        (
            "{search: random, num_trials: 3, space: {optimizer.learning_rate: {uniform: [1, 0]}}}",
            "optimizer.learning_rate.uniform",
            "low <= high",
        ),
    ],
)
def test_a_rule_of_the_search_is_explained(sweep, key, words):
    body = sweep if sweep.startswith("{") else "{" + sweep + "}"
    prefix = "sweep." if key in ("num_trials", "space") else "sweep.space."
    assert words in faults_of(f"sweep: {body}")[prefix + key]


def test_an_axis_that_no_method_of_the_sweep_reads_is_refused():
    axes = "ema.start_momentum: {choices: [0.9, 0.99]}, optimizer.learning_rate: {choices: [0.1]}"
    text = "objective: {name: mae}\nsweep: {space: {" + axes + "}}"
    (key, words), *others = faults_of(text).items()
    assert (key, others) == ("sweep.space.ema.start_momentum", [])
    assert "does nothing as an axis: mae reads no ema.* settings" in words
    methods = "objective.name: {choices: [mae, dino]}"
    axes = "sweep: {space: {ema.start_momentum: {choices: [0.9, 0.99]}, " + methods + "}}"
    assert set(parse_config(axes).sweep.space) == {"ema.start_momentum", "objective.name"}


def test_every_point_of_a_grid_is_checked_over_the_axes_that_a_rule_reads():
    text = "sweep:\n  space:\n    predictor.width: {choices: [36, 48]}\n    encoder.num_heads: {choices: [3, 8]}\n"
    found = faults_of(text)
    assert list(found) == ["sweep.space.predictor.width.choices[0]"]
    assert "with encoder.num_heads = 8" in found["sweep.space.predictor.width.choices[0]"]


def test_a_written_base_value_is_checked_although_an_axis_replaces_it():
    text = "train: {batch_size: 10, num_workers: 4}\nsweep: {space: {train.batch_size: {choices: [8, 16]}}}"
    found = faults_of(text)["train.batch_size"]
    assert "multiple of train.num_workers" in found
    assert "its axis replaces it in the sweep, but `orchestrator train` uses it" in found


def test_a_sweep_may_rank_by_the_context_encoder_where_both_are_probed() -> None:
    text = "probe: {encoder: both}\nsweep: {metric: probe/knn_context/mean}"
    assert parse_config(text).sweep.metric == "probe/knn_context/mean"


def test_the_forms_of_targets_are_axes_and_each_point_is_checked() -> None:
    axes = "objective.target_norm: {choices: [layer, batch]}, objective.target_layers: {choices: [1, 4]}"
    space = "sweep: {space: {" + axes + "}}"
    assert parse_config(space).sweep.space.keys() == {"objective.target_norm", "objective.target_layers"}
    for base, axis in (
        ("encoder: {depth: 2}\n", "target_layers"),
        ("execution: {accumulation_steps: 2}\n", "target_norm"),
    ):
        assert faults_of(base + space).keys() == {f"sweep.space.objective.{axis}.choices[1]"}


def test_a_default_that_does_not_fit_is_excused_by_its_axis_and_stays_so_when_it_is_written_out():
    config = parse_config("train: {num_workers: 3}\nsweep: {space: {train.batch_size: {choices: [9, 12]}}}")
    config = parse_config(dump(config))
    assert apply_overrides(config, {"train.batch_size": 9}).train.batch_size == 9
    with pytest.raises(ConfigError, match=r"multiple of train\.num_workers"):
        apply_overrides(config, {})


def test_a_grid_of_a_billion_points_is_refused_at_once():
    axes = "".join(f"    {key}: {{choices: {list(range(1, 65))}}}\n" for key in BIG_AXES)
    found = faults_of("sweep:\n  space:\n" + axes)
    assert f"must make at most 10000 points, not {64**5}" in found["sweep.space"]
    assert "sweep.space" not in faults_of("sweep:\n  num_trials: 10\n  space:\n" + axes)


BIG_AXES = [
    "train.batch_size",
    "masks.min_context_patches",
    "masks.num_target_blocks",
    "encoder.depth",
    "predictor.depth",
]


def test_the_ends_of_a_range_that_cannot_be_sampled_are_refused_with_the_nearest_that_can() -> None:
    text = """
sweep:
  search: optuna
  num_trials: 20
  space:
    masks.target_scale: {center: [0.02, 0.3], width: 0.03}
    masks.context_keep: {uniform: [0.1, 0.95]}
"""
    with pytest.raises(ConfigError) as caught:
        parse_config(text)
    small, many = (str(fault) for fault in caught.value.faults)
    assert "masks.target_scale: with masks.context_keep = 0.525" in small
    assert "try target_scale: [0.021, 0.035]" in small
    assert "at most 171 can be context" in many
    assert "try context_keep: 0.87 or 'all'" in many
