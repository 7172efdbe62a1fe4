"""Tests of which message of a shared connection belongs to whom."""

import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification, Request, Response
from mcp_gateway.transports.upstream.pipes.multiplexer import (
    MAX_ASKED,
    MAX_HELD,
    Answered,
    Ended,
    Held,
    Ignored,
    Multiplexer,
    Replied,
    Told,
)


def params(**values: Any) -> bytes:
    return json.dumps(values).encode()


def call(request_id: bytes = b"1", **meta: Any) -> Request:
    return Request(request_id, "tools/call", params(name="echo", _meta=meta) if meta else params(name="echo"))


def progress(token: Any, step: int = 1) -> Notification:
    return Notification("notifications/progress", params(progressToken=token, progress=step))


LOG = Notification("notifications/message", params(level="info", data="x"))
CHANGED = Notification("notifications/tools/list_changed", b"")
QUESTION = Request(b"7", "sampling/createMessage", params(maxTokens=1))


def private() -> Multiplexer:
    return Multiplexer(is_private=True, is_modern=False)


def shared() -> Multiplexer:
    return Multiplexer(is_private=False, is_modern=False)


def modern() -> Multiplexer:
    return Multiplexer(is_private=False, is_modern=True)


# ---- ids and tokens


def test_two_clients_with_the_same_id_get_their_own_answers() -> None:
    exchanges = shared()
    first, sent_first = exchanges.begin("ada", call(b"1"))
    second, sent_second = exchanges.begin("alan", call(b'"1"'))
    third, sent_third = exchanges.begin("grace", call(b"1"))
    assert len({sent_first.id, sent_second.id, sent_third.id}) == 3
    assert exchanges.incoming(Response(sent_third.id, b'{"c":1}', b"")) == Answered(third, Response(b"1", b'{"c":1}', b""))
    assert exchanges.incoming(Response(sent_second.id, b'{"b":1}', b"")) == Answered(second, Response(b'"1"', b'{"b":1}', b""))
    assert exchanges.incoming(Response(sent_first.id, b"", b'{"code":1}')) == Answered(first, Response(b"1", b"", b'{"code":1}'))


def test_a_number_that_comes_back_as_a_string_is_the_same_id() -> None:
    exchanges = shared()
    first, sent = exchanges.begin("ada", call(b"5"))
    exchanges.begin("alan", call(b"5"))
    assert exchanges.incoming(Response(b'"%b"' % sent.id, b"{}", b"")) == Answered(first, Response(b"5", b"{}", b""))


def test_an_error_without_id_is_for_the_only_request_that_waits() -> None:
    """Source: JSON-RPC 2.0, section 5: the id is null where the server could not read it."""
    exchanges, nobodys = private(), Response(b"null", b"", b'{"code":-32700}')
    assert isinstance(exchanges.incoming(nobodys), Ignored)
    exchanges.begin_stream("ada")
    first, _ = exchanges.begin("ada", call(b"5"))
    assert exchanges.incoming(nobodys) == Answered(first, Response(b"5", b"", b'{"code":-32700}'))
    exchanges.begin("ada", call(b"6"))
    assert isinstance(exchanges.incoming(nobodys), Ignored), "it could be for either"


def test_two_clients_with_the_same_progress_token_see_their_own_progress_with_it() -> None:
    exchanges = shared()
    first, sent_first = exchanges.begin("ada", call(b"1", progressToken="t", other=1))
    second, sent_second = exchanges.begin("alan", call(b"1", progressToken="t"))
    tokens = [json.loads(sent.params)["_meta"]["progressToken"] for sent in (sent_first, sent_second)]
    assert tokens[0] != tokens[1]
    assert json.loads(sent_first.params)["_meta"]["other"] == 1
    for exchange_id, token in zip((first, second), tokens, strict=True):
        told = exchanges.incoming(progress(token))
        assert isinstance(told, Told)
        assert told.exchange_ids == (exchange_id,)
        assert isinstance(told.message, Notification)
        assert json.loads(told.message.params)["progressToken"] == "t"


