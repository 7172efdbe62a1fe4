"""A wire that keeps what its server lets it keep: asked once for all, asked again when something has changed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.hash_keys import PRINCIPAL
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer, UpstreamError, UpstreamRequest
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request, Response
from mcp_gateway.transports.upstream.cache.cached_conversation import CachedConversation
from tests.doubles.patience import patience
from tests.doubles.scripted_wire import ScriptedWire, settle

PUBLIC = b'{"resultType":"complete","tools":[],"ttlMs":60000,"cacheScope":"public"}'
PRIVATE = PUBLIC.replace(b"public", b"private")


class Bench:
    def __init__(self) -> None:
        self.wire = ScriptedWire()
        self.now_s = 100.0
        self.cached = CachedConversation(self.wire, lambda: self.now_s)

    def ask(
        self, request_id: bytes = b"1", method: str = "tools/list", params: bytes = b"{}", **how: Any
    ) -> asyncio.Task[UpstreamAnswer]:
        values: dict[str, Any] = {"kind": RequestKind.REQUEST, "revision": "2026-07-28", "timeout_s": 30.0, **how}
        request = UpstreamRequest(message=Request(request_id, method, params), **values)
        return asyncio.ensure_future(self.cached.exchange(request, ignore))

    @property
    def listening(self) -> list[Any]:
        """Subscriptions of the cache's own that are open."""
        return [each for each in self.wire.open if each.request.kind is RequestKind.STREAM]

    @property
    def asked(self) -> list[Any]:
        """Requests that have reached the server."""
        return [each for each in self.wire.exchanges if each.request.kind is RequestKind.REQUEST]


async def ignore(message: Message | None, event_id: str | None) -> None:
    """Lists have no events."""


def on_loop(body: Callable[[Bench], Awaitable[None]]) -> None:
    async def run() -> None:
        async with patience():
            bench = Bench()
            await body(bench)
            await bench.cached.close()
            await settle()
            assert bench.wire.open == [] or all(each.is_cancelled for each in bench.wire.open)

    asyncio.run(run())


async def fill(bench: Bench, result: bytes = PUBLIC, **how: Any) -> None:
    task = bench.ask(**how)
    await settle()
    bench.asked[-1].answer(result)
    await task
    await settle()


def test_a_kept_result_is_served_under_each_clients_own_id_without_the_server() -> None:
    async def body(bench: Bench) -> None:
        await fill(bench)
        bench.now_s += 10
        answer = await bench.ask(b'"mine"')
        assert answer.response is not None
        assert (answer.status, answer.response.id) == (200, b'"mine"')
        assert json.loads(answer.response.result)["ttlMs"] == 50_000
        assert len(bench.asked) == 1
        bench.now_s += 50
        await fill(bench)
        assert len(bench.asked) == 2

    on_loop(body)


def test_clients_that_want_the_same_at_once_cost_one_request() -> None:
    async def body(bench: Bench) -> None:
        tasks = [bench.ask(b"%d" % number) for number in range(20)]
        await settle()
        (exchange,) = bench.asked
        exchange.answer(b'{"resultType":"complete","tools":[],"ttlMs":0,"cacheScope":"public"}')  # not even kept
        answers = await asyncio.gather(*tasks)
        assert [answer.response.id for answer in answers if answer.response] == [b"%d" % number for number in range(20)]

    on_loop(body)


def test_the_client_that_asked_first_may_leave_without_harm_to_the_others() -> None:
    async def body(bench: Bench) -> None:
        first, second = bench.ask(b"1"), bench.ask(b"2")
        await settle()
        first.cancel()
        await settle()
        (exchange,) = bench.asked
        assert not exchange.is_cancelled
        exchange.answer(PUBLIC)
        assert (await second).response is not None
        # The last one that leaves takes the request with it.
        third = bench.ask(b"3", "prompts/list")
        await settle()
        third.cancel()
        await settle()
        assert bench.asked[-1].is_cancelled

    on_loop(body)


