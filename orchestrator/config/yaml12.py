"""Reading YAML safely: the 1.2 core schema, source positions and hard limits.

Owns text -> plain data with the line and column of every key and value, and the reverse. Leaves out what the
keys mean (`load`). PyYAML resolves YAML 1.1 (`1e-3` is text, `on` is true, `010` is 8, `12:30:45` is 45045),
so only its scanner and parser are used; values are resolved here. Aliases are counted by what they expand to;
nesting, size and tags are bounded, so that a hostile file ends in a `ConfigError` in well under a second.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml import events

from orchestrator.errors import ConfigError, Fault

MAX_FILE_BYTES = 128 * 1024
MAX_DEPTH = 24
MAX_NODES = 20_000
MAX_DIGITS = 40

KeyPath = tuple[str | int, ...]

_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITY = re.compile(r"[-+]?\.(inf|Inf|INF)")
_NAN = re.compile(r"\.(nan|NaN|NAN)")
_WORDS: dict[str, bool | None] = {
    "": None,
    "~": None,
    "null": None,
    "Null": None,
    "NULL": None,
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]")
_CORE_TAG = "tag:yaml.org,2002:"
_SCALAR_TAGS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "null": (type(None),),
}


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a key or value was written; line and column count from 1.

    `text` is a scalar as its author wrote it.
    """

    source: str
    line: int | None = None
    column: int | None = None
    text: str | None = None


@dataclass(kw_only=True)
class Document:
    """Plain data with the places of its keys and values, both by path from the root."""

    data: Any
    keys: dict[KeyPath, Place] = field(default_factory=dict)
    values: dict[KeyPath, Place] = field(default_factory=dict)


@dataclass
class _Node:
    """A composed node; `size` counts what it expands to with its aliases."""

    value: Any
    mark: Any
    text: str | None = None
    size: int = 1
    complete: bool = False


def resolve_scalar(text: str) -> Any:
    """Resolve a plain scalar by YAML 1.2's core schema.

    Raises:
        ValueError: A number with more digits than any setting needs.
    """
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > MAX_DIGITS and (_INT.fullmatch(text) or _FLOAT.fullmatch(text) or _HEX.fullmatch(text)):
        raise ValueError(f"must be a number of at most {MAX_DIGITS} characters")
    if _INT.fullmatch(text):
        return int(text, 10)
    if _OCTAL.fullmatch(text):
        return int(text[2:], 8)
    if _HEX.fullmatch(text):
        return int(text[2:], 16)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITY.fullmatch(text):
        return float("-inf") if text.startswith("-") else float("inf")
    return float("nan") if _NAN.fullmatch(text) else text


def read_text(path: str | Path) -> str:
    """Read a UTF-8 file (a byte-order mark is allowed) of bounded size.

    Raises:
        ConfigError: The file is missing, unreadable, not a regular file, too large or not UTF-8 text.
    """
    source = str(path)
    try:
        if Path(path).exists() and not Path(path).is_file():
            raise _error(source, "must be a regular file")
        with Path(path).open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise _error(source, f"cannot be read: {reason}") from None
    return decode(content, source)


def decode(content: bytes, source: str) -> str:
    """A file's bytes as text.

    Raises:
        ConfigError: They are too many, or no UTF-8.
    """
    if len(content) > MAX_FILE_BYTES:
        raise _error(source, f"must be at most {MAX_FILE_BYTES // 1024} KiB")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _error(source, "must be UTF-8 text, this is UTF-16", remedy="save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        raise _error(
            source, "must be UTF-8 text", line=line, column=column, remedy="save it as UTF-8"
        ) from None


