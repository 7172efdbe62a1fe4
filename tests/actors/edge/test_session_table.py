"""The session table: the newest state of sessions in use, bounded, and who was ended."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.actors.edge.session_table import SessionTable
from mcp_gateway.transports.protocol.sealed.session import SessionState, UpstreamSession


def session(key: str, revision: str = "2025-06-18", *backends: str, holder: str = "") -> SessionState:
    upstreams = tuple(UpstreamSession(backend, f"{backend}#0", "old", revision) for backend in backends)
    return SessionState(key, "", revision, "", b"{}", upstreams, holder=holder)


def test_a_repaired_session_is_the_newest_whatever_its_id_says():
    table = SessionTable(10, 60.0)
    sealed = session("a", "2025-06-18", "files", "mail")
    table.use(sealed, 0.0)
    repaired = table.replace_upstream("a", UpstreamSession("files", "files#1", "new", "2025-03-26"))
    assert repaired is not None
    assert repaired.upstream("files") == UpstreamSession("files", "files#1", "new", "2025-03-26")
    assert repaired.upstream("mail") == sealed.upstream("mail")
    assert len(repaired.upstreams) == 2
    table.use(sealed, 1.0)
    assert table.find("a", 1.0) is repaired


def test_an_upstream_that_was_never_opened_can_be_added():
    table = SessionTable(10, 60.0)
    table.use(session("a"), 0.0)
    late = UpstreamSession("files", "files#1", None, "2025-03-26")
    repaired = table.replace_upstream("a", late)
    assert repaired is not None
    assert repaired.upstreams == (late,)


def test_an_unknown_session_is_not_repaired():
    assert SessionTable(10, 60.0).replace_upstream("a", UpstreamSession("files", "r", None, "2025-03-26")) is None


def test_the_least_recently_used_is_forgotten_beyond_the_limit():
    table = SessionTable(2, 60.0)
    for key in "aba":
        assert table.use(session(key), 0.0) == []
    assert table.use(session("c"), 0.0) == [session("b")]
    assert len(table) == 2
    assert table.replace_upstream("b", UpstreamSession("files", "r", None, "2025-03-26")) is None
    assert table.replace_upstream("a", UpstreamSession("files", "r", None, "2025-03-26")) is not None


def test_idle_sessions_are_forgotten_and_used_ones_stay():
    table = SessionTable(10, 10.0)
    table.use(session("idle"), 0.0)
    table.use(session("busy"), 0.0)
    table.use(session("busy"), 5.0)
    assert table.forget_idle(9.9) == []
    assert table.forget_idle(10.0) == [session("idle")]
    assert len(table) == 1
    assert table.forget_idle(15.0) == [session("busy")]
    assert table.forget_idle(99.0) == []


def test_an_idle_session_is_not_found_even_before_it_is_forgotten():
    table = SessionTable(10, 10.0)
    table.use(session("a"), 0.0)
    assert table.find("a", 9.9) == session("a")
    assert table.find("a", 10.0) is None
    assert table.find("b", 0.0) is None


def test_the_state_of_a_known_session_can_be_set_and_no_other_is_added():
    table = SessionTable(10, 10.0)
    table.use(session("a"), 0.0)
    newer = session("a", "2025-06-18", "files")
    table.replace(newer)
    table.replace(session("b"))
    assert table.find("a", 1.0) is newer
    assert len(table) == 1


def test_a_forgotten_session_is_served_again_an_ended_one_is_not():
    table = SessionTable(10, 10.0)
    table.use(session("a"), 0.0)
    table.forget_idle(10.0)
    assert not table.is_ended("a")
    table.use(session("a"), 11.0)
    table.end("a")
    assert table.is_ended("a")
    assert len(table) == 0


def test_a_late_request_does_not_bring_an_ended_session_back():
    table = SessionTable(10, 10.0)
    ended = session("a")
    table.end("a")
    assert table.use(ended, 1.0) == []
    assert len(table) == 0
    assert table.is_ended("a")


def test_what_is_remembered_of_ended_sessions_is_bounded():
    table = SessionTable(10, 10.0)
    for number in range(100_001):
        table.end(str(number))
    assert not table.is_ended("0")
    assert table.is_ended("1")
    assert table.is_ended("100000")


def test_ended_sessions_are_forgotten_a_round_after_the_one_in_which_they_ended():
    table = SessionTable(10, 10.0)
    table.end("a")
    table.forget_ended()
    table.end("b")
    table.end("a")  # another cell says so, too
    assert table.is_ended("a")
    table.forget_ended()
    assert (table.is_ended("a"), table.is_ended("b")) == (False, True)
    table.forget_ended()
    assert not table.is_ended("b")


def test_no_more_are_forgotten_than_have_not_made_room_already():
    table = SessionTable(10, 10.0)
    for number in range(100_000):
        table.end(str(number))
        if number == 1:
            table.forget_ended()
    for number in range(3):
        table.end(f"later {number}")  # drives out the two of the first round, and one more
    table.assert_consistent()
    table.forget_ended()
    assert (table.is_ended("2"), table.is_ended("3")) == (False, True)


def test_sessions_are_counted_by_revision():
    table = SessionTable(10, 10.0)
    for key, revision in (("a", "2025-06-18"), ("b", "2025-06-18"), ("c", "2025-03-26")):
        table.use(session(key, revision), 0.0)
    assert table.count_by_revision() == {"2025-06-18": 2, "2025-03-26": 1}
    table.end("c")
    assert table.count_by_revision() == {"2025-06-18": 2, "2025-03-26": 0}  # else a gauge would show the last one for ever


# ---- holders


def test_a_holder_at_its_share_drives_out_nobody_and_past_it_its_own_longest_unused():
    table = SessionTable(20, 60.0, 0.25)
    assert table.most_of_holder == 5
    table.use(session("other", holder="b"), 0.0)
    for number in range(5):
        assert table.use(session(f"a{number}", holder="a"), 1.0) == []
    assert table.use(session("a0", holder="a"), 2.0) == []
    assert table.use(session("a5", holder="a"), 3.0) == [session("a1", holder="a")]
    assert table.find("other", 3.0) is not None
    table.assert_consistent()


def test_where_there_is_no_room_who_holds_most_makes_some():
    table = SessionTable(8, 60.0, 0.5)
    for holder, count in (("b", 1), ("a", 4), ("c", 3)):
        for number in range(count):
            table.use(session(f"{holder}{number}", holder=holder), 0.0)
    assert table.use(session("d0", holder="d"), 1.0) == [session("a0", holder="a")]
    table.assert_consistent()


def test_where_nobody_holds_two_the_longest_unused_makes_room():
    table = SessionTable(4, 60.0, 0.25)
    for holder in "abcd":
        table.use(session(holder, holder=holder), 0.0)
    table.use(session("a", holder="a"), 0.0)
    assert table.use(session("e", holder="e"), 1.0) == [session("b", holder="b")]


@given(st.integers(1, 12), st.sampled_from([0.1, 0.5, 1.0]), st.lists(st.tuples(st.integers(0, 30), st.sampled_from("ueif"))))
def test_whatever_happens_the_counts_are_true(limit, share, steps):
    table = SessionTable(limit, 10.0, share)
    for now_s, (key, step) in enumerate(steps):
        state = session(str(key), holder="abc"[key % 3])
        if step == "u":
            for forgotten in table.use(state, now_s):
                assert table.known(forgotten.key) is None
        elif step == "e":
            table.end(str(key))
        elif step == "f":
            table.forget_idle(now_s)
        table.assert_consistent()
