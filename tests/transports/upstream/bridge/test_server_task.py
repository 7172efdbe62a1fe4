"""A modern server's own task, followed for somebody who does not poll it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.upstream_port import UpstreamError
from mcp_gateway.transports.protocol.eras.questions import MOST_OPEN_QUESTIONS
from mcp_gateway.transports.protocol.mcp.jsonrpc import Response
from mcp_gateway.transports.upstream.bridge.server_task import followed
from tests.doubles.patience import on_loop

CREATED = {"taskId": "T1", "status": "working", "pollIntervalMs": 1}
ELICIT = {"method": "elicitation/create", "params": {"message": "?"}}
DONE = {"taskId": "T1", "status": "completed", "result": {"content": []}}


class Server:
    """Shows its task as `views` say, one after the other, the last one for ever. asked: every request about it."""

    def __init__(self, *views: Mapping[str, Any]) -> None:
        self.views = list(views)
        self.asked: list[tuple[str, Any]] = []
        self.refuses_updates = False
        self.questions: list[str] = []

    async def ask_about(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        self.asked.append((method, json.loads(msgspec.json.encode(params))))
        if method == "tasks/update" and self.refuses_updates:
            raise UpstreamError(Fate.REFUSED, "the server has refused tasks/update")
        if method != "tasks/get":
            return {}
        return {**CREATED, **(self.views.pop(0) if len(self.views) > 1 else self.views[0])}

    async def ask(self, method: str, params: bytes) -> Response:
        self.questions.append(method)
        return Response(b"0", b"" if method == "roots/list" else b'{"action":"accept"}', b'{"code":1}')


def test_it_is_polled_until_it_is_over_and_a_question_is_put_once() -> None:
    async def body() -> None:
        asking = {"status": "input_required", "inputRequests": {"q": ELICIT}}
        server = Server({}, asking, asking, DONE)
        assert (await followed(CREATED, server.ask, server.ask_about))["result"] == {"content": []}
        assert server.questions == ["elicitation/create"]
        updates = [params for method, params in server.asked if method == "tasks/update"]
        assert updates == [{"taskId": "T1", "inputResponses": {"q": {"action": "accept"}}}]

    on_loop(body)


def test_an_answer_without_a_form_for_it_cancels_the_task() -> None:
    async def body() -> None:
        server = Server({"inputRequests": {"r": {"method": "roots/list"}}}, {}, {"status": "cancelled"})
        assert (await followed(CREATED, server.ask, server.ask_about))["status"] == "cancelled"
        assert ("tasks/cancel", {"taskId": "T1"}) in server.asked

    on_loop(body)


def test_an_answer_that_the_server_refuses_ends_it() -> None:
    async def body() -> None:
        server = Server({"inputRequests": {"q": ELICIT}})
        server.refuses_updates = True
        with pytest.raises(UpstreamError, match="refused tasks/update"):
            await followed(CREATED, server.ask, server.ask_about)

    on_loop(body)


def test_who_gives_up_cancels_the_task_at_its_server() -> None:
    async def body() -> None:
        server = Server({})
        following = asyncio.ensure_future(followed(CREATED, server.ask, server.ask_about))
        await asyncio.sleep(0.1)
        following.cancel()
        await asyncio.wait({following})
        assert server.asked[-1] == ("tasks/cancel", {"taskId": "T1"})

    on_loop(body)


@pytest.mark.parametrize(("wanted", "put"), [(MOST_OPEN_QUESTIONS, MOST_OPEN_QUESTIONS), (200, MOST_OPEN_QUESTIONS)])
def test_no_more_questions_are_open_than_one_call_may_have(wanted: int, put: int) -> None:
    async def body() -> None:
        server = Server({"inputRequests": {str(number): ELICIT for number in range(wanted)}})

        async def never(method: str, params: bytes) -> Response:
            server.questions.append(method)
            await asyncio.Event().wait()
            raise AssertionError

        following = asyncio.ensure_future(followed(CREATED, never, server.ask_about))
        await asyncio.sleep(0.3)
        following.cancel()
        await asyncio.wait({following})
        assert len(server.questions) == put

    on_loop(body)
