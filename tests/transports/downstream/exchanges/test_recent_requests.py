"""The newest requests are shown with what people look for, and hold no large message."""

from __future__ import annotations

import json

import pytest

from mcp_gateway.transports.downstream.exchanges import recent_requests
from mcp_gateway.transports.downstream.exchanges.recent_requests import MOST_KEPT, Ended, RecentRequests
from mcp_gateway.transports.ports.edge_port import Exchange
from mcp_gateway.transports.ports.hash_keys import PRINCIPAL
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request

WELL = Ended(backend="files", outcome="ok", status=200, duration_s=0.25, upstream_s=0.2)


def exchange(number: int, params: bytes = b"{}") -> Exchange:
    return Exchange(
        exchange_id=number,
        transport="streamable_http",
        revision="2026-07-28",
        endpoint="",
        kind=RequestKind.REQUEST,
        message=Request(b"1", "tools/call", params),
        target=f"tools/call/tool-{number}",
        hash_keys={"ip": "10.0.0.1", PRINCIPAL: "https://id.example ada"},
        deadline_s=1.0,
    )


def test_a_row_says_what_was_asked_by_whom_and_how_it_ended() -> None:
    recent = RecentRequests("cell/1")
    params = {"_meta": {"io.modelcontextprotocol/clientInfo": {"name": "editor", "version": "1"}}}
    recent.note(exchange(7, json.dumps(params).encode()), WELL, "0af7")
    recent.note(exchange(8), Ended(backend="", outcome="no_backend", status=503, duration_s=0.1, upstream_s=0, text="none"), None)
    refused, well = recent.shown()
    assert (refused["id"], refused["outcome"], refused["text"], refused["client"]) == ("cell/1#8", "no_backend", "none", "")
    assert well.pop("at") > 1_700_000_000_000
    assert well == {
        "id": "cell/1#7",
        "target": "tools/call/tool-7",
        "transport": "streamable_http",
        "revision": "2026-07-28",
        "client": "editor",
        "principal": "https://id.example ada",
        "address": "10.0.0.1",
        "backend": "files",
        "outcome": "ok",
        "status": 200,
        "text": "",
        "duration_s": 0.25,
        "upstream_s": 0.2,
        "trace_id": "0af7",
    }


def test_only_so_many_are_kept_and_of_a_large_message_nothing() -> None:
    recent = RecentRequests("cell/0")
    info = b'{"_meta": {"io.modelcontextprotocol/clientInfo": {"name": "editor"}}, "filling": "%b"}'
    for number, filling in ((1, b"x"), (2, b"x" * 4_000)):
        recent.note(exchange(number, info % filling), WELL, None)
    assert [row["client"] for row in recent.shown()] == ["", "editor"]
    for number in range(MOST_KEPT + 5):
        recent.note(exchange(number), WELL, None)
    ids = [row["id"] for row in recent.shown()]
    assert (len(ids), ids[0], ids[-1]) == (MOST_KEPT, f"cell/0#{MOST_KEPT + 4}", "cell/0#5")


def test_the_last_failure_of_each_server_outlives_what_comes_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_requests, "MOST_FAILURES", 2)
    recent = RecentRequests("cell/0")

    def fail(number: int, backend: str, outcome: str) -> None:
        recent.note(exchange(number), Ended(backend, outcome, 502, 0.1, 0.1, f"text {number}"), None)

    fail(1, "files", "upstream_failed")
    fail(2, "files", "upstream_timeout")
    fail(3, "files", "circuit_open")
    fail(4, "mail", "invalid_params")
    for number in range(MOST_KEPT + 5):
        recent.note(exchange(number + 10), WELL, None)
    assert {backend: row["text"] for backend, row in recent.failures().items()} == {"files": "text 2"}
    for number, backend in enumerate(("mail", "third", "files"), 500):
        fail(number, backend, "upstream_failed")
    assert {backend: row["text"] for backend, row in recent.failures().items()} == {"files": "text 502", "mail": "text 500"}
