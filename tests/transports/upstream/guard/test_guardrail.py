"""What a guard is asked, and what follows from its answer or its silence."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from mcp_gateway.transports.ports.guard_port import Guarded, GuardRefused, Phase
from mcp_gateway.transports.upstream.guard.guardrail import Guardrail, guard_of


def guarded(phase: Phase = Phase.BEFORE, value: bytes = b'{"n":1.50}') -> Guarded:
    return Guarded(phase=phase, backend="b", tool="t", user="i ann", value=value)


def judged(answer: Any, settings: dict[str, Any] | None = None, asked: list[Any] | None = None, **about: Any) -> bytes:
    async def ask(question: dict[str, Any]) -> Any:
        if asked is not None:
            asked.append(question)
        if isinstance(answer, Exception):
            raise answer
        if answer == "silence":
            await asyncio.sleep(60)
        return answer

    return asyncio.run(Guardrail({"deadline": 0.05, **(settings or {})}, ask).judge(guarded(**about)))


def test_what_is_allowed_is_the_very_same() -> None:
    asked: list[Any] = []
    value = b'{"n": 1.50}'
    assert judged({"action": "allow"}, asked=asked, value=value) is value
    assert asked == [{"phase": "before", "backend": "b", "tool": "t", "user": "i ann", "arguments": {"n": 1.5}}]


def test_what_is_replaced_is_the_guards() -> None:
    assert judged({"action": "replace", "arguments": {"a": 1}}) == b'{"a":1}'
    assert judged({"action": "replace", "result": {"content": []}}, phase=Phase.AFTER) == b'{"content":[]}'


@pytest.mark.parametrize(("reason", "text"), [("not you", "not you"), ("x" * 600, "x" * 500), (None, "the guard refuses it")])
def test_what_is_refused_has_the_guards_reason(reason: str | None, text: str) -> None:
    with pytest.raises(GuardRefused, match=f"^{text}$"):
        judged({"action": "refuse", "reason": reason})


ODD = [None, {}, [], {"action": "permit"}, {"action": "replace"}, {"action": "replace", "result": {}}, ValueError("x"), "silence"]


@pytest.mark.parametrize("answer", ODD)
def test_without_an_answer_nothing_passes_or_everything(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(GuardRefused, match="no answer"), caplog.at_level(logging.ERROR):
        judged(answer)
    assert len(caplog.records) == 1
    assert judged(answer, {"fail": "open"}) == b'{"n":1.50}'


def test_a_phase_that_it_is_not_for_is_not_asked_about() -> None:
    assert judged(ValueError("never asked"), {"phases": ["after"]}) == b'{"n":1.50}'


def plain(question: dict[str, Any]) -> dict[str, Any]:
    assert threading.current_thread() is not threading.main_thread()
    return {"action": "refuse", "reason": f"plain {question['tool']}"}


async def coroutine(question: dict[str, Any]) -> dict[str, Any]:
    return {"action": "refuse", "reason": f"coroutine {question['tool']}"}


@pytest.mark.parametrize("name", ["plain", "coroutine"])
def test_a_function_of_this_process_is_asked(name: str) -> None:
    guard = guard_of({"guard": {"callable": f"{__name__}:{name}"}})
    assert guard is not None
    with pytest.raises(GuardRefused, match=f"{name} t"):
        asyncio.run(guard.judge(guarded()))


@pytest.mark.parametrize("name", ["no.such.module:f", f"{__name__}:nothing"])
def test_a_function_that_is_not_there_lets_nothing_pass(name: str) -> None:
    guard = guard_of({"guard": {"callable": name}})
    assert guard is not None
    with pytest.raises(GuardRefused, match="no answer"):
        asyncio.run(guard.judge(guarded()))


def test_without_the_setting_there_is_no_guard() -> None:
    assert guard_of({}) is None


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps({"action": "refuse", "reason": f"over HTTP {question['arguments']}"}).encode()
        self.send_response(200 if self.path == "/ok" else 500)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Not to the terminal."""


@pytest.fixture
def url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(("path", "text"), [("/ok", "over HTTP"), ("/broken", "no answer")])
def test_a_program_is_asked_over_http(url: str, path: str, text: str) -> None:
    guard = guard_of({"guard": {"url": url + path, "deadline": 5.0}})
    assert guard is not None
    with pytest.raises(GuardRefused, match=text):
        asyncio.run(guard.judge(guarded()))
