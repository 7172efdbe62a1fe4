"""Reading Accept. Source: RFC 9110, section 12.5.1."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.downstream.server import accept as accept_module
from mcp_gateway.transports.downstream.server.accept import EVENTS, JSON, names, quality, refuses

CASES = [
    ("", None, None),
    ("*/*", 1, 1),
    ("application/json, text/event-stream", 1, 1),
    ("Application/JSON", 1, None),
    ("application/json;q=0, text/event-stream", 0, 1),
    ("application/json ; Q=0.000 ,text/event-stream;q=0.5", 0, 0.5),
    ("text/*;q=0, text/event-stream, */*;q=0.1", 0.1, 1),
    ("text/event-stream;q=0, */*", 1, 0),
    ("*/*;q=0", 0, 0),
    ("application/*;q=0.3", 0.3, None),
    ("text/html,application/xhtml+xml;q=0.9", None, None),
    ("application/json;charset=utf-8;q=0.2", 0.2, None),
    ("application/json;q=much", 1, None),
]


@pytest.mark.parametrize(("accept", "of_json", "of_events"), CASES)
def test_the_most_specific_range_decides(accept: str, of_json: float | None, of_events: float | None) -> None:
    assert (quality(accept, JSON), quality(accept, EVENTS)) == (of_json, of_events)
    assert (refuses(accept, JSON), refuses(accept, EVENTS)) == (of_json == 0, of_events == 0)


def test_a_long_header_is_read_and_not_kept() -> None:
    before = accept_module._kept_quality.cache_info().currsize
    for number in range(10):
        assert quality(f"{'x/y,' * 1_000}application/json;q=0.{number}", JSON) == number / 10
    assert accept_module._kept_quality.cache_info().currsize == before


def test_anything_is_not_this_very_type() -> None:
    assert names("text/event-stream;q=0.1", EVENTS)
    assert not names("*/*", EVENTS)
    assert not names("text/event-stream;q=0", EVENTS)


@given(st.text(max_size=60))
def test_any_header_is_read(accept: str) -> None:
    found = quality(accept, JSON)
    assert found is None or 0 <= found <= 1
