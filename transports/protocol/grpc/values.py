"""JSON as `google.protobuf.Struct`, and back, without loss or not at all.

Source: google/protobuf/struct.proto; RFC 8259.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.struct_pb2 import ListValue, Struct, Value

DEEPEST: Final = 30
"""Objects and lists in each other: parsers of Protocol Buffers stop at 100 messages in each other; an object takes three."""

MOST_VALUES: Final = 100_000
"""Of one message: a few bytes make a value of a hundred, and all are read at one go. Ours."""

_LARGEST_INTEGER: Final = 2**53
"""Numbers of a Struct are doubles: larger integers would become others."""


class CannotCross(Exception):
    """Something has no place on the other side; the text says what, for whoever has sent it."""


class Budget:
    """Counts the values of one message."""

    def __init__(self, most: int = MOST_VALUES) -> None:
        self._left = most

    def take(self) -> None:
        """Raises: CannotCross"""
        self._left -= 1
        if self._left < 0:
            raise CannotCross(f"it has more than {MOST_VALUES} values")


def fill_struct(struct: Struct, values: Mapping[str, Any], budget: Budget, depth: int = 0) -> None:
    """Raises: CannotCross; TypeError and ValueError for what is no JSON."""
    _check_depth(depth)
    struct.SetInParent()
    for name, value in values.items():
        _fill_value(struct.fields[name], value, budget, depth + 1)


def _fill_value(target: Value, value: Any, budget: Budget, depth: int) -> None:
    budget.take()
    match value:
        case None:
            target.null_value = 0
        case bool():
            target.bool_value = value
        case int() | float():
            if isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
                raise CannotCross("gRPC has no exact form of an integer beyond 2 to the 53rd: write it as a string")
            target.number_value = value
        case str():
            target.string_value = value
        case dict():
            fill_struct(target.struct_value, value, budget, depth)
        case list():
            _fill_list(target.list_value, value, budget, depth)
        case _:
            raise TypeError(f"{type(value).__name__} is no JSON")


def _fill_list(target: ListValue, values: list[Any], budget: Budget, depth: int) -> None:
    _check_depth(depth)
    target.SetInParent()
    for value in values:
        _fill_value(target.values.add(), value, budget, depth + 1)


def _check_depth(depth: int) -> None:
    if depth >= DEEPEST:
        raise CannotCross(f"gRPC takes at most {DEEPEST} objects and lists in each other")


def object_of(struct: Struct, budget: Budget) -> dict[str, Any]:
    """Raises: CannotCross for numbers that JSON does not have."""
    return {name: _value_of(value, budget) for name, value in struct.fields.items()}


def _value_of(value: Value, budget: Budget) -> Any:
    budget.take()
    match value.WhichOneof("kind"):
        case "number_value":
            return number_of(value.number_value)
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return object_of(value.struct_value, budget)
        case "list_value":
            return [_value_of(each, budget) for each in value.list_value.values]
        case _:  # null, and a value without any kind
            return None


def number_of(number: float) -> int | float:
    """As JSON writes it: whole numbers without a fraction, for readers that tell integers apart."""
    if isinstance(number, int):
        return number
    if not math.isfinite(number):
        raise CannotCross(f"JSON has no {number}")
    return int(number) if number.is_integer() and abs(number) <= _LARGEST_INTEGER else number
