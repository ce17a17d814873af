"""JSON to frozen dataclasses: a field that is missing, unknown or of another type is refused by its name.

Read types: `str`, `int`, `float`, `bool`, `object` (whatever JSON holds), `X | None`, `Literal`, tuples, mappings with
text keys, points, and dataclasses of these.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import UnionType
from typing import Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from orchestrator.protocol.point import Point

T = TypeVar("T")
_Reader = Callable[[object, str], object]


class Misfit(ValueError):
    """A value is not what its class holds; says where and why."""


class UnknownField(Misfit):
    """A field that the class knows nothing of."""


def read(kind: type[T], data: object) -> T:
    """The value of a class that JSON holds.

    Raises:
        Misfit: It does not hold one.
    """
    value = _reader_of(cast(Hashable, kind))(data, "")
    assert isinstance(value, kind)
    return value


@functools.cache
def _reader_of(hint: Hashable) -> _Reader:
    if hint is object:
        return lambda value, path: value
    if isinstance(hint, type) and hint in (str, bool, int, float):
        return functools.partial(_read_scalar, hint)
    if hint is Point:
        return _read_point
    if isinstance(hint, type) and is_dataclass(hint):
        return _dataclass_reader(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return functools.partial(_read_literal, arguments)
    if origin in (Union, UnionType):
        (inner,) = (each for each in arguments if each is not type(None))
        return functools.partial(_read_optional, _reader_of(inner))
    if origin is tuple:
        return _tuple_reader(arguments)
    assert origin is Mapping, f"{hint}: no such type is read"
    assert arguments[0] is str
    return functools.partial(_read_mapping, _reader_of(arguments[1]))


def _read_scalar(kind: type, value: object, path: str) -> object:
    is_right = type(value) is kind or (kind is float and type(value) is int)
    if not is_right:
        raise Misfit(f"{path} is no {_WORDS[kind]}: {value!r:.80}")
    return value


_WORDS: dict[type, str] = {str: "text", bool: "true or false", int: "whole number", float: "number"}


def _read_literal(values: tuple[object, ...], value: object, path: str) -> object:
    if value not in values:
        raise Misfit(f"{path} is none of {', '.join(map(str, values))}: {value!r:.80}")
    return value


def _read_optional(inner: _Reader, value: object, path: str) -> object:
    return None if value is None else inner(value, path)


def _tuple_reader(arguments: tuple[object, ...]) -> _Reader:
    if arguments[1:] == (Ellipsis,):
        return functools.partial(_read_list, _reader_of(arguments[0]))
    return functools.partial(_read_tuple, tuple(_reader_of(each) for each in arguments))


def _read_list(inner: _Reader, value: object, path: str) -> object:
    if not isinstance(value, (list, tuple)):
        raise Misfit(f"{path} is no list: {value!r:.80}")
    return tuple(inner(item, f"{path}[{place}]") for place, item in enumerate(value))


def _read_tuple(readers: tuple[_Reader, ...], value: object, path: str) -> object:
    if not isinstance(value, (list, tuple)) or len(value) != len(readers):
        raise Misfit(f"{path} is no list of {len(readers)}: {value!r:.80}")
    return tuple(
        reader(item, f"{path}[{place}]")
        for place, (reader, item) in enumerate(zip(readers, value, strict=True))
    )


def _read_mapping(inner: _Reader, value: object, path: str) -> object:
    if not isinstance(value, Mapping):
        raise Misfit(f"{path} is no object: {value!r:.80}")
    return {key: inner(item, f"{path}.{key}") for key, item in value.items()}


def _read_point(value: object, path: str) -> object:
    if not isinstance(value, Mapping):
        raise Misfit(f"{path} is no object: {value!r:.80}")
    return Point(value)


def _dataclass_reader(kind: type) -> _Reader:
    assert is_dataclass(kind)
    hints = get_type_hints(kind)
    readers = {each.name: _reader_of(hints[each.name]) for each in fields(kind)}
    needed = [
        each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING
    ]

    def read_fields(value: object, path: str) -> object:
        if not isinstance(value, Mapping):
            raise Misfit(f"{path or 'it'} is no object: {value!r:.80}")
        within = f"{path}." if path else ""
        if unknown := [name for name in value if name not in readers]:
            raise UnknownField(f"{within}{unknown[0]} is not known")
        if missing := [name for name in needed if name not in value]:
            raise Misfit(f"{within}{missing[0]} is missing")
        return kind(**{name: readers[name](item, within + name) for name, item in value.items()})

    return read_fields