def test_a_failure_is_told_to_all_and_kept_by_nobody() -> None:
    async def body(bench: Bench) -> None:
        tasks = [bench.ask(b"%d" % number) for number in range(3)]
        await settle()
        bench.asked[0].fail(UpstreamError(Fate.BROKEN, "down"))
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [str(each) for each in results] == ["down"] * 3
        await fill(bench)
        assert len(bench.asked) == 2

    on_loop(body)


def test_a_private_result_is_never_given_to_another_user() -> None:
    async def body(bench: Bench) -> None:
        ada = bench.ask(hash_keys={PRINCIPAL: "ada"})
        bob = bench.ask(hash_keys={PRINCIPAL: "bob"})
        await settle()
        assert len(bench.asked) == 1  # bob waits to see whether what comes is for everybody
        bench.asked[0].answer(PRIVATE.replace(b"[]", b'["ada"]'))
        await ada
        await settle()
        bench.asked[1].answer(PRIVATE.replace(b"[]", b'["bob"]'))
        for user, task in (("ada", bench.ask(hash_keys={PRINCIPAL: "ada"})), ("bob", bob)):
            answer = await task
            assert answer.response is not None
            assert json.loads(answer.response.result)["tools"] == [user]
        assert len(bench.asked) == 2

    on_loop(body)


@pytest.mark.parametrize("says", [{}, {"user": "ada"}])
def test_a_private_result_is_shared_by_nobody_whose_name_is_not_known(says: dict[str, str]) -> None:
    """Neither later nor at the same time; who says the same of itself is not known to be the same."""

    async def body(bench: Bench) -> None:
        tasks = [bench.ask(hash_keys={"ip": ip, **says}) for ip in ("1", "2", "2")]
        await settle()
        assert len(bench.asked) == 1  # what comes may be for everybody
        bench.asked[0].answer(PRIVATE.replace(b"[]", b'["0"]'))
        await settle()
        for number in (1, 2):
            bench.asked[number].answer(PRIVATE.replace(b"[]", b'["%d"]' % number))
        answers = [(await task).response for task in tasks]
        assert [json.loads(answer.result)["tools"] for answer in answers if answer] == [["0"], ["1"], ["2"]]
        await fill(bench, PRIVATE, hash_keys={"ip": "1", **says})
        assert len(bench.asked) == 4

    on_loop(body)


def test_a_public_result_that_another_user_has_asked_for_is_waited_for() -> None:
    async def body(bench: Bench) -> None:
        tasks = [bench.ask(hash_keys={PRINCIPAL: user}) for user in ("ada", "bob", "eve")]
        await settle()
        bench.asked[0].answer(PUBLIC)
        await asyncio.gather(*tasks)
        assert len(bench.asked) == 1

    on_loop(body)


@pytest.mark.parametrize(
    ("method", "params", "revision"),
    [
        ("tools/call", b'{"name":"x"}', "2026-07-28"),
        ("tools/list", b"{}", "2025-11-25"),
        ("resources/read", b'{"uri":"a","requestState":"s"}', "2026-07-28"),
        ("tools/list", b"[]", "2026-07-28"),
    ],
)
def test_what_may_not_be_kept_passes_untouched(method: str, params: bytes, revision: str) -> None:
    async def body(bench: Bench) -> None:
        for _ in range(2):
            task = bench.ask(method=method, params=params, revision=revision)
            await settle()
            bench.asked[-1].answer(PUBLIC)
            assert (await task).response == Response(b"1", PUBLIC, b"")
        assert len(bench.asked) == 2
        assert bench.listening == []

    on_loop(body)


# ---- changes


def test_the_cache_listens_for_changes_while_it_keeps_something() -> None:
    async def body(bench: Bench) -> None:
        await fill(bench)
        (stream,) = bench.listening
        assert stream.request.message.method == "subscriptions/listen"
        await stream.event(Notification("notifications/tools/list_changed", b""))
        await fill(bench)
        assert len(bench.asked) == 2
        assert len(bench.listening) == 1

    on_loop(body)