@pytest.mark.parametrize(
    "spelled",
    [
        b'{"\\u005fmeta":{"progressToken":1}}',
        b'{"_meta":{"progress\\u0054oken":1}}',
        b'{"_meta":{"progressToken":1},"_meta":{}}',
        b'{"_meta":{},"_meta":{"progressToken":1}}',
    ],
)
def test_a_token_however_it_is_spelled_never_reaches_the_progress_of_another_client(spelled: bytes) -> None:
    exchanges = shared()
    victim, _ = exchanges.begin("ada", call(b"1", progressToken="mine"))
    assert victim == 1
    _, sent = exchanges.begin("mallory", Request(b"1", "tools/call", spelled))
    meta = json.loads(sent.params, object_pairs_hook=lambda pairs: pairs)
    shown = [value for key, values in meta if key == "_meta" for name, value in values if name == "progressToken"]
    assert 1 not in shown
    assert len([key for key, _ in meta if key == "_meta"]) == 1


def test_params_without_meta_stay_the_bytes_that_they_were() -> None:
    _, sent = shared().begin("ada", Request(b"1", "tools/call", b'{ "name" : "echo" }'))
    assert sent.params == b'{ "name" : "echo" }'


@pytest.mark.parametrize("token", [99, "1", None, 1.5, True, [], {}])
def test_progress_with_a_token_that_was_never_given_is_ignored(token: Any) -> None:
    exchanges = shared()
    exchanges.begin("ada", call(b"1", progressToken="t"))
    assert isinstance(exchanges.incoming(progress(token)), Ignored)


def test_progress_of_a_request_that_asked_for_none_is_ignored() -> None:
    exchanges = shared()
    exchange_id, _ = exchanges.begin("ada", call(b"1"))
    assert isinstance(exchanges.incoming(progress(exchange_id)), Ignored)


@pytest.mark.parametrize("response_id", [b"null", b"99", b'"01"', b'"one"', b"true", b"1.5", b"-1"])
def test_a_response_to_nothing_that_is_open_is_ignored(response_id: bytes) -> None:
    exchanges = shared()
    exchanges.begin("ada", call(b"1"))
    assert isinstance(exchanges.incoming(Response(response_id, b"{}", b"")), Ignored)


def test_a_late_answer_and_late_progress_are_ignored() -> None:
    exchanges = shared()
    exchange_id, sent = exchanges.begin("ada", call(b"1", progressToken="t"))
    exchanges.end(exchange_id)
    assert isinstance(exchanges.incoming(Response(sent.id, b"{}", b"")), Ignored)
    assert isinstance(exchanges.incoming(progress(exchange_id)), Ignored)
    assert len(exchanges) == 0


# ---- cancellation


def test_a_clients_cancellation_names_the_id_that_the_server_knows() -> None:
    exchanges = shared()
    exchanges.begin("alan", call(b"5"))
    exchange_id, sent = exchanges.begin("ada", call(b"5"))
    cancelled = Notification("notifications/cancelled", params(requestId=5, reason="enough"))
    shown, found = exchanges.outgoing("ada", cancelled)
    assert found == exchange_id
    assert shown is not None
    assert json.loads(shown.params) == {"requestId": int(sent.id), "reason": "enough"}


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", params(requestId=6), params(requestId=None), params(requestId="5")])
def test_a_cancellation_of_nothing_that_the_client_has_open_goes_nowhere(content: bytes) -> None:
    exchanges = shared()
    exchanges.begin("ada", call(b"5"))
    exchanges.begin("alan", call(b"6"))
    assert exchanges.outgoing("ada", Notification("notifications/cancelled", content)) == (None, None)


