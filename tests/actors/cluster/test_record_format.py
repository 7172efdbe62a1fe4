"""Records of other versions: more fields are nothing to this one, another form is left alone."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.actors.cluster.record_format import FORMAT, NewerFormat, check_format


@pytest.mark.parametrize("fields", [{}, {"format": FORMAT}, {"format": 0}, {"format": FORMAT, "a field of tomorrow": [1, {}]}])
def test_a_record_of_this_form_or_of_one_before_is_read_whatever_else_it_has(fields: dict[str, Any]) -> None:
    check_format(msgspec.msgpack.encode(fields))


def test_a_record_of_a_newer_form_is_told_apart_whatever_else_it_has() -> None:
    with pytest.raises(NewerFormat, match="a newer version of the gateway"):
        check_format(msgspec.msgpack.encode({"format": FORMAT + 1, "node": 7}))


@given(st.binary(max_size=60))
def test_any_bytes_are_a_record_or_refused_with_the_errors_that_are_named(value: bytes) -> None:
    try:
        check_format(value)
    except (NewerFormat, msgspec.DecodeError):
        return