def test_a_change_on_a_clients_own_stream_counts_as_well() -> None:
    async def body(bench: Bench) -> None:
        await fill(bench)
        seen: list[Message | None] = []

        async def on_event(message: Message | None, event_id: str | None) -> None:
            seen.append(message)

        request = UpstreamRequest(
            kind=RequestKind.STREAM, message=Request(b"9", "subscriptions/listen", b"{}"), revision="2026-07-28"
        )
        streaming = asyncio.ensure_future(bench.cached.exchange(request, on_event))
        await settle()
        changed = Notification("notifications/tools/list_changed", b"")
        await bench.listening[-1].event(changed)
        assert seen == [changed]
        await fill(bench)
        assert len(bench.asked) == 2
        streaming.cancel()

    on_loop(body)


def test_a_result_from_before_a_change_is_neither_joined_nor_kept() -> None:
    async def body(bench: Bench) -> None:
        await fill(bench, params=b'{"cursor":"1"}')  # now the cache listens
        early = bench.ask(b"1")
        await settle()
        old = bench.asked[-1]
        await bench.listening[0].event(Notification("notifications/tools/list_changed", b""))
        late = bench.ask(b"2")
        await settle()
        new = bench.asked[-1]
        assert new is not old
        new.answer(PUBLIC.replace(b"[]", b'[{"name":"new"}]'))
        old.answer(PUBLIC)
        await early
        await late
        again = await bench.ask(b"3")
        assert again.response is not None
        assert b"new" in again.response.result

    on_loop(body)


def test_nobody_joins_a_request_that_is_being_given_up() -> None:
    async def body(bench: Bench) -> None:
        gone = bench.ask(b"1")
        await settle()
        gone.cancel()
        stays = bench.ask(b"2")  # comes just after the other has gone, and before its request has ended
        await settle()
        bench.asked[-1].answer(PUBLIC)
        assert (await stays).response is not None

    on_loop(body)


def test_a_lost_subscription_makes_everything_stale() -> None:
    async def body(bench: Bench) -> None:
        await fill(bench)
        bench.listening[0].fail(UpstreamError(Fate.BROKEN, "the connection was lost"))
        await settle()
        await fill(bench)
        assert len(bench.asked) == 2

    on_loop(body)


def test_a_server_without_subscriptions_is_believed_its_time_to_live() -> None:
    async def body(bench: Bench) -> None:
        await fill(bench)
        bench.listening[0].fail(UpstreamError(Fate.REFUSED, "no such method", reason="unknown_method"))
        await settle()
        await bench.ask()
        assert len(bench.asked) == 1

    on_loop(body)


def test_probes_and_the_end_reach_the_wire() -> None:
    async def run() -> None:
        bench = Bench()
        await fill(bench)
        bench.wire.probe_error = UpstreamError(Fate.BROKEN, "ill")
        with pytest.raises(UpstreamError, match="ill"):
            await bench.cached.probe(1.0)
        (stream,) = bench.listening
        await bench.cached.close()
        await settle()
        assert stream.is_cancelled
        assert bench.wire.is_closed

    asyncio.run(run())


def test_a_question_is_for_who_made_the_request_and_others_ask_themselves() -> None:
    """Two clients with one `requestState` could not both go on. Source: MCP 2026-07-28, basic/patterns/mrtr."""
    asks = b'{"resultType":"input_required","requestState":"%b"}'

    async def body(bench: Bench) -> None:
        one, two = bench.ask(b"1", "resources/read"), bench.ask(b"2", "resources/read")
        await settle()
        assert len(bench.asked) == 1
        bench.asked[0].answer(asks % b"first")
        await settle()
        bench.asked[1].answer(asks % b"second")
        answers = [(await task).response for task in (one, two)]
        assert [answer.result for answer in answers if answer is not None] == [asks % b"first", asks % b"second"]

    on_loop(body)