def test_other_notifications_of_a_client_pass_as_they_are() -> None:
    assert shared().outgoing("ada", Notification("notifications/roots/list_changed", b"")) == (
        Notification("notifications/roots/list_changed", b""),
        None,
    )


def test_a_request_that_nobody_waits_for_is_cancelled_by_its_own_id_and_a_stream_is_not() -> None:
    exchanges = private()
    exchange_id, sent = exchanges.begin("ada", call(b'"x"'))
    stream_id, _ = exchanges.begin_stream("ada")
    cancellation = exchanges.cancellation(exchange_id, "gone")
    assert cancellation is not None
    assert json.loads(cancellation.params) == {"requestId": int(sent.id), "reason": "gone"}
    assert exchanges.cancellation(stream_id, "gone") is None
    assert exchanges.cancellation(99, "gone") is None


# ---- what names no request


def test_on_a_private_pipe_a_question_goes_to_the_open_call_and_its_answer_back() -> None:
    exchanges = private()
    exchanges.begin_stream("ada")
    exchange_id, _ = exchanges.begin("ada", call())
    assert exchanges.incoming(QUESTION) == Told((exchange_id,), QUESTION)
    assert exchanges.may_answer(Response(b"7", b"{}", b""))
    assert not exchanges.may_answer(Response(b"7", b"{}", b"")), "a second answer says nothing"
    assert not exchanges.may_answer(Response(b"8", b"{}", b""))


def test_with_several_calls_open_the_one_begun_last_is_taken() -> None:
    exchanges = private()
    exchanges.begin("ada", call(b"1"))
    newest, _ = exchanges.begin("ada", call(b"2"))
    assert exchanges.incoming(QUESTION) == Told((newest,), QUESTION)
    assert exchanges.incoming(LOG) == Told((newest,), LOG)


def test_a_request_that_runs_nothing_is_not_asked_for_the_call_beside_it() -> None:
    exchanges = private()
    call_id, _ = exchanges.begin("ada", call(b"1"))
    other_id, _ = exchanges.begin("ada", Request(b"2", "resources/unsubscribe", b'{"uri":"a:1"}'))
    assert exchanges.incoming(QUESTION) == Told((call_id,), QUESTION)
    assert exchanges.incoming(LOG) == Told((call_id,), LOG)
    exchanges.end(call_id)
    assert exchanges.incoming(LOG) == Told((other_id,), LOG)


def test_without_a_call_it_goes_to_the_stream_and_without_one_it_waits_for_it() -> None:
    exchanges = private()
    assert exchanges.incoming(QUESTION) == Held()
    assert exchanges.incoming(LOG) == Held()
    assert exchanges.incoming(CHANGED) == Held()
    stream_id, held = exchanges.begin_stream("ada")
    assert held == (QUESTION, LOG, CHANGED)
    assert exchanges.may_answer(Response(b"7", b"{}", b""))
    assert exchanges.incoming(LOG) == Told((stream_id,), LOG)
    exchanges.end(stream_id)
    assert exchanges.begin_stream("ada")[1] == (), "nothing is told twice"


def test_of_several_streams_of_a_session_the_newest_is_told() -> None:
    """Source: MCP 2025-11-25, basic/transports, "Multiple Connections": a message goes to one stream, not to all."""
    exchanges = Multiplexer(is_private=True, is_modern=False)
    first, second = exchanges.begin_stream("ada")[0], exchanges.begin_stream("ada")[0]
    assert exchanges.incoming(CHANGED) == Told((second,), CHANGED)
    exchanges.end(second)
    assert exchanges.incoming(CHANGED) == Told((first,), CHANGED)


def test_changes_go_to_the_stream_rather_than_to_a_call_that_has_nothing_to_do_with_them() -> None:
    exchanges = private()
    stream_id, _ = exchanges.begin_stream("ada")
    exchanges.begin("ada", call())
    assert exchanges.incoming(CHANGED) == Told((stream_id,), CHANGED)


