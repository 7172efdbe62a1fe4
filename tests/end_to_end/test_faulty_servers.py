"""Servers that answer nonsense, break off or stay silent cost a documented error in time, and nobody else anything."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.doubles.scripted_upstreams import EchoUpstream, Garbage, GarbageUpstream, SilentUpstream, send
from tests.end_to_end.raw_http import Answer, ask, ask_modern, open_session, request, tool_call
from tests.end_to_end.running_gateway import RunningGateway
from tests.end_to_end.test_refusals import assert_refused

TIMEOUT_S = 3.0
SOUND_LIMIT_S = 2.6
"""No call to the sound server may take longer: far above what it takes, and below what waiting for a faulty one would cost."""
FAULTS = {garbage.name.lower(): garbage for garbage in Garbage}


@pytest.fixture(scope="module", params=["embedded", "two cells"])
def gateway(request: pytest.FixtureRequest, start_gateway: StartGateway) -> Iterator[RunningGateway]:
    """One backend per fault, one silent, one sound; none is ejected, so that every call meets its fault."""
    sound_methods = ("initialize", "server/discover", "ping")
    with contextlib.ExitStack() as stack:
        servers = {name: stack.enter_context(GarbageUpstream(fault, sound=sound_methods)) for name, fault in FAULTS.items()}
        urls = {name: server.url for name, server in servers.items()}
        urls["silent"] = stack.enter_context(SilentUpstream()).url
        urls["sound"] = stack.enter_context(EchoUpstream()).url
        backends = [{"name": name, "replicas": [url], "request_timeout": TIMEOUT_S} for name, url in urls.items()]
        routes = [{"pattern": f"tools/call/{name}__*", "backend": name, "failure_threshold": 1000} for name in urls]
        with start_gateway(request.param, backends, routes=routes, gateway={"health_check_interval": 60.0}) as gateway:
            yield gateway
            assert gateway.restart_count() == 0


@contextlib.contextmanager
def sound_calls_go_on(gateway: RunningGateway) -> Iterator[None]:
    """Call the sound server all the time; every call must be answered, and soon."""
    took_s: list[float] = []
    failed: list[Answer] = []
    is_over = threading.Event()

    def keep_calling() -> None:
        while not is_over.is_set() or not took_s:
            started_s = time.monotonic()
            answer = ask_modern(gateway.endpoint("sound"), tool_call("echo", {"a": 1}))
            took_s.append(time.monotonic() - started_s)
            if answer.status != 200 or answer.text != '{"a": 1}':
                failed.append(answer)
            is_over.wait(0.01)

    caller = threading.Thread(target=keep_calling)
    caller.start()
    try:
        yield
    finally:
        is_over.set()
        caller.join(20)
    assert failed == []
    assert max(took_s) < SOUND_LIMIT_S


@pytest.mark.parametrize("fault", [*FAULTS, "silent"])
def test_a_faulty_server_costs_its_own_caller_a_clear_error(fault: str, gateway: RunningGateway) -> None:
    with sound_calls_go_on(gateway):
        started_s = time.monotonic()
        answer = ask_modern(gateway.endpoint(), tool_call(f"{fault}__echo", {"a": 1}, request_id=fault))
        took_s = time.monotonic() - started_s
    assert_refused_by_fault(answer, fault)
    assert took_s < TIMEOUT_S + 1
    assert answer.message["error"]["data"]["backend"] == fault


def assert_refused_by_fault(answer: Answer, fault: str) -> None:
    may_time_out = fault in ("silent", "endless_headers", "truncated_json", "truncated_sse", "sse_without_answer")
    reason = answer.reason if may_time_out else "upstream_failed"
    assert reason in ("upstream_failed", "upstream_timeout")
    if fault == "silent":
        assert reason == "upstream_timeout"
    assert_refused_in_any_frame(answer, reason, fault)


def assert_refused_in_any_frame(answer: Answer, reason: str, request_id: str) -> None:
    """An error after a notification has gone out is the last event of its stream; before that it has a status of its own."""
    if answer.headers["content-type"] == "text/event-stream":
        assert (answer.status, answer.message["id"], answer.reason) == (200, request_id, reason)
    else:
        assert_refused(answer, reason, request_id)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_session_survives_the_faults_of_its_server(fault: str, gateway: RunningGateway) -> None:
    endpoint = gateway.endpoint(fault)
    session = open_session(endpoint)
    for number in range(2):
        answer = ask(endpoint, tool_call("echo", {"a": 1}, request_id=f"{fault} {number}"), session)
        assert answer.reason in ("upstream_failed", "upstream_timeout")
        assert answer.message["id"] == f"{fault} {number}"
    assert ask(endpoint, request("ping", request_id="p"), session).message == {"jsonrpc": "2.0", "id": "p", "result": {}}


def test_a_merged_list_holds_what_the_sound_server_offers_and_names_the_rest(gateway: RunningGateway) -> None:
    started_s = time.monotonic()
    listed = ask_modern(gateway.endpoint(), request("tools/list")).message["result"]
    assert time.monotonic() - started_s < TIMEOUT_S + 2
    names = {tool["name"] for tool in listed["tools"]}
    missing = set(listed["_meta"]["io.mcp-gateway/missingBackends"])
    assert (names, missing) == ({"sound__echo"}, {*FAULTS, "silent"})


def test_a_client_may_open_a_session_with_all_of_them_and_use_the_sound_one(gateway: RunningGateway) -> None:
    session = open_session(gateway.endpoint())
    assert ask(gateway.endpoint(), tool_call("sound__echo", {"a": 1}), session).text == '{"a": 1}'


class BusyUpstream(EchoUpstream):
    """Answers calls with a status and the time when to come back."""

    def __init__(self, status: str) -> None:
        super().__init__()
        self._status = status

    async def answer(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if request["method"] != "tools/call":
            await self.answer_correctly(request, writer)
        else:
            await send(writer, b"too much to do", "text/plain", status=f"{self._status}\r\nRetry-After: 7")


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
def test_when_a_server_says_to_come_back_its_clients_read_in_header_and_error(status: str, start_gateway: StartGateway) -> None:
    """Source: RFC 9110, 10.2.3: the word is the server's own; that it failed, and not the gateway, stays a 502."""
    with BusyUpstream(status) as server:
        backends = [{"name": name, "replicas": [server.url]} for name in ("busy", "other")]
        with start_gateway("embedded", backends) as gateway:
            for answer in (
                ask_modern(gateway.endpoint("busy"), tool_call("echo", {"a": 1})),
                ask(gateway.endpoint("busy"), tool_call("echo", {"a": 1}), open_session(gateway.endpoint("busy"))),
                ask_modern(gateway.endpoint(), tool_call("busy__echo", {"a": 1})),
            ):
                data = answer.message["error"]["data"]
                assert (answer.status, data["reason"], answer.headers["retry-after"]) == (502, "upstream_failed", "7")
                assert (data["retry_after"], data["upstream_error"]) == (7.0, "too much to do")
