"""YAML 1.2 values, positions, limits, and text that comes back equal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config.yaml12 import MAX_FILE_BYTES, dump, parse, read_text
from orchestrator.errors import ConfigError


def fault_of(text):
    with pytest.raises(ConfigError) as caught:
        parse(text, "file.yaml")
    return caught.value.faults[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E+3", 1000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("-7", -7),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("No", "No"),
        ("12:30:45", "12:30:45"),
        ("2020-01-01", "2020-01-01"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("'1e-3'", "1e-3"),
        ('"true"', "true"),
        ("!!str 5", "5"),
        ("!!float 5", 5),
    ],
)
def test_scalars_follow_the_core_schema(text, value):
    result = parse(f"key: {text}\n", "file.yaml").data["key"]
    assert result == value
    assert type(result) is type(value)


def test_every_key_and_value_has_its_place():
    document = parse("a:\n  b: [1, {c: 2}]\n", "file.yaml")
    assert (document.keys["a", "b"].line, document.keys["a", "b"].column) == (2, 3)
    assert (document.values["a", "b"].line, document.values["a", "b"].column) == (2, 6)
    assert (document.values["a", "b", 1, "c"].line, document.values["a", "b", 1, "c"].column) == (2, 14)


@pytest.mark.parametrize(
    ("text", "rule", "line", "column"),
    [
        ("a: 1\nb: 2\na: 3\n", "must occur once; it is already on line 1", 3, 1),
        ("a:\n\tb: 1\n", "must not indent with a tab", 2, 1),
        ("a: 1\x00\n", "control character", 1, 5),
        ("a: !!python/object:os.system x\n", "must not use a YAML tag", 1, 4),
        ("a: !env HOME\n", "must not use a YAML tag", 1, 4),
        ("a: *nothing\n", "must refer to an anchor defined above", 1, 4),
        ("a: &x [*x]\n", "must not refer to what encloses it", 1, 8),
        ("1: a\n", "a key must be text", 1, 1),
        ("? [a]\n: b\n", "a key must be text", 1, 3),
        ("a: 1\n---\nb: 2\n", "must hold one YAML document", 2, 1),
        ("a: b: c\n", "must not have a second `: `", 1, 5),
        ("a: [1, 2\n", "must be valid YAML", 2, 1),
        ('a: "\\ud800"\n', "surrogate", 1, 4),
        ("a: " + "9" * 5000 + "\n", "must be a number of at most", 1, 4),
        ("a: !!int x\n", "must be what its tag", 1, 4),
    ],
)
def test_what_is_not_allowed_is_said_with_its_place(text, rule, line, column):
    fault = fault_of(text)
    assert rule in fault.rule
    assert (fault.source, fault.line, fault.column) == ("file.yaml", line, column)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("[" * 3000, "must nest at most"),
        ("a: " + "{b: " * 3000, "must nest at most"),
        ("- " * 3000, "must nest at most"),
        (
            "a: &a [x, x, x, x, x, x, x, x, x]\n"
            + "".join(
                f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdef", "bcdefg", strict=True)
            ),
            "must expand to at most",
        ),
        ("- a\n" * 30_000, "must expand to at most"),
        ("a" * (MAX_FILE_BYTES + 1), "must be at most 128 KiB"),
        ('a: "\\U00ffffff"', "must be valid YAML"),
        ("%YAML 2.0\n--- {}", "must be valid YAML"),
    ],
)
def test_bombs_end_in_a_fault(text, rule):
    assert rule in fault_of(text).rule


def test_aliases_within_the_limits_are_values():
    assert parse("a: &x [1, 2]\nb: *x\n", "file.yaml").data == {"a": [1, 2], "b": [1, 2]}


def test_a_byte_order_mark_is_accepted(tmp_path):
    path = tmp_path / "bom.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: a\n")
    assert parse(read_text(path), "file.yaml").data == {"name": "a"}


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"a: \xff\n", "must be UTF-8 text"),
        ("a: 1".encode("utf-16"), "this is UTF-16"),
        (b" " * 50_000_000, "must be at most 128 KiB"),
    ],
)
def test_unreadable_content_is_named(tmp_path, content, rule):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rule):
        read_text(path)


@pytest.mark.parametrize("name", ["missing.yaml", ".", "a\0b", "n" * 300])
def test_a_path_that_is_no_file_is_named(tmp_path, name):
    with pytest.raises(ConfigError, match=r"cannot be read|must be a regular file"):
        read_text(tmp_path / name)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12)
    | st.sampled_from(
        ["1e-3", "on", "012", "0o7", "null", "~", "", "12:30", ".inf", "=", "<<", "- a", "#", "a: b", "*x"]
    ),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abc.", max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(PLAIN)
def test_dumped_data_loads_back_equal(data):
    assert parse(dump({"data": data}), "file.yaml").data == {"data": data}
