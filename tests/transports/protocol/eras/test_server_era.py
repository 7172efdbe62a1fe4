"""How a server's era shows in what it answers, and what is believed of it until it is forgotten."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from mcp_gateway.transports.protocol.eras.server_era import ServerEra, may_be_modern
from mcp_gateway.transports.protocol.mcp.jsonrpc import Response
from mcp_gateway.transports.protocol.mcp.revisions import LEGACY_REVISIONS, NEWEST


def answered(outcome: dict[str, Any] | int) -> Response:
    """A result, or an error with this code."""
    if isinstance(outcome, int):
        return Response(b"1", b"", json.dumps({"code": outcome, "message": "m"}).encode())
    return Response(b"1", json.dumps(outcome).encode(), b"")


@pytest.mark.parametrize(
    ("outcome", "http_status", "speaks_modern"),
    [
        ({"supportedVersions": [NEWEST]}, 200, True),
        ({"supportedVersions": ["2025-11-25", NEWEST]}, 200, True),
        ({"supportedVersions": ["2025-11-25"]}, 200, False),
        ({"supportedVersions": "?"}, 200, True),
        ({}, 200, True),
        (-32020, 400, True),
        (-32021, 400, True),
        (-32022, 200, True),
        (-32601, 200, False),
        (-32602, 200, False),
        (-32600, 200, False),
        (-32600, 400, False),
        (-32000, 400, False),
        (-32601, 404, None),
        (-32601, 400, None),
        (-32602, 400, None),
    ],
)
def test_the_era_shows_in_the_answer_to_discovery(
    outcome: dict[str, Any] | int, http_status: int, speaks_modern: bool | None
) -> None:
    """Source: MCP 2026-07-28, basic/transports/stdio and streamable-http, "Backward Compatibility"; None: a handshake tells."""
    era = ServerEra("auto")
    era.observe(answered(outcome), http_status)
    assert era.speaks_modern is speaks_modern
    assert era.takes_handshake


@pytest.mark.parametrize("is_known", [True, False])
def test_an_answer_that_fits_either_era_and_none_at_all_change_nothing(is_known: bool) -> None:
    era = ServerEra("auto")
    era.decide(speaks_modern=is_known)
    era.observe(answered(-32601), 404)
    era.observe(None)
    assert era.speaks_modern is is_known


def test_a_modern_server_may_take_a_handshake_until_it_refuses_one() -> None:
    era = ServerEra("auto")
    assert (era.speaks_modern, era.takes_handshake) == (None, True)
    era.decide(speaks_modern=True)
    assert era.takes_handshake, "it may speak both"
    era.refuse_handshake()
    era.decide(speaks_modern=True)
    assert not era.takes_handshake
    era.decide(speaks_modern=False)
    assert era.takes_handshake


def test_a_legacy_server_that_refuses_the_handshake_is_not_known_any_more() -> None:
    era = ServerEra("auto")
    era.decide(speaks_modern=False)
    era.refuse_handshake()
    assert (era.speaks_modern, era.takes_handshake) == (None, True)


def test_what_is_forgotten_is_found_out_anew() -> None:
    era = ServerEra("auto")
    era.decide(speaks_modern=True)
    era.refuse_handshake()
    era.forget()
    assert (era.speaks_modern, era.takes_handshake) == (None, True)


@pytest.mark.parametrize("protocol", [*LEGACY_REVISIONS, NEWEST])
def test_a_configured_protocol_is_believed_whatever_the_server_says(protocol: str) -> None:
    era, is_modern = ServerEra(protocol), protocol == NEWEST
    for outcome in (answered({"supportedVersions": [NEWEST]}), answered(-32601)):
        era.observe(outcome)
        era.decide(speaks_modern=not is_modern)
        era.refuse_handshake()
        era.forget()
        assert (era.speaks_modern, era.takes_handshake) == (is_modern, not is_modern)


@pytest.mark.parametrize(
    ("error", "is_modern"),
    [*((code, True) for code in (-32020, -32021, -32022, -32601, -32602)), (-32600, False), (-32000, False), (None, False)],
)
def test_a_refusal_in_words_that_no_modern_server_has_shows_a_legacy_one(error: int | None, is_modern: bool) -> None:
    assert may_be_modern(b"" if error is None else answered(error).error) is is_modern


@given(st.binary(), st.sampled_from([200, 400, 404]))
def test_no_result_and_no_error_is_too_strange_to_be_observed(content: bytes, http_status: int) -> None:
    era = ServerEra("auto")
    era.observe(Response(b"1", content, b""), http_status)
    era.observe(Response(b"1", b"", content), http_status)
    assert era.speaks_modern in (True, False, None)


@pytest.mark.parametrize(
    ("versions", "only_speaks"),
    [
        (["2030-01-01", "2031-01-01"], ("2030-01-01", "2031-01-01")),
        (["2030-01-01", NEWEST], ()),
        (["2030-01-01", "2025-11-25"], ()),
        ([], ()),
        ("?", ()),
    ],
)
def test_a_server_that_lists_nothing_that_is_known_is_remembered_until_it_is_forgotten(
    versions: Any, only_speaks: tuple[str, ...]
) -> None:
    era = ServerEra("auto")
    era.observe(answered({"supportedVersions": versions}))
    assert era.only_speaks == only_speaks
    era.forget()
    assert era.only_speaks == ()
