"""Whatever is written, the answer is a configuration or a `ConfigError` that says where."""

import copy
import json
import random

import pytest
from examples import examples, num_examples
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from orchestrator.config import RunConfig, apply_overrides, default_config, dump, parse_config, to_data
from orchestrator.config.fields import settings
from orchestrator.errors import ConfigError

VALID = """\
name: fuzz
encoder: {image_size_px: 32, patch_size_px: 4, width: 64, depth: 2, num_heads: 2}
masks: &anchor
  target_scale: [0.15, 0.2]   # a comment
  context_keep: 0.25
  sampler: exact
train: {images: 1e4, batch_size: 64, gpus_per_worker: auto}
storage: {uri: "runs/here"}
sweep:
  space:
    masks.target_scale: {choices: [[0.1, 0.15], [0.15, 0.2]]}
    train.batch_size:
      choices: [32, 64]
  asha: {first_rung_images: 1000}
"""
NASTY = [
    None, True, -1, 0, 1, 10**30, -0.0, 1e-300, 1e308, float("inf"), float("nan"), "", "\n", "\x00", "é" * 300, "auto",
    "on", "1e-3", "${HOME}", "../x", "s3://a:b@c/d", "pipe:x", [], [[]], [1], [0.9, 0.1], [None], {}, {"choices": []},
    {"choices": [{}]}, {"uniform": [1, 2], "choices": [1]}, {"center": [-1, 2], "width": 1e308}, "\ud800",
]  # fmt: skip
SNIPPETS = [
    *"[]{}:,-?!&*#|>%@'\"\t\n\0\ufeff ~",
    "*anchor",
    "<<: ",
    "\n---\n",
    "!!int ",
    "&x ",
    "1e-3",
    ".nan",
    "é",
]


def outcome(make):
    """Run and check that the outcome is one of the two allowed."""
    try:
        result = make()
    except ConfigError as error:
        result = error
    assert isinstance(result, (RunConfig, ConfigError))
    for fault in result.faults if isinstance(result, ConfigError) else ():
        assert fault.rule
        assert "\n" not in str(fault)
        assert len(str(fault)) < 3000
    return result


def mutated_text(rng):
    text = VALID
    for _ in range(rng.randint(1, 4)):
        at, length = rng.randrange(len(text) + 1), rng.choice([0, 0, 1, 3, 20])
        piece = rng.choice([rng.choice(SNIPPETS), text[at : at + 15], ""])
        text = text[:at] + piece * rng.choice([1, 1, 1, 2, 50]) + text[at + length :]
    return text


def mutated_data(rng, data):
    data = copy.deepcopy(data)
    for _ in range(rng.randint(1, 3)):
        here = data
        while True:
            name = rng.choice(list(here) if isinstance(here, dict) else range(len(here)))
            child = here[name]
            if not isinstance(child, (dict, list)) or not child or rng.random() < 0.2:
                break
            here = child
        if isinstance(here, dict) and rng.random() < 0.3:
            here[rng.choice(["x", "", "é", str(name)[:-1], f"{name}.y", "train"])] = here.pop(name)
        else:
            here[name] = copy.deepcopy(rng.choice(NASTY))
        if not data:
            break
    return data


def test_mutated_text_ends_in_a_configuration_or_a_placed_fault():
    rng, kinds = random.Random(0), set()
    for _ in range(num_examples(1200)):
        text = mutated_text(rng)
        result = outcome(lambda text=text: parse_config(text, source="f.yaml"))
        kinds.add(type(result))
        if isinstance(result, ConfigError):
            assert all(fault.source == "f.yaml" and fault.line and fault.column for fault in result.faults), (
                text
            )
    assert kinds == {RunConfig, ConfigError}


def test_mutated_values_end_in_a_configuration_that_dumps_or_a_fault():
    rng, base = random.Random(1), to_data(parse_config(VALID))
    for _ in range(num_examples(1000)):
        text = json.dumps(mutated_data(rng, base)).replace("Infinity", ".inf").replace("NaN", ".nan")
        result = outcome(lambda text=text: parse_config(text, source="f.yaml"))
        if isinstance(result, RunConfig):
            assert parse_config(dump(result)) == result


def test_nasty_points_end_in_a_configuration_or_a_fault():
    rng, keys, config = (
        random.Random(2),
        [*settings(), "", ".", "x", "masks", "masks.x.y", "sweep.space.x"],
        default_config(),
    )
    kinds = set()
    for _ in range(num_examples(1500)):
        values = {key: rng.choice(NASTY) for key in rng.sample(keys, rng.randint(1, 3))}
        result = outcome(lambda values=values: apply_overrides(config, values))
        kinds.add(type(result))
        if isinstance(result, RunConfig):
            assert parse_config(dump(result)) == result
    assert kinds == {RunConfig, ConfigError}


@pytest.mark.filterwarnings("ignore")
@examples(300, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from([*settings(), "", "sweep.space.a"]), st.text(max_size=30))
def test_any_override_text_ends_in_a_configuration_or_a_fault(key, value):
    result = outcome(lambda: parse_config("{}", source="f.yaml", overrides=[f"{key}={value}"]))
    if isinstance(result, ConfigError):
        assert {fault.source for fault in result.faults} <= {"--set", "f.yaml"}


@examples(300)
@given(st.text(max_size=200))
def test_any_text_ends_in_a_configuration_or_a_fault(text):
    result = outcome(lambda: parse_config(text, source="f.yaml"))
    if isinstance(result, ConfigError):
        assert {fault.source for fault in result.faults} == {"f.yaml"}
