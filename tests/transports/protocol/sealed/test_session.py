"""Session ids: the whole session, sealed; remembered in bounds."""

from __future__ import annotations

import secrets

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.sealed.kept_handshake import MOST_HANDSHAKE_BYTES
from mcp_gateway.transports.protocol.sealed.sealing import Seal
from mcp_gateway.transports.protocol.sealed.session import (
    MAX_ID_CHARACTERS,
    MAX_SUBSCRIPTIONS,
    MOST_REMEMBERED,
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


def test_sessions_that_came_and_went_leave_the_state_of_the_last_thousand_behind():
    """Ours: however many sessions may be open, those that are over take their memory no longer than it takes others to come."""
    ids = SessionIds(SEAL)
    issued = [ids.issue(state(str(number))) for number in range(MOST_REMEMBERED + 1)]
    for session_id in issued[:MOST_REMEMBERED]:
        ids.read(session_id)
    assert list(ids._by_id) == issued[:MOST_REMEMBERED]
    ids.read(issued[MOST_REMEMBERED])
    assert list(ids._by_id) == issued[1:]


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


def merged(backends: int, user: str = "ada") -> SessionState:
    """A session at so many servers, each with an id of its own as servers make them."""
    upstreams = tuple(
        UpstreamSession(f"backend-{number}", f"http://10.0.0.{number}:8080/mcp", secrets.token_hex(16), "2025-11-25")
        for number in range(backends)
    )
    return SessionState("k" * 12, "", "2025-11-25", user, b"x" * MOST_HANDSHAKE_BYTES, upstreams)


def test_an_id_fits_a_header_with_many_servers_and_the_most_that_a_client_may_say():
    ids = SessionIds(SEAL)
    session_id = ids.issue(merged(20, "u" * 100))
    assert len(session_id) <= MAX_ID_CHARACTERS
    assert ids.read(session_id) is not None


def test_an_id_that_would_fit_no_header_is_refused():
    ids = SessionIds(SEAL, most_bytes=1_000_000)
    sizes = []
    with pytest.raises(Refused) as caught:
        sizes.extend(len(ids.issue(merged(backends))) for backends in range(1, 1_000))
    assert MAX_ID_CHARACTERS - 100 < max(sizes) <= MAX_ID_CHARACTERS
    assert (caught.value.reason, caught.value.status) == ("too_large", 413)
    assert "header" in caught.value.text


def test_a_session_at_its_bound_is_issued_and_one_past_it_refused():
    some = state()
    assert SessionIds(SEAL, most_bytes=some.size_bytes).issue(some)
    with pytest.raises(Refused) as caught:
        SessionIds(SEAL, most_bytes=some.size_bytes - 1).issue(some)
    assert (caught.value.reason, "max_session_bytes" in caught.value.text) == ("too_large", True)


def test_the_length_of_an_id_tells_nothing_of_what_its_client_may_have_guessed():
    """A compressed whole would be shorter where the client has said what its server's address holds."""
    secret = "http://10.0.0.1/mcp?key=3f9a61c5e7d24b80"
    upstream = UpstreamSession("files", secret, "abc", "2025-06-18")
    guesses = [f'{{"name":"{guess}"}}'.encode() for guess in (secret, secret[::-1])]
    lengths = {len(SessionIds(SEAL).issue(SessionState("k", "", "", "", guess, (upstream,)))) for guess in guesses}
    assert len(lengths) == 1


def test_subscriptions_that_have_no_room_are_the_oldest_and_those_that_are_too_long():
    facts = SessionFacts("error")
    for uri in ["a:100", "a:" + "x" * 4_000_000, *(f"a:{number}" for number in range(101, 500))]:
        facts = facts.after("files", "resources/subscribe", msgspec.json.encode({"uri": uri}))
    full = msgspec.structs.replace(state(), facts=facts)
    assert full.within(full.size_bytes) is full
    kept = full.within(2_000)
    assert 1_950 < kept.size_bytes <= 2_000
    uris = kept.facts.of_backend("files")
    assert uris == tuple(f"a:{number}" for number in range(500 - len(uris), 500))
    assert kept.facts.log_level == "error"
    small = msgspec.structs.replace(state(), facts=SessionFacts(None, (("files", "a:1"), ("files", "x" * 9_000))))
    assert small.within(8_192).facts.subscriptions == (("files", "a:1"),)


def test_a_log_level_that_is_none_is_not_kept():
    facts = SessionFacts("error").after("files", "logging/setLevel", b'{"level":"%b"}' % (b"x" * 1_000_000))
    assert facts == SessionFacts("error")
