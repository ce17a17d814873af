"""A file and overrides become a configuration, or every fault at once."""

import pickle

import pytest

from jepa_core.objectives import Data2VecSettings, MaeSettings
from orchestrator.config import (
    apply_overrides,
    default_config,
    dump,
    flatten,
    load_config,
    parse_config,
    to_data,
)
from orchestrator.config.fields import settings
from orchestrator.errors import ConfigError

VALID = """
name: masks
encoder: {image_size_px: 32, patch_size_px: 4, width: 64, depth: 2, num_heads: 2}
predictor: {width: 32, depth: 1, num_heads: 2}
train:
  images: 1e4
  batch_size: 64
optimizer:
  learning_rate: 1e-3
sweep:
  space:
    masks.target_scale: {choices: [[0.1, 0.15], [0.15, 0.2]]}
    train.batch_size: {choices: [32, 64]}
  seeds: [0, 1]
"""


def faults_of(text, overrides=()):
    with pytest.raises(ConfigError) as caught:
        parse_config(text, source="f.yaml", overrides=overrides)
    return caught.value.faults


def test_an_empty_mapping_is_the_default_configuration():
    assert parse_config("{}") == default_config()


def test_a_section_with_all_its_keys_commented_out_is_the_default():
    assert parse_config("masks:\ntrain:\n") == default_config()


def test_whole_floats_are_whole_numbers_and_lists_are_tuples():
    config = parse_config(VALID)
    assert config.train.images == 10_000
    assert type(config.train.images) is int
    assert config.sweep.seeds == (0, 1)
    assert config.sweep.space["masks.target_scale"].choices == ((0.1, 0.15), (0.15, 0.2))


def test_a_number_of_seeds_stands_for_the_first_ones():
    assert parse_config("sweep: {seeds: 3}").sweep.seeds == (0, 1, 2)
    assert parse_config("sweep: {seeds: [4, 5]}").sweep.seeds == (4, 5)
    with pytest.raises(ConfigError, match=r"sweep\.seeds"):
        parse_config("sweep: {seeds: 0}")


def test_a_count_and_a_fraction_are_told_apart():
    assert type(parse_config("masks: {context_keep: 0.5}").masks.context_keep) is float
    assert type(parse_config("masks: {context_keep: 16}").masks.context_keep) is int


def test_overrides_win_in_order():
    config = parse_config(VALID, overrides=["train.seed=1", "train.seed=2", "masks.target_scale=[0.1, 0.15]"])
    assert config.train.seed == 2
    assert config.masks.target_scale == (0.1, 0.15)


def test_an_override_reaches_one_axis_and_null_unsets():
    overrides = [
        "sweep.space.masks.target_scale={choices: [[0.1, 0.2]]}",
        "probe.every_images=",
        "data.cache_dir=null",
    ]
    config = parse_config(VALID, overrides=overrides)
    assert list(config.sweep.space) == ["masks.target_scale", "train.batch_size"]
    assert config.sweep.space["masks.target_scale"].choices == ((0.1, 0.2),)
    assert config.probe.every_images is None


def test_dumped_text_loads_back_equal(tmp_path):
    config = parse_config(VALID)
    path = tmp_path / "config.yaml"
    path.write_text(dump(config), encoding="utf-8")
    assert load_config(path) == config


def test_flattened_keys_are_the_dotted_settings():
    flat = flatten(parse_config(VALID))
    plain = {
        key
        for key, row in settings().items()
        if key not in ("sweep.space",) and "ijepa" in dict(row.variants or [("ijepa", None)])
    }
    assert plain <= set(flat)
    assert flat["masks.target_scale"] == (0.15, 0.2)
    assert flat["sweep.space.train.batch_size.choices"] == (32, 64)


def test_every_flat_setting_can_be_set_under_its_own_name():
    config = default_config()
    for key, value in flatten(config).items():
        assert apply_overrides(config, {key: value}) == config, key


def test_a_point_is_validated_again():
    config = parse_config(VALID)
    assert apply_overrides(config, {"masks.target_scale": (0.1, 0.12), "train.seed": 7}).train.seed == 7
    with pytest.raises(ConfigError, match=r"train.batch_size: must be at least 1 \(given: 0\)"):
        apply_overrides(config, {"train.batch_size": 0})
    with pytest.raises(ConfigError, match=r"override: masks.target_scal: is not a known key; did you mean"):
        apply_overrides(config, {"masks.target_scal": (0.1, 0.2)})


