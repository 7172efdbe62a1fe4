from __future__ import annotations

import math
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct, Value
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.grpc.values import DEEPEST, Budget, CannotCross, fill_struct, number_of, object_of

_TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
_SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | _TEXT
_JSON = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3), max_leaves=12
)


def there_and_back(values: dict[str, Any]) -> dict[str, Any]:
    struct = Struct()
    fill_struct(struct, values, Budget())
    return object_of(Struct.FromString(struct.SerializeToString()), Budget())


@given(st.dictionaries(_TEXT, _JSON, max_size=4))
def test_json_comes_back_as_it_was(values: dict[str, Any]) -> None:
    assert there_and_back(values) == values


def test_a_whole_number_comes_back_without_a_fraction() -> None:
    assert [type(value) for value in there_and_back({"n": 3}).values()] == [int]


@pytest.mark.parametrize("number", [2**53 + 1, -(2**53) - 1, 2**64])
def test_an_integer_that_would_become_another_one_is_refused(number: int) -> None:
    with pytest.raises(CannotCross, match="write it as a string"):
        there_and_back({"n": [number]})


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_numbers_that_json_does_not_have_are_refused(number: float) -> None:
    struct = Struct(fields={"n": Value(number_value=number)})
    with pytest.raises(CannotCross, match="JSON has no"):
        object_of(struct, Budget())


def nested(depth: int, opening: str) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value} if opening == "{" else [value]
    return value


@pytest.mark.parametrize("opening", "{[")
def test_what_is_nested_as_deep_as_parsers_take_crosses_and_deeper_does_not(opening: str) -> None:
    within = {"a": nested(DEEPEST - 1, opening)}
    assert there_and_back(within) == within
    with pytest.raises(CannotCross, match="in each other"):
        there_and_back({"a": nested(DEEPEST, opening)})


def test_as_many_values_as_the_budget_has_cross_and_one_more_does_not() -> None:
    fill_struct(Struct(), {"a": [1, 2]}, Budget(3))
    with pytest.raises(CannotCross, match="values"):
        fill_struct(Struct(), {"a": [1, 2, 3]}, Budget(3))
    with pytest.raises(CannotCross, match="values"):
        object_of(Struct(fields={"a": Value(), "b": Value()}), Budget(1))


def test_a_value_of_no_kind_is_null() -> None:
    assert object_of(Struct(fields={"a": Value()}), Budget()) == {"a": None}


def test_numbers_of_python_stay_what_they_are_where_they_are_integers() -> None:
    assert (number_of(2**60), number_of(1e300), number_of(2.0)) == (2**60, 1e300, 2)
