"""Who is here: rows of sessions and of clients without one, whatever clients say of themselves."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcp_gateway.actors.edge.present_clients import UsedSession, present_clients
from mcp_gateway.actors.edge.session_table import SessionTable
from mcp_gateway.transports.ports.edge_port import Exchange
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request
from mcp_gateway.transports.protocol.sealed.session import SessionState, UpstreamSession

META = "io.modelcontextprotocol/clientInfo"


def session(key: str, initialize: object = None, **fields: Any) -> SessionState:
    info = {"clientInfo": {"name": "editor", "version": "2"}} if initialize is None else initialize
    servers = (UpstreamSession("demo", "demo#0", None, "2025-06-18"),)
    return SessionState(key, "", "2025-06-18", "", json.dumps(info).encode(), servers, **{"issued_ms": 1_000, **fields})


def exchange(number: int, session: SessionState | None = None, params: bytes = b"{}", **fields: Any) -> Exchange:
    message = Request(b"1", "tools/call", params)
    given = {"kind": RequestKind.REQUEST, "deadline_s": 60.0, "hash_keys": {"ip": "10.0.0.1"}, "message": message, **fields}
    return Exchange(exchange_id=number, transport="websocket", revision="2026-07-28", endpoint="demo", session=session, **given)


def test_a_session_shows_who_it_is_of_and_what_it_has_open() -> None:
    state = session("s1", holder="10.0.0.9")
    waiting = [exchange(1, state), exchange(2, state, kind=RequestKind.STREAM, deadline_s=float("inf"))]
    assert present_clients([UsedSession(state, 2.5), UsedSession(session("s2", holder="10.0.0.9"), 9.0)], waiting, 61_000) == [
        {
            "session": "s1",
            "client": "editor",
            "version": "2",
            "principal": "",
            "address": "10.0.0.1",
            "revision": "2025-06-18",
            "endpoint": "",
            "transports": ["websocket"],
            "streams": 1,
            "calls": 1,
            "servers": 1,
            "age_seconds": 60.0,
            "idle_seconds": 2.5,
        },
        {
            "session": "s2",
            "client": "editor",
            "version": "2",
            "principal": "",
            "address": "10.0.0.9",
            "revision": "2025-06-18",
            "endpoint": "",
            "transports": [],
            "streams": 0,
            "calls": 0,
            "servers": 1,
            "age_seconds": 60.0,
            "idle_seconds": 9.0,
        },
    ]


def test_of_somebody_who_has_logged_in_the_principal_is_no_address() -> None:
    (row,) = present_clients([UsedSession(session("s", holder="principal:iss ann", principal="iss ann"), 0.0)], [], 0)
    assert (row["principal"], row["address"], row["age_seconds"]) == ("iss ann", "", 0.0)


def test_clients_without_a_session_are_one_row_each() -> None:
    params = json.dumps({"_meta": {META: {"name": "agent", "version": "1"}}}).encode()
    waiting = [exchange(1, params=params), exchange(2, params=params), exchange(3), exchange(4, kind=RequestKind.TERMINATE)]
    rows = present_clients([], waiting, 0)
    assert [(row["client"], row["calls"], row["session"], row["endpoint"]) for row in rows] == [
        ("agent", 2, "", "demo"),
        ("", 1, "", "demo"),
    ]


@pytest.mark.parametrize("said", [[], {"clientInfo": 1}, {"clientInfo": {"name": 7, "version": None}}, {"clientInfo": "x" * 999}])
def test_whatever_a_client_says_of_itself_the_others_are_shown(said: object) -> None:
    odd = [exchange(1, params=b'{"_meta": 7}'), exchange(2, params=b"[1]"), exchange(3, params=b'"' + b"x" * 70_000 + b'"')]
    rows = present_clients([UsedSession(session("s", said), 0.0)], odd, 0)
    assert [row["client"] for row in rows] == ["", ""]
    (long,) = present_clients([UsedSession(session("s", {"clientInfo": {"name": "x" * 999}}), 0.0)], [], 0)
    assert len(long["client"]) == 100


def test_a_table_gives_those_used_last_and_no_more_than_asked() -> None:
    table = SessionTable(10, 60.0)
    for number, key in enumerate(("a", "b", "c", "a")):
        table.use(session(key), float(number))
    assert [(state.key, used_s) for state, used_s in table.newest(2)] == [("a", 3.0), ("c", 2.0)]
    assert len(table.newest(99)) == 3
