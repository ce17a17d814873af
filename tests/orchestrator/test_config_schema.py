"""The reference, the JSON Schema and the explanations follow the models."""

from pathlib import Path

import pytest

from orchestrator.config import default_config, explain, json_schema, reference_markdown, to_data
from orchestrator.config.fields import settings
from orchestrator.config.sweep_rules import is_sweepable
from orchestrator.errors import ConfigError

REFERENCE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_committed_reference_is_in_step():
    """`orchestrator config reference > docs/configuration.md` brings it in step."""
    assert REFERENCE.read_text(encoding="utf-8").rstrip() == reference_markdown().rstrip()


def test_every_setting_is_in_the_reference():
    text = reference_markdown()
    assert [key for key in settings() if f"`{key}`" not in text] == []


def test_every_setting_is_documented():
    assert [row.key for row in settings().values() if not row.documentation] == []


def test_every_section_is_closed_in_the_schema():
    schema = json_schema()
    open_sections = [
        name for name, part in schema["$defs"].items() if part.get("additionalProperties") is not False
    ]
    assert open_sections == []
    assert schema["additionalProperties"] is False


def test_the_schema_knows_every_setting_and_every_axis():
    schema = json_schema()
    for key in settings():
        section, _, name = key.rpartition(".")
        owner = schema
        if section:
            reference = schema["properties"][section]
            options = reference.get("oneOf") or reference.get("allOf") or [reference]
            owners = [schema["$defs"][option["$ref"].rpartition("/")[2]] for option in options]
            owner = {"properties": {name for part in owners for name in part["properties"]}}
        assert name in owner["properties"], key
    axes = schema["$defs"]["SweepConfig"]["properties"]["space"]["propertyNames"]["enum"]
    assert axes == [key for key in settings() if is_sweepable(key)]


def test_the_schema_accepts_the_defaults():
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(json_schema())
    jsonschema.validate(to_data(default_config()), json_schema())


def test_an_explanation_tells_type_default_rule_and_user():
    text = explain("train.batch_size")
    for words in (
        "type: integer",
        "default: 256",
        "multiple of `train.num_workers`",
        "used by: orchestrator.train",
    ):
        assert words in text


@pytest.mark.parametrize(
    "key",
    ["name", "masks", "masks.target_scale", "sweep.asha.first_rung_images", "center_ratio", "sweep.space"],
)
def test_settings_sections_and_axes_are_explained(key):
    assert explain(key).startswith(key)


def test_an_unknown_key_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match=r"did you mean `masks\.target_scale`"):
        explain("masks.target_scal")
