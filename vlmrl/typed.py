"""Plain values to dataclasses, every mistake being a `UserError` that names the key.

Configurations come from yaml files and command lines as mappings of plain values. `typed` checks such a mapping against
a dataclass, whose type hints are the schema; limits of numbers are written into the hints as well.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from vlmrl.errors import UserError, did_you_mean, unknown

T = TypeVar("T")


class Range(NamedTuple):
    """Limits of a number, for use in a hint: `Annotated[float, Range(0, 1)]`.

    Attributes:
        low: Least value.
        high: Greatest value.
        open: Whether `low` itself is refused.
    """

    low: float = -math.inf
    high: float = math.inf
    open: bool = False

    def __contains__(self, value: object) -> bool:
        assert isinstance(value, int | float)
        return (value > self.low if self.open else value >= self.low) and value <= self.high

    def __str__(self) -> str:
        if self.high < math.inf:
            return f"{self.low:g} to {self.high:g}"
        return f"greater than {self.low:g}" if self.open else f"at least {self.low:g}"


Count = Annotated[int, Range(1)]  # how many of something there are, where none makes no sense
Natural = Annotated[int, Range(0)]
Positive = Annotated[float, Range(0, open=True)]
Share = Annotated[float, Range(0, 1)]


def typed(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Make a dataclass from a mapping.

    Numbers may be written as their type allows without loss: 1e6 is an integer, 1 is a float, 0.1 is a string. One
    string will do for a tuple of strings. Dataclasses in dataclasses are mappings in mappings.

    Args:
        cls: The dataclass.
        values: {field: value}. A field with a default may be missing.
        where: Path of the mapping, such as "agent"; keys are named after it, "agent.gamma".

    Raises:
        UserError: A key is unknown or missing, or a value has the wrong type or is out of range.
    """
    assert dataclasses.is_dataclass(cls)
    hints = get_type_hints(cls, include_extras=True)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for key in values:
        if key not in fields:
            raise unknown(f"{where} key".lstrip(), str(key), fields)
    given: dict[str, Any] = {}
    for name, field in fields.items():
        if name in values:
            given[name] = _convert(values[name], hints[name], _join(where, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(f"{_join(where, name)} is missing; give it {_describe(hints[name])}.")
    return cls(**given)


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _convert(value: Any, hint: Any, path: str) -> Any:
    """Return `value` as `hint` wants it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin is Annotated:
        try:
            number = _convert(value, arguments[0], path)
        except UserError:
            raise _wrong(value, hint, path) from None  # the same, with the limits
        if any(isinstance(limit, Range) and number not in limit for limit in arguments[1:]):
            raise _wrong(value, hint, path)
        return number
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (inner,) = (argument for argument in arguments if argument is not type(None))  # only "X or None" is a schema
        return _convert(value, inner, path)
    if origin is Literal:
        if value in arguments:
            return value
        raise UserError(
            f"{path}={value} is not one of {_describe(hint)}.{did_you_mean(str(value), map(str, arguments))}"
        )
    if dataclasses.is_dataclass(hint):
        if isinstance(value, hint):  # type: ignore[arg-type]
            return value
        if not isinstance(value, Mapping):
            raise _wrong(value, hint, path)
        return typed(hint, value, path)  # type: ignore[arg-type]
    if origin is tuple:
        if isinstance(value, str) and arguments[0] is str:
            value = [value]
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise _wrong(value, hint, path)
        return tuple(_convert(item, arguments[0], f"{path}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise _wrong(value, hint, path)
        return {str(key): _convert(item, arguments[1], _join(path, str(key))) for key, item in value.items()}
    return _convert_scalar(value, hint, path)


def _convert_scalar(value: Any, hint: type, path: str) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and is_number and math.isfinite(value) and value == int(value):
        return int(value)
    if hint is float and is_number and math.isfinite(value):
        return float(value)
    if hint is str and (isinstance(value, str) or is_number):
        return str(value)
    raise _wrong(value, hint, path)


def _wrong(value: Any, hint: Any, path: str) -> UserError:
    shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return UserError(f"{path} is {shown}; it must be {_describe(hint)}.")


def _describe(hint: Any) -> str:
    """Say in words what a hint allows."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return ", ".join([_describe(arguments[0]), *map(str, arguments[1:])])
    if origin in (Union, types.UnionType):
        return " or ".join("null" if argument is type(None) else _describe(argument) for argument in arguments)
    if origin is Literal:
        return ", ".join(map(str, arguments))
    if origin is tuple:
        return f"a list, each entry {_describe(arguments[0])}"
    if origin is dict or dataclasses.is_dataclass(hint):
        return "keys with values"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return words.get(hint, "a value")
