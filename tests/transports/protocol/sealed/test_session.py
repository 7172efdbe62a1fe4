"""Session ids: the whole session, sealed; remembered in bounds."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.sealed.sealing import Seal
from mcp_gateway.transports.protocol.sealed.session import (
    MAX_SUBSCRIPTIONS,
    SessionFacts,
    SessionIds,
    SessionState,
    UpstreamSession,
)

SEAL = Seal(b"a secret of the node")

upstreams = st.builds(UpstreamSession, st.text(), st.text(), st.none() | st.text(), st.text())
states = st.builds(
    SessionState, st.text(), st.text(), st.text(), st.text(), st.binary(), st.lists(upstreams, max_size=3).map(tuple)
)


def state(key: str = "k") -> SessionState:
    upstream = UpstreamSession("files", "http://a/mcp", "abc", "2025-06-18")
    return SessionState(key, "", "2025-06-18", "ada", b'{"capabilities":{}}', (upstream,))


@settings(deadline=None)
@given(states)
def test_any_cell_reads_the_session_behind_an_id(some):
    session_id = SessionIds(SEAL).issue(some)
    assert SessionIds(Seal(b"a secret of the node")).read(session_id) == some


def test_the_id_is_visible_ascii():
    """Source: MCP 2025-11-25, basic/transports, "Session Management": only 0x21 to 0x7E."""
    assert all(0x21 <= ord(character) <= 0x7E for character in SessionIds(SEAL).issue(state()))


@settings(deadline=None)
@given(st.text())
def test_an_id_that_was_never_issued_is_no_session(session_id):
    assert SessionIds(SEAL).read(session_id) is None


@pytest.mark.parametrize(
    "token",
    [
        SEAL.seal("cursor", msgspec.msgpack.encode(state())),
        SEAL.seal("session", b""),
        SEAL.seal("session", b"\xc1"),
        SEAL.seal("session", msgspec.msgpack.encode(["k"])),
        SEAL.seal("session", msgspec.msgpack.encode([1, 2, 3, 4, 5, 6])),
        Seal(b"a secret of another node").seal("session", msgspec.msgpack.encode(state())),
    ],
    ids=["other kind", "empty", "no msgpack", "too few fields", "wrong types", "other key"],
)
def test_a_sealed_token_that_is_no_session_is_none(token):
    assert SessionIds(SEAL).read(token) is None


def test_a_second_reading_costs_no_decryption_and_the_memory_of_it_is_bounded():
    openings = []

    class CountingSeal(Seal):
        def open(self, kind: str, token: str) -> bytes:
            openings.append(token)
            return super().open(kind, token)

    ids = SessionIds(CountingSeal(b"a secret of the node"), remembered=2)
    first, second, third = (ids.issue(state(key)) for key in "abc")
    for session_id in (first, second, first, third, first):  # the third pushes out the second, used longest ago
        assert ids.read(session_id) is not None
    assert openings == [first, second, third]
    assert ids.read(second) == state("b")
    assert openings == [first, second, third, second]


def test_garbage_is_not_remembered():
    ids = SessionIds(SEAL, remembered=1)
    kept = ids.issue(state())
    ids.read(kept)
    for number in range(100):
        ids.read(f"garbage {number}")
    assert list(ids._by_id) == [kept]


def test_a_session_knows_its_side_at_each_backend():
    assert state().upstream("files") == UpstreamSession("files", "http://a/mcp", "abc", "2025-06-18")
    assert state().upstream("other") is None


def test_facts_follow_what_the_client_asks_for() -> None:
    facts = SessionFacts()
    for uri in ("a:1", "a:2", "a:1"):
        facts = facts.after("files", "resources/subscribe", b'{"uri":"%b"}' % uri.encode())
    facts = facts.after("mail", "resources/subscribe", b'{"uri":"m:1"}').after("", "logging/setLevel", b'{"level":"error"}')
    assert facts == SessionFacts("error", (("files", "a:2"), ("files", "a:1"), ("mail", "m:1")))
    assert facts.of_backend("files") == ("a:2", "a:1")
    assert facts.after("files", "resources/unsubscribe", b'{"uri":"a:1"}').of_backend("files") == ("a:2",)


def test_subscriptions_are_bounded_and_the_newest_stay() -> None:
    facts = SessionFacts()
    for number in range(MAX_SUBSCRIPTIONS + 1):
        facts = facts.after("files", "resources/subscribe", b'{"uri":"a:%d"}' % number)
    assert len(facts.subscriptions) == MAX_SUBSCRIPTIONS
    assert facts.subscriptions[-1] == ("files", f"a:{MAX_SUBSCRIPTIONS}")