def test_what_waits_is_bounded_and_the_server_hears_of_each_question_that_was_dropped() -> None:
    exchanges = private()
    for number in range(MAX_HELD):
        assert exchanges.incoming(Request(b"%d" % number, "roots/list", b"")) == Held()
    over = exchanges.incoming(LOG)
    assert isinstance(over, Held)
    assert [reply.id for reply in over.replies] == [b"0"]
    exchanges.assert_consistent()
    assert len(exchanges.begin_stream("ada")[1]) == MAX_HELD


def test_questions_without_an_answer_are_bounded() -> None:
    exchanges = private()
    exchanges.begin("ada", call())
    for number in range(MAX_ASKED):
        assert isinstance(exchanges.incoming(Request(b"%d" % number, "roots/list", b"")), Told)
    refused = exchanges.incoming(Request(b"-1", "roots/list", b""))
    assert isinstance(refused, Replied)
    assert refused.is_too_many
    assert exchanges.may_answer(Response(b"0", b"{}", b""))
    assert isinstance(exchanges.incoming(Request(b"-1", "roots/list", b"")), Told)


def test_a_question_that_its_server_takes_back_is_taken_back_from_whoever_was_asked() -> None:
    taken_back = Notification("notifications/cancelled", params(requestId=7))
    exchanges = private()
    exchange_id, _ = exchanges.begin("ada", call())
    exchanges.incoming(QUESTION)
    assert exchanges.incoming(taken_back) == Told((exchange_id,), taken_back)
    assert isinstance(exchanges.incoming(taken_back), Ignored)
    assert not exchanges.may_answer(Response(b"7", b"{}", b""))
    # Nobody was asked yet: nobody will be.
    waiting = private()
    waiting.incoming(QUESTION)
    assert isinstance(waiting.incoming(taken_back), Ignored)
    assert waiting.begin_stream("ada")[1] == ()


def test_a_shared_pipe_asks_nobody_and_answers_pings_itself() -> None:
    for exchanges in (shared(), modern()):
        exchanges.begin("ada", call())
        replied = exchanges.incoming(QUESTION)
        assert isinstance(replied, Replied)
        assert (replied.response.id, json.loads(replied.response.error)["code"]) == (b"7", -32601)
        assert exchanges.incoming(Request(b'"p"', "ping", b"")) == Replied(Response(b'"p"', b"{}", b""))


def test_on_a_shared_pipe_log_messages_reach_a_client_only_where_nobody_else_has_a_call_open() -> None:
    exchanges = shared()
    first, _ = exchanges.begin("ada", call(b"1"))
    assert exchanges.incoming(LOG) == Told((first,), LOG)
    second, _ = exchanges.begin("alan", call(b"1"))
    assert isinstance(exchanges.incoming(LOG), Ignored)
    exchanges.end(first)
    assert exchanges.incoming(LOG) == Told((second,), LOG)
    exchanges.end(second)
    exchanges.begin_stream("ada")
    assert isinstance(exchanges.incoming(LOG), Ignored)


def test_changes_at_the_server_concern_every_session_that_listens() -> None:
    exchanges = shared()
    assert isinstance(exchanges.incoming(CHANGED), Ignored)
    streams = (exchanges.begin_stream("ada")[0], exchanges.begin_stream("alan")[0])
    assert exchanges.incoming(CHANGED) == Told(streams, CHANGED)
    assert exchanges.streams_of("alan") == streams[1:]


# ---- 2026-07-28


