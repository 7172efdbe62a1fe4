"""What the benchmark measures answers rightly, in both eras, and is gone afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import mcp_types.methods as official
import psutil
import pytest

from mcp_gateway.scripts.benchmark.bench_candidates import CandidateFailed, Running, candidates, free_port
from mcp_gateway.scripts.benchmark.bench_load import CheckedClient, WrongAnswer, wrk_script
from mcp_gateway.scripts.benchmark.fast_backend import answer, serve_lines
from tests.doubles.scripted_upstreams import EchoUpstream

DIRECT, PROXY = candidates()[:2]


def asked(method: str, params: dict[str, Any], *, modern: bool) -> tuple[bytes, dict[str, Any]]:
    """(status line and headers, body) of the fast backend's answer."""
    request = json.dumps({"jsonrpc": "2.0", "id": "a", "method": method, "params": params}).encode()
    head, body = answer(request, modern=modern).split(b"\r\n\r\n", 1)
    return head, json.loads(body)


@pytest.mark.parametrize(
    ("method", "eras"),
    [
        ("tools/list", "both"),
        ("tools/call", "both"),
        ("resources/list", "both"),
        ("prompts/list", "both"),
        ("initialize", "legacy"),
        ("ping", "legacy"),
        ("server/discover", "modern"),
    ],
)
def test_the_fast_backends_results_pass_the_official_models(method: str, eras: str) -> None:
    params = {"name": "echo", "arguments": {"message": "é"}, "protocolVersion": "2025-11-25"}
    for modern in (True, False):
        if eras in ("both", "modern" if modern else "legacy"):
            _, body = asked(method, params, modern=modern)
            official.validate_server_result(method, "2026-07-28" if modern else "2025-11-25", body["result"])
            assert body["id"] == "a"


def test_the_fast_backend_refuses_what_it_does_not_know() -> None:
    assert asked("no/such", {}, modern=True)[0].startswith(b"HTTP/1.1 404 ")
    assert asked("no/such", {}, modern=False)[1]["error"]["code"] == -32601
    assert answer(b"{oops", modern=False).startswith(b"HTTP/1.1 400 ")
    assert answer(b'{"jsonrpc":"2.0","method":"notifications/initialized"}', modern=False).startswith(b"HTTP/1.1 202 ")


def test_the_fast_backend_says_the_same_over_stdio_a_message_a_line() -> None:
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
    requests = [
        {"method": "tools/call", "id": "a", "params": {"name": "echo", "arguments": {"message": "é"}, "_meta": meta}},
        {"method": "notifications/initialized"},
        {"method": "tools/call", "id": 2, "params": {"name": "progress", "arguments": {"count": 2}}},
    ]
    written: list[bytes] = []
    serve_lines((json.dumps(each, separators=(",", ":")).encode() + b"\n" for each in requests), written.append)
    said = [json.loads(line) for line in written]
    assert [each.get("id", each.get("method")) for each in said] == ["a", "notifications/progress", "notifications/progress", 2]
    assert said[0]["result"] == {"content": [{"type": "text", "text": "é"}], "isError": False, "resultType": "complete"}
    assert "resultType" not in said[3]["result"]


@pytest.mark.parametrize("legacy", [False, True])
def test_backend_and_bare_proxy_answer_rightly_and_end_when_stopped(tmp_path: Path, legacy: bool) -> None:
    backend = Running(DIRECT, 0, tmp_path / "backend")
    try:
        proxy = Running(PROXY, backend.port, tmp_path / "proxy")
        try:
            backend.check(legacy=legacy)
            proxy.check(legacy=legacy)
            assert proxy.pss_bytes() > backend.pss_bytes() > 1e6
            assert 0 < proxy.startup_s < 10
        finally:
            assert proxy.stop() == []
    finally:
        assert backend.stop() == []
    assert not psutil.pid_exists(proxy.pid)
    assert not psutil.pid_exists(backend.pid)


def test_a_candidate_that_cannot_start_says_why(tmp_path: Path) -> None:
    broken = attrs.evolve(DIRECT, command=lambda *_: ["sh", "-c", "echo no such luck; exit 3"])
    with pytest.raises(CandidateFailed, match="ended with code 3: no such luck"):
        Running(broken, 0, tmp_path)


def test_no_two_candidates_are_given_the_same_port() -> None:
    assert len({free_port() for _ in range(2000)}) == 2000


def test_a_wrong_answer_is_noticed() -> None:
    with EchoUpstream() as upstream, CheckedClient(upstream.port, legacy=True) as client:
        client.open_session()
        with pytest.raises(WrongAnswer, match="tools/call check-2: 200"):
            client.call_echo("this server answers with all arguments instead")


def test_the_load_uses_each_id_once_and_all_its_sessions() -> None:
    script = wrk_script(legacy=True, session_ids=["s-1", "s-2"])
    assert 'local sessions = {"s-1", "s-2"}' in script
    assert 'wrk.headers["MCP-Protocol-Version"] = "2025-11-25"' in script
    assert "_meta" not in script
    assert 'wrk.headers["Mcp-Method"] = "tools/call"' in wrk_script(legacy=False, session_ids=[])