def parse(text: str, source: str) -> Document:
    """Parse one YAML document into plain data with places.

    Raises:
        ConfigError: The text is not YAML, breaks a limit, repeats a key or uses a tag.
    """
    if len(text) > MAX_FILE_BYTES:
        raise _error(source, f"must be at most {MAX_FILE_BYTES // 1024} KiB")
    control = _CONTROL.search(text)
    if control:
        before = text[: control.start()]
        line, column = before.count("\n") + 1, control.start() - before.rfind("\n")
        rule = f"must not hold the control character {control.group()!r}"
        raise _error(source, rule, line=line, column=column)
    try:
        root = _Composer(source).compose(yaml.parse(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        raise ConfigError([_syntax_fault(error, source)]) from None
    except (yaml.YAMLError, ValueError, OverflowError, LookupError, TypeError, AttributeError) as error:
        raise _error(source, f"must be valid YAML: {' '.join(str(error).split())[:200]}") from None
    document = Document(data=None)
    document.data = _expand(root, (), source, document)
    return document


class _Composer:
    """Builds nodes from parser events with an explicit stack, so that depth cannot exhaust Python's own."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.anchors: dict[str, _Node] = {}
        self.stack: list[tuple[_Node, list[_Node]]] = []
        self.root: _Node | None = None
        self.num_nodes = 0

    def compose(self, stream: Iterator[Any]) -> _Node:
        """Consume every event and return the root; an empty stream is null."""
        for event in stream:
            if isinstance(event, events.DocumentStartEvent) and self.root is not None:
                raise self.error(event.start_mark, "must hold one YAML document", "remove the second `---`")
            if isinstance(event, events.AliasEvent):
                self.add(self.alias(event))
            elif isinstance(event, events.ScalarEvent):
                self.add(self.scalar(event))
            elif isinstance(event, events.CollectionStartEvent):
                self.open(event)
            elif isinstance(event, events.CollectionEndEvent):
                self.close()
        return self.root if self.root is not None else _Node(None, yaml.Mark(self.source, 0, 0, 0, None, 0))

    def error(self, mark: Any, rule: str, remedy: str = "", given: str = "") -> ConfigError:
        """A `ConfigError` at a mark."""
        return _error(
            self.source, rule, line=mark.line + 1, column=mark.column + 1, remedy=remedy, given=given
        )

    def add(self, node: _Node) -> None:
        """Attach a finished scalar or alias, or a collection that has just been opened, to its parent."""
        self.num_nodes += node.size
        if self.num_nodes > MAX_NODES:
            raise self.error(node.mark, f"must expand to at most {MAX_NODES} values")
        if self.stack:
            self.stack[-1][1].append(node)
        else:
            self.root = node

    def remember(self, anchor: str | None, node: _Node) -> None:
        """Keep a node under its anchor."""
        if anchor is not None:
            self.anchors[anchor] = node

    def alias(self, event: Any) -> _Node:
        """The node that an alias stands for, placed where the alias is written."""
        target = self.anchors.get(event.anchor)
        if target is None:
            raise self.error(
                event.start_mark, "must refer to an anchor defined above", given=f"*{event.anchor}"
            )
        if not target.complete:
            raise self.error(event.start_mark, "must not refer to what encloses it", given=f"*{event.anchor}")
        return _Node(target.value, event.start_mark, target.text, target.size, complete=True)

    def scalar(self, event: Any) -> _Node:
        """A resolved scalar."""
        tag = self.tag(event)
        try:
            value = (
                resolve_scalar(event.value) if tag not in ("str", "!") and event.implicit[0] else event.value
            )
            if tag in _SCALAR_TAGS:
                value = resolve_scalar(event.value)
        except ValueError as error:
            raise self.error(event.start_mark, str(error), given=event.value[:60]) from None
        if tag in ("map", "seq") or (tag in _SCALAR_TAGS and not isinstance(value, _SCALAR_TAGS[tag])):
            raise self.error(event.start_mark, f"must be what its tag `!!{tag}` says", given=event.value[:60])
        if any("\ud800" <= character <= "\udfff" for character in event.value):
            raise self.error(event.start_mark, "must not hold half of a surrogate pair")
        node = _Node(value, event.start_mark, event.value, complete=True)
        self.remember(event.anchor, node)
        return node

    def tag(self, event: Any) -> str | None:
        """The short name of an explicit core tag; any other tag is refused."""
        if event.tag is None or event.tag == "!":
            return event.tag if event.tag is None else "!"
        name = str(event.tag).removeprefix(_CORE_TAG)
        if not str(event.tag).startswith(_CORE_TAG) or name not in {*_SCALAR_TAGS, "str", "map", "seq"}:
            raise self.error(
                event.start_mark, "must not use a YAML tag", "remove the tag", str(event.tag)[:60]
            )
        return name

    def open(self, event: Any) -> None:
        """Start a list or a mapping."""
        tag, is_mapping = self.tag(event), isinstance(event, events.MappingStartEvent)
        if tag not in (None, "!", "map" if is_mapping else "seq"):
            raise self.error(event.start_mark, f"must be what its tag `!!{tag}` says")
        if len(self.stack) >= MAX_DEPTH:
            raise self.error(event.start_mark, f"must nest at most {MAX_DEPTH} deep")
        node = _Node({} if is_mapping else [], event.start_mark)
        self.add(node)
        self.remember(event.anchor, node)
        self.stack.append((node, []))

    def close(self) -> None:
        """Finish the innermost list or mapping."""
        node, children = self.stack.pop()
        node.value = self.mapping(children) if isinstance(node.value, dict) else children
        node.size = 1 + sum(child.size for child in children)
        node.complete = True

    def mapping(self, children: list[_Node]) -> dict[str, tuple[_Node, _Node]]:
        """Pair keys with values; keys are text and occur once."""
        pairs: dict[str, tuple[_Node, _Node]] = {}
        for key, value in zip(children[::2], children[1::2], strict=True):
            if not isinstance(key.value, str):
                raise self.error(key.mark, "a key must be text", "quote it or remove it", key.text or "")
            if key.value in pairs:
                first = pairs[key.value][0].mark.line + 1
                rule = f"key `{key.value[:60]}` must occur once; it is already on line {first}"
                raise self.error(key.mark, rule, "remove one of the two")
            pairs[key.value] = (key, value)
        return pairs


def _expand(node: _Node, path: KeyPath, source: str, document: Document) -> Any:
    """Turn nodes into plain data and note their places."""
    if len(path) > 2 * MAX_DEPTH:
        raise _error(source, f"must nest at most {MAX_DEPTH} deep", line=node.mark.line + 1)
    document.values[path] = _place(node, source)
    if isinstance(node.value, list):
        return [_expand(child, (*path, index), source, document) for index, child in enumerate(node.value)]
    if isinstance(node.value, dict):
        for name, (key, _) in node.value.items():
            document.keys[(*path, name)] = _place(key, source)
        return {
            name: _expand(value, (*path, name), source, document) for name, (_, value) in node.value.items()
        }
    return node.value


def _place(node: _Node, source: str) -> Place:
    return Place(source=source, line=node.mark.line + 1, column=node.mark.column + 1, text=node.text)


def _error(
    source: str,
    rule: str,
    *,
    line: int | None = None,
    column: int | None = None,
    remedy: str = "",
    given: str = "",
) -> ConfigError:
    fault = Fault(key="", rule=rule, source=source, line=line, column=column, remedy=remedy, given=given)
    return ConfigError([fault])


def _syntax_fault(error: yaml.MarkedYAMLError, source: str) -> Fault:
    """Put PyYAML's words into plain ones for the mistakes people make."""
    problem = " ".join(str(error.problem or error.context or "not valid YAML").split())
    rule, remedy = f"must be valid YAML: {problem}", ""
    if "'\\t'" in problem:
        rule, remedy = "must not indent with a tab", "use spaces"
    elif "mapping values are not allowed" in problem:
        rule, remedy = (
            "must not have a second `: ` in one value",
            "quote the value or check the indentation above",
        )
    elif "could not find expected ':'" in problem:
        rule, remedy = "must be `key: value`", "add `: ` after the key"
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
    return Fault(key="", rule=rule, source=source, line=line, column=column, remedy=remedy)


class _Dumper(yaml.SafeDumper):
    """Quotes text that either YAML 1.1 or 1.2 would read as something else; writes no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write every value out."""
        return True


def _represent_list(dumper: yaml.SafeDumper, data: list[Any]) -> yaml.Node:
    """Lists go on one line."""
    return dumper.represent_sequence(_CORE_TAG + "seq", data, flow_style=True)


_Dumper.add_representer(list, _represent_list)


for _pattern in (_INT, _OCTAL, _HEX, _FLOAT, _INFINITY, _NAN):
    _anchored = re.compile(rf"(?:{_pattern.pattern})\Z")
    _Dumper.add_implicit_resolver(_CORE_TAG + "x-quoted", _anchored, list("-+.0123456789"))


def dump(data: Any) -> str:
    """Write plain data as YAML that `parse` reads back equal."""
    return yaml.dump(
        data, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=110
    )