def test_notifications_of_a_subscription_reach_it_by_its_id_alone() -> None:
    exchanges = modern()
    first, _ = exchanges.begin("", Request(b"10", "subscriptions/listen", b"{}"), is_stream=True)
    second, _ = exchanges.begin("", Request(b"11", "subscriptions/listen", b"{}"), is_stream=True)
    for exchange_id in (first, second):
        meta = {"io.modelcontextprotocol/subscriptionId": exchange_id}
        changed = Notification("notifications/tools/list_changed", params(_meta=meta))
        assert exchanges.incoming(changed) == Told((exchange_id,), changed)
    unknown = Notification("notifications/tools/list_changed", params(_meta={"io.modelcontextprotocol/subscriptionId": 99}))
    assert isinstance(exchanges.incoming(unknown), Ignored)
    assert isinstance(exchanges.incoming(CHANGED), Ignored)


def test_a_server_may_end_a_subscription_and_nothing_else() -> None:
    """Source: MCP 2026-07-28, basic/patterns/cancellation, "Behavior Requirements"."""
    exchanges = modern()
    stream_id, _ = exchanges.begin("", Request(b"10", "subscriptions/listen", b"{}"), is_stream=True)
    call_id, _ = exchanges.begin("", call(b"11"))
    assert exchanges.incoming(Notification("notifications/cancelled", params(requestId=stream_id))) == Ended(stream_id)
    assert isinstance(exchanges.incoming(Notification("notifications/cancelled", params(requestId=call_id))), Ignored)


def test_log_messages_reach_the_one_request_that_wants_them() -> None:
    """Source: MCP 2026-07-28, server/utilities/logging, "Per-request log level"."""
    level = {"io.modelcontextprotocol/logLevel": "info"}
    exchanges = modern()
    exchanges.begin("", call(b"1"))
    assert isinstance(exchanges.incoming(LOG), Ignored)
    wanting, _ = exchanges.begin("", call(b"2", **level))
    assert exchanges.incoming(LOG) == Told((wanting,), LOG)
    exchanges.begin("", call(b"3", **level))
    assert isinstance(exchanges.incoming(LOG), Ignored), "whose it is cannot be told"


# ---- whatever comes

OWNERS = st.sampled_from(["ada", "alan", "grace"])
IDS = st.sampled_from([b"1", b"2", b'"1"', b'"a"', b'"\\u0061"', b"1234567890123456789012"])
TOKENS = st.sampled_from([None, 1, 2, "1", "t"])
SERVER_IDS = st.integers(0, 12)


