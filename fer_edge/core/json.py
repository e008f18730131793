"""JSON to frozen dataclasses and back, by their type hints, with errors that name the field."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import reprlib
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from fer_edge.core.errors import FerEdgeError, InputError

__all__ = ["decode", "encode", "expect", "is_one_of"]

T = TypeVar("T")


@functools.cache
def _type_hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def expect(condition: bool, field: str, got: object, expected: str) -> None:
    """Raise an `InputError` with the message ``field: got ..., expected ...`` unless `condition` holds."""
    if not condition:
        raise InputError(f"{field}: got {reprlib.repr(got)}, expected {expected}")


def is_one_of(got: object, choices: tuple[object, ...]) -> bool:
    """Return whether a value of any type is one of these, of the same type."""
    return any(type(got) is type(each) and bool(got == each) for each in choices)


def decode(kind: type[T], value: Any, *, where: str = "") -> T:
    """Build the dataclass `kind` from parsed JSON.

    Fields without a default are required, unknown keys are refused, and every value must have the hinted type: nested
    dataclasses, `tuple[X, ...]`, `Mapping[str, X]`, `Literal`, `X | None`, str, int, float (finite), bool, Any. A
    nested class that has a `from_json` is built by it.

    Args:
        kind: a dataclass.
        value: the result of `json.loads`.
        where: the field's address in the file, for messages (``"variants[0].encoder"``).

    Raises:
        InputError: a field is missing, unknown or of another type, or the dataclass refuses its value.
    """
    expect(isinstance(value, Mapping), where or "the document", value, "an object")
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}  # type: ignore[arg-type]
    for key in value:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(fields)}"
            raise InputError(f"{_join(where, str(key))}: unknown field{hint}")
    hints = _type_hints(typing.cast("Any", kind))
    arguments = {}
    for name, field in fields.items():
        if name in value:
            arguments[name] = _value(hints[name], value[name], _join(where, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise InputError(f"{_join(where, name)}: missing")
    try:
        return kind(**arguments)
    except FerEdgeError as error:
        raise InputError(_join(where, str(error))) from error


def encode(value: Any) -> Any:
    """Return the JSON form of a dataclass, which `decode` reads back; a `to_json` of its own is used."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return _plain(value)


def _plain(value: Any) -> Any:
    if hasattr(value, "to_json"):
        return value.to_json()
    if dataclasses.is_dataclass(value):
        return encode(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        options = [option for option in arguments if option is not type(None)]
        return None if value is None and len(options) < len(arguments) else _value(options[0], value, where)
    if origin is typing.Literal:
        expect(is_one_of(value, arguments), where, value, "one of " + ", ".join(map(repr, arguments)))
        return value
    if origin is tuple:
        expect(isinstance(value, list), where, value, "a list")
        return tuple(_value(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        expect(isinstance(value, Mapping), where, value, "an object")
        return {key: _value(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if hasattr(hint, "from_json"):
        try:
            return hint.from_json(value)
        except (FerEdgeError, KeyError, TypeError, ValueError) as error:
            raise InputError(_join(where, str(error))) from error
    if dataclasses.is_dataclass(hint):
        return decode(typing.cast("type[Any]", hint), value, where=where)
    return _scalar(hint, value, where)


def _scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is bool:
        expect(isinstance(value, bool), where, value, "true or false")
        return value
    if hint is int:
        expect(isinstance(value, int) and not isinstance(value, bool), where, value, "a whole number")
        return value
    if hint is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        try:
            expect(number and math.isfinite(value), where, value, "a finite number")
        except OverflowError:  # a whole number of more than 308 digits
            expect(False, where, value, "a finite number")
        return float(value)
    if hint is str:
        expect(isinstance(value, str), where, value, "text")
        return value
    raise TypeError(f"{where}: decode cannot build {hint!r}")


def _join(where: str, field: str) -> str:
    return f"{where}.{field}" if where else field