def test_every_fault_is_reported_at_once_with_its_place():
    text = "masks:\n  target_scal: [0.1, 0.2]\n  sampler: exat\n"
    text += "train:\n  images: many\n  batch_size: 10\n  num_workers: 3\n"
    rows = [(f.line, f.column, f.key, f.given, f.remedy) for f in faults_of(text)]
    assert rows == [
        (2, 3, "masks.target_scal", "", "did you mean `masks.target_scale`?"),
        (3, 12, "masks.sampler", "exat", "did you mean `exact`?"),
        (5, 11, "train.images", "many", ""),
        (6, 15, "train.batch_size", "10", "try 9"),
    ]


def test_a_fault_of_an_override_names_set_as_its_source():
    faults = faults_of(
        "{}", ["train.images=many", "trian.seed=1", "nonsense", "train.seed=[1", "a.b.c.d.e.f.g.h.i.j=1"]
    )
    assert {fault.source for fault in faults} == {"--set"}
    assert len(faults) == 5


def test_one_fault_does_not_make_another():
    faults = faults_of("train: {batch_size: x, images: 10}\nsweep: {asha: {first_rung_images: 5}}")
    assert [fault.key for fault in faults] == ["train.batch_size"]


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("optimizer: {learning_rate: '1e-3'}", "optimizer.learning_rate", "must be a number"),
        ("masks: {allow_overlap: on}", "masks.allow_overlap", "must be true or false"),
        ("train: {images: 12:30:45}", "train.images", "must be a whole number"),
        ("train: {images: 1_000}", "train.images", "write 1000 without"),
        ("train: {images: 2020-01-01}", "train.images", "must be a whole number"),
        ("train: {images: 1.5}", "train.images", "must be a whole number"),
        ("train: {images: 1e300}", "train.images", "must be a whole number"),
        ("train: {images: true}", "train.images", "must be a whole number"),
        ("train: {images: null}", "train.images", "must be a whole number"),
        ("train: {images: 99999999999999999999}", "train.images", "must be at most"),
        ("optimizer: {learning_rate: .nan}", "optimizer.learning_rate", "must be a finite number"),
        ("optimizer: {learning_rate: .inf}", "optimizer.learning_rate", "must be a finite number"),
        ("optimizer: {learning_rate: 1e999}", "optimizer.learning_rate", "must be a finite number"),
        (
            "sweep: {space: {ema.start_momentum: {choices: [.nan]}}}",
            "sweep.space.ema.start_momentum.choices[0]",
            "finite",
        ),
        ("name: ../evil", "name", "must be 1 to 100 letters"),
        (f"name: {'n' * 300}", "name", "must be 1 to 100 letters"),
        ("name: 5", "name", "quote it"),
        ('name: "a\\n"', "name", "must be 1 to 100 letters"),
        ("tracking: {experiment: ../x}", "tracking.experiment", "without `/`"),
        ("data: {train_split: ../../etc}", "data.train_split", "must be 1 to 100 letters"),
        ("data: {source: 'ftp://host/x'}", "data.source", "file:// or an s3:// URI"),
        ("data: {source: 'pipe:cat /etc/passwd'}", "data.source", "file:// or an s3:// URI"),
        ("data: {source: ''}", "data.source", "must not be empty"),
        ("data: {source: '${HOME}/x'}", "data.source", "not expanded"),
        ("data: {source: 's3://'}", "data.source", "must name a bucket"),
        ("storage: {uri: 's3://bucket/../x'}", "storage.uri", "must not hold `..`"),
        ("storage: {uri: 'file://relative'}", "storage.uri", "absolute path"),
        ("storage: {endpoint_url: 'host:9000'}", "storage.endpoint_url", "http:// or https://"),
        ("data: {cache_dir: 's3://bucket/x'}", "data.cache_dir", "must be a local folder"),
        ("tracking: {uri: 'redis://host'}", "tracking.uri", "known scheme"),
        ("data: {crop_scale: [0.9, 0.3]}", "data.crop_scale", "low <= high"),
        ("data: {crop_scale: 0.3}", "data.crop_scale", "must be a list"),
        ("data: {crop_scale: [0.1]}", "data.crop_scale", "more than 1 value"),
        ("data: {crop_scale: [0.1, 0.2, 0.3]}", "data.crop_scale", "at most 2 values"),
        ("data: {crop_aspect_ratio: [0, 1]}", "data.crop_aspect_ratio[0]", "must be greater than 0"),
        ("train: {num_workers: [1, 2]}", "train.num_workers", "must be a whole number"),
        ("train: {gpus_per_worker: -1}", "train.gpus_per_worker", "must be at least 0"),
        ("train: {learning_rate: 1}", "train.learning_rate", "did you mean `optimizer.learning_rate`?"),
        ("masks: 3", "masks", "must be a mapping"),
        ("mask: {}", "mask", "did you mean `masks`?"),
        ("ключ: {}", "ключ", "is not a known key"),
        ("<<: {name: a}", "<<", "is not a known key"),
        ("[1, 2]", "", "must be a mapping"),
        ("", "", "holds no settings"),
        ("# nothing\n", "", "holds no settings"),
        ("probe: {labels: [a, a]}", "probe.labels", "must not repeat"),
        ("sweep: {seeds: []}", "sweep.seeds", "at least 1 values"),
        ("sweep: {seeds: [1, 1]}", "sweep.seeds", "must not repeat"),
        ("sweep: {asha: {}}", "sweep.asha.first_rung_images", "is required"),
        ("sweep: {space: {x.y: 3}}", "sweep.space.x.y", "is not a known key"),
    ],
)
def test_bad_input_is_explained(text, key, words):
    faults = faults_of(text)
    assert key in {fault.key for fault in faults}
    assert any(words in str(fault) for fault in faults if fault.key == key)
    assert all(fault.line and fault.column and fault.source == "f.yaml" for fault in faults)