class AnyOrder(RuleBasedStateMachine):
    """Callers and a server that says anything, on each kind of pipe: what is told is told to who may hear it."""

    def __init__(self) -> None:
        super().__init__()
        self.open: dict[int, tuple[str, bytes, Any]] = {}

    @rule(is_private=st.booleans(), is_modern=st.booleans())
    @precondition(lambda self: not hasattr(self, "exchanges"))
    def start(self, is_private: bool, is_modern: bool) -> None:
        self.is_private = is_private and not is_modern
        self.is_modern = is_modern
        self.exchanges = Multiplexer(is_private=self.is_private, is_modern=is_modern)

    @rule(owner=OWNERS, request_id=IDS, token=TOKENS, is_stream=st.booleans())
    @precondition(lambda self: hasattr(self, "exchanges"))
    def begin(self, owner: str, request_id: bytes, token: Any, is_stream: bool) -> None:
        owner = "ada" if self.is_private else owner
        request = call(request_id, progressToken=token) if token is not None else call(request_id)
        exchange_id, sent = self.exchanges.begin(owner, request, is_stream=is_stream and self.is_modern)
        assert exchange_id not in self.open
        assert sent.id == b"%d" % exchange_id
        self.open[exchange_id] = (owner, request_id, token)

    @rule(owner=OWNERS)
    @precondition(lambda self: hasattr(self, "exchanges") and not self.is_modern)
    def listen(self, owner: str) -> None:
        owner = "ada" if self.is_private else owner
        exchange_id, _ = self.exchanges.begin_stream(owner)
        self.open[exchange_id] = (owner, b"", None)

    @rule(number=SERVER_IDS)
    @precondition(lambda self: hasattr(self, "exchanges"))
    def end(self, number: int) -> None:
        self.exchanges.end(number)
        self.open.pop(number, None)

    @rule(owner=OWNERS, request_id=IDS)
    @precondition(lambda self: hasattr(self, "exchanges"))
    def cancel(self, owner: str, request_id: bytes) -> None:
        content = b'{"requestId":%b}' % request_id
        shown, found = self.exchanges.outgoing(owner, Notification("notifications/cancelled", content))
        assert (shown is None) == (found is None)
        if found is not None:
            assert self.open[found][0] == owner

    @rule(number=SERVER_IDS)
    @precondition(lambda self: hasattr(self, "exchanges"))
    def answer(self, number: int) -> None:
        incoming = self.exchanges.incoming(Response(b"%d" % number, b"{}", b""))
        if number in self.open and self.open[number][1]:
            assert incoming == Answered(number, Response(self.open[number][1], b"{}", b""))
        else:
            assert isinstance(incoming, Ignored)

    @rule(number=SERVER_IDS)
    @precondition(lambda self: hasattr(self, "exchanges"))
    def report_progress(self, number: int) -> None:
        incoming = self.exchanges.incoming(progress(number))
        token = self.open[number][2] if number in self.open else None
        if token is None:
            assert isinstance(incoming, Ignored)
        else:
            assert isinstance(incoming, Told)
            assert isinstance(incoming.message, Notification)
            assert incoming.exchange_ids == (number,)
            assert json.loads(incoming.message.params)["progressToken"] == token

    @rule(number=SERVER_IDS, method=st.sampled_from(["ping", "roots/list", "sampling/createMessage"]))
    @precondition(lambda self: hasattr(self, "exchanges"))
    def ask(self, number: int, method: str) -> None:
        incoming = self.exchanges.incoming(Request(b"%d" % number, method, b""))
        if not self.is_private or method == "ping":
            assert isinstance(incoming, Replied)
        elif isinstance(incoming, Told):
            assert set(incoming.exchange_ids) <= set(self.open)

    @rule(number=SERVER_IDS)
    @precondition(lambda self: hasattr(self, "exchanges"))
    def answer_server(self, number: int) -> None:
        assert self.exchanges.may_answer(Response(b"%d" % number, b"{}", b"")) in (True, False)

    @rule(method=st.sampled_from(["message", "cancelled", "progress", "tools/list_changed", "x"]), content=st.binary(max_size=8))
    @precondition(lambda self: hasattr(self, "exchanges"))
    def say(self, method: str, content: bytes) -> None:
        incoming = self.exchanges.incoming(Notification(f"notifications/{method}", content))
        if isinstance(incoming, Told):
            assert set(incoming.exchange_ids) <= set(self.open)
            if method == "message" and not self.is_private:
                assert len(incoming.exchange_ids) == 1

    @invariant()
    def consistent(self) -> None:
        if hasattr(self, "exchanges"):
            self.exchanges.assert_consistent()
            assert len(self.exchanges) == len(self.open)


TestAnyOrder = AnyOrder.TestCase


def test_state_is_kept_for_who_is_subscribed_or_asked_until_that_is_over() -> None:
    pipe = Multiplexer(is_private=True, is_modern=False)
    for method, keeps_state in [
        ("tools/call", False),
        ("resources/subscribe", True),
        ("resources/subscribe", True),
        ("resources/unsubscribe", False),
    ]:
        exchange_id, _ = pipe.begin("s", Request(b"1", method, b'{"uri":"file:///a"}'))
        pipe.end(exchange_id)
        assert pipe.keeps_state is keeps_state, method
    pipe.begin("s", Request(b"1", "resources/subscribe", b"{}"))
    assert not pipe.keeps_state, "the server refuses that"
    pipe.incoming(Request(b'"q"', "roots/list", b""))
    assert pipe.keeps_state
    assert pipe.may_answer(Response(b'"q"', b"{}", b""))
    assert not pipe.keeps_state