@pytest.mark.parametrize(
    "text",
    [
        "storage: {uri: 's3://AKIA:hunter2@bucket/x'}",
        "storage: {endpoint_url: 'https://user:hunter2@host'}",
        "tracking: {uri: 'postgresql://user:hunter2@host/db'}",
        "data: {source: 's3://bucket/x?X-Amz-Signature=hunter2'}",
        "data: {sourc: 's3://AKIA:hunter2@bucket/x'}",
    ],
)
def test_secrets_are_refused_and_never_repeated(text):
    message = "\n".join(str(fault) for fault in faults_of(text))
    assert message
    assert "hunter2" not in message


def test_a_fault_survives_pickling():
    with pytest.raises(ConfigError) as caught:
        parse_config("train: {images: x}")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_configuration_survives_pickling_and_plain_data():
    config = parse_config(VALID)
    assert pickle.loads(pickle.dumps(config)) == config
    assert parse_config(dump(config)) == config
    assert to_data(config)["masks"]["target_scale"] == [0.15, 0.2]


def test_another_method_starts_from_its_own_defaults_and_keeps_nothing_of_the_last():
    config = parse_config("objective: {name: mae, mask_fraction: 0.6}")
    assert isinstance(config.objective, MaeSettings)
    changed = apply_overrides(config, {"objective.smooth_l1_beta": 1.5, "objective.name": "data2vec"})
    assert changed.objective == Data2VecSettings(smooth_l1_beta=1.5)
    assert apply_overrides(config, {"objective.name": "mae"}).objective.mask_fraction == 0.6


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        (
            "{loss: l2, mask_fraction: 0.6}",
            "objective.mask_fraction",
            "not a setting of objective.name ijepa",
        ),
        ("{name: mea, mask_fraction: 0.6}", "objective.name", "did you mean `mae`?"),
        ("{name: mae, mask_fraction: 1.5}", "objective.mask_fraction", "below 1"),
        (
            "{name: mae, mask_fractio: 0.5}",
            "objective.mask_fractio",
            "did you mean `objective.mask_fraction`?",
        ),
        (
            "{name: data2vec2, decoder_groups: 5}",
            "objective.decoder_groups",
            "must divide the decoder's width",
        ),
        ("7", "objective", "must be a mapping of keys"),
    ],
)
def test_a_method_is_told_which_of_its_settings_is_wrong(text, key, words):
    with pytest.raises(ConfigError) as caught:
        parse_config(f"objective: {text}")
    assert [fault.key for fault in caught.value.faults] == [key]
    assert words in str(caught.value)


@pytest.mark.parametrize(("old", "norm"), [("true", "layer"), ("false", "none")])
def test_a_key_of_an_earlier_version_is_read_as_the_one_that_took_its_place(caplog, old, norm):
    for config in (
        parse_config(f"name: x\nobjective: {{normalize_targets: {old}}}", source="f.yaml"),
        default_config([f"objective.normalize_targets={old}"]),
    ):
        assert config.objective.target_norm == norm
    said = [record.getMessage() for record in caplog.records]
    assert f"objective.normalize_targets (f.yaml:2) is read as `objective.target_norm: {norm}`" in said[0]


@pytest.mark.parametrize(
    "value",
    ["{normalize_targets: 3}", "{normalize_targets: [1]}", "{normalize_targets: true, target_norm: layer}"],
)
def test_a_key_of_an_earlier_version_without_meaning_or_beside_its_successor_is_unknown(value):
    with pytest.raises(ConfigError) as caught:
        parse_config(f"objective: {value}")
    assert [fault.key for fault in caught.value.faults] == ["objective.normalize_targets"]
