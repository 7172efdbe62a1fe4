"""Which sessions live: across cells, restarts and time."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mcp_gateway.actors.edge import session_keeper
from mcp_gateway.actors.edge.session_keeper import SessionKeeper
from mcp_gateway.actors.storage.session_journal import SessionJournal
from mcp_gateway.transports.protocol.sealed.session import SessionFacts, SessionState, UpstreamSession

IDLE_S = 40.0
START_MS = 1_000_000_000_000


class Node:
    """Cells that share a state directory, and one clock for all."""

    def __init__(self, path: Path | None, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.now_s = 0.0
        monkeypatch.setattr(session_keeper.time, "time", lambda: START_MS / 1000 + self.now_s)

    @property
    def now_ms(self) -> int:
        return START_MS + int(self.now_s * 1000)

    def cell(self, **how: Any) -> SessionKeeper:
        options: dict[str, Any] = {"max_sessions": 100, "idle_timeout_s": IDLE_S, "is_alone": False, **how}
        return SessionKeeper(SessionJournal(self.path, self.now_ms), **options)

    def session(self, key: str = "a") -> SessionState:
        upstreams = (UpstreamSession("files", "files#0", "first", "2025-11-25"),)
        return SessionState(key, "", "2025-11-25", "", b"{}", upstreams, issued_ms=self.now_ms)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    return Node(tmp_path, monkeypatch)


def test_a_session_is_found_by_every_cell_and_by_the_next_gateway_as_it_is_now(node: Node) -> None:
    one, two = node.cell(), node.cell()
    sealed = node.session()
    one.open(sealed, node.now_s)
    one.replace_upstream("a", UpstreamSession("files", "files#1", "second", "2025-11-25"))
    one.replace_facts("a", SessionFacts("warning"))
    for keeper in (one, two, node.cell()):
        found = keeper.find(sealed, node.now_s)
        assert found is not None
        assert (found.facts.log_level, found.upstreams[0].session_id) == ("warning", "second")


def test_what_another_cell_has_repaired_is_seen_when_it_is_asked_for(node: Node) -> None:
    one, two = node.cell(), node.cell()
    sealed = node.session()
    one.open(sealed, node.now_s)
    stale = two.use(two.find(sealed, 0.0) or sealed, node.now_s)
    one.replace_upstream("a", UpstreamSession("files", "files#1", "second", "2025-11-25"))
    assert stale.upstreams[0].session_id == "first"
    assert two.refresh(stale).upstreams[0].session_id == "second"
    assert two.use(sealed, node.now_s).upstreams[0].session_id == "second"


def test_what_another_cell_says_of_a_session_is_known_at_once_and_unknown_sessions_stay_unknown(node: Node) -> None:
    one, two = node.cell(), node.cell()
    sealed = node.session()
    one.open(sealed, node.now_s)
    two.use(sealed, node.now_s)
    one.replace_upstream("a", UpstreamSession("files", "files#1", "second", "2025-11-25"))
    changed = one.replace_facts("a", SessionFacts("warning"))
    assert changed is not None
    two.changed_elsewhere(sealed)  # as old as any that may still be on its way: the journal knows better
    assert two.use(sealed, node.now_s) == changed
    three = node.cell()
    three.changed_elsewhere(changed)
    assert len(three) == 0


def test_in_memory_a_cell_believes_what_another_one_says_of_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(None, monkeypatch)
    one, two = node.cell(), node.cell()
    sealed = node.session()
    for keeper in (one, two):
        keeper.use(sealed, node.now_s)
    changed = one.replace_facts("a", SessionFacts("warning"))
    assert changed is not None
    two.changed_elsewhere(changed)
    assert two.use(sealed, node.now_s) == changed


def test_what_the_journal_has_missed_is_not_forgotten_and_written_later(node: Node, tmp_path: Path) -> None:
    one, two = node.cell(), node.cell()
    sealed = node.session()
    one.open(sealed, node.now_s)
    two.use(sealed, node.now_s)
    (path,) = tmp_path.glob("*.sqlite3")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # somebody else writes, for longer than is waited for
    repaired = one.replace_upstream("a", UpstreamSession("files", "files#1", "second", "2025-11-25"))
    assert repaired is not None
    assert one.refresh(sealed) == repaired
    other.execute("COMMIT")
    other.close()
    assert two.refresh(sealed) == sealed
    one.sweep(node.now_s)
    assert two.refresh(sealed) == one.refresh(sealed) == repaired


def test_a_session_that_one_cell_has_ended_is_over_in_all(node: Node) -> None:
    one, two = node.cell(), node.cell()
    sealed = node.session()
    one.open(sealed, node.now_s)
    one.end("a")
    for keeper in (one, two, node.cell()):
        assert keeper.find(sealed, node.now_s) is None


@pytest.mark.parametrize("is_durable", [True, False])
@pytest.mark.parametrize("idle_s", [IDLE_S, 1_000.0])
def test_an_ended_session_stays_over_when_the_cell_knows_no_more_that_it_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_durable: bool, idle_s: float
) -> None:
    """Ours: that takes no more memory than of those of two such times, which are the idle timeout and five minutes at least."""
    node = Node(tmp_path if is_durable else None, monkeypatch)
    keeper = node.cell(idle_timeout_s=idle_s)
    kept_s = max(300.0, idle_s + 2 * keeper.note_s)
    keeper.sweep(node.now_s)
    sealed = node.session()
    keeper.open(sealed, node.now_s)
    keeper.end("a")
    for now_s, is_known in ((kept_s - 1, True), (kept_s, True), (2 * kept_s - 1, True), (2 * kept_s, False)):
        node.now_s = now_s
        keeper.sweep(now_s)
        assert keeper.is_ended("a") is is_known
        assert keeper.find(sealed, now_s) is None


def test_a_session_that_another_node_has_ended_stays_over_however_long_ago(node: Node) -> None:
    """Its id tells when it was opened, and nobody here when it was used last."""
    keeper = node.cell(node="one")
    foreign = msgspec.structs.replace(node.session(), node="two")
    keeper.use(foreign, node.now_s)
    keeper.end("a")
    for _ in range(4):
        node.now_s += 1_000.0
        keeper.sweep(node.now_s)
    assert keeper.find(foreign, node.now_s) is None


def test_sessions_that_expire_together_are_over_at_once_and_leave_one_part_after_the_other(node: Node) -> None:
    """Ours: each of them is to be told to its servers, and all at once take the memory of as many calls."""
    keeper = node.cell(max_sessions=1_000)
    for number in range(1_000):
        keeper.open(node.session(str(number)), node.now_s)
    keeper.sweep(node.now_s)
    node.now_s += 2 * IDLE_S
    left = [keeper.sweep(node.now_s)]
    assert len(keeper) == 0
    assert all(keeper.is_ended(str(number)) for number in range(1_000))
    while left[-1]:
        left.append(keeper.sweep(node.now_s))
    assert [len(part) for part in left[:3]] == [100, 90, 81]
    assert all(len(part) >= 50 for part in left[:-2])
    assert sorted(int(each.key) for part in left for each in part) == list(range(1_000))


def test_a_session_lives_while_any_cell_uses_it_and_expires_when_none_does(node: Node) -> None:
    one, two = node.cell(), node.cell()
    sealed = node.session()
    one.open(sealed, node.now_s)
    for _ in range(10):
        node.now_s += IDLE_S / 2
        assert two.find(sealed, node.now_s) is not None
        two.use(sealed, node.now_s)
        assert one.sweep(node.now_s) == two.sweep(node.now_s) == []
    node.now_s += IDLE_S + 3 * one.note_s
    assert one.find(sealed, node.now_s) is None
    assert one.sweep(node.now_s) == [sealed]
    assert two.sweep(node.now_s) == []  # one cell tells its servers, not both
    assert two.find(sealed, node.now_s) is None


def test_a_session_at_the_limit_stays_and_one_past_it_drives_out_the_longest_unused(node: Node) -> None:
    keeper = node.cell(max_sessions=2)
    sessions = {}
    for key in "abc":
        node.now_s += 1
        sessions[key] = node.session(key)
        evicted = keeper.open(sessions[key], node.now_s)
    assert [state.key for state in evicted] == ["a"]
    assert [key for key in "abc" if keeper.find(sessions[key], node.now_s)] == ["b", "c"]


@pytest.mark.parametrize("keys", ["abc", "bac"])
def test_the_longest_unused_is_known_among_those_that_were_noted_together(keys: str, node: Node) -> None:
    keeper = node.cell(max_sessions=2)
    sessions = {key: node.session(key) for key in keys}
    for key in keys[:2]:
        node.now_s += 1
        keeper.open(sessions[key], node.now_s)
        keeper.use(sessions[key], node.now_s)
    node.now_s += 2 * keeper.note_s
    assert keeper.sweep(node.now_s) == []
    assert [state.key for state in keeper.open(sessions[keys[2]], node.now_s)] == [keys[0]]


@pytest.mark.parametrize("has_disk", [True, False])
def test_who_opens_many_drives_out_its_own_sessions_in_whichever_cell(
    has_disk: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In memory there is one cell, or else what has made room lives on in its id."""
    node = Node(tmp_path if has_disk else None, monkeypatch)
    cells = [node.cell(max_sessions=40, largest_share=0.1, is_alone=not has_disk) for _ in range(1 + has_disk)]
    mine = msgspec.structs.replace(node.session("mine"), holder="10.0.0.1")
    cells[0].open(mine, node.now_s)
    evicted = []
    for number in range(100):
        node.now_s += 0.01
        theirs = msgspec.structs.replace(node.session(f"theirs {number}"), holder="10.0.0.2")
        evicted += cells[number % len(cells)].open(theirs, node.now_s)
    assert [state.key for state in evicted] == [f"theirs {number}" for number in range(96)]
    assert all(cell.find(mine, node.now_s) for cell in cells)


def test_an_id_from_before_a_new_journal_is_judged_by_its_age(node: Node) -> None:
    """The old file was lost: its sessions are not, unless they are too old to be alive."""
    old = node.session("old")
    node.now_s += IDLE_S * 2
    young = node.session("young")
    node.now_s += 1
    keeper = node.cell()
    assert keeper.find(young, node.now_s) == young
    assert keeper.find(old, node.now_s) is None
    forged = node.session("never opened")
    assert keeper.find(forged, node.now_s) is None


# ---- without a disk


def test_in_memory_a_lone_cell_expires_and_evicts_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(None, monkeypatch)
    keeper = node.cell(is_alone=True, max_sessions=2)
    a, b, c = (node.session(key) for key in "abc")
    keeper.open(a, node.now_s)
    keeper.open(b, node.now_s)
    assert keeper.open(c, node.now_s) == [a]
    assert keeper.find(a, node.now_s) is None
    node.now_s += IDLE_S
    assert keeper.sweep(node.now_s) == [b, c]
    assert keeper.find(b, node.now_s) is None


def test_in_memory_a_cell_knows_what_it_has_repaired_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(None, monkeypatch)
    keeper, sealed = node.cell(), node.session()
    assert keeper.refresh(sealed) == sealed
    keeper.open(sealed, node.now_s)
    repaired = keeper.replace_upstream("a", UpstreamSession("files", "files#1", "second", "2025-11-25"))
    assert repaired is not None
    assert keeper.refresh(sealed) == repaired


def test_in_memory_cells_believe_an_id_that_another_one_has_sealed_for_as_long_as_it_may_live(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = Node(None, monkeypatch)
    one, two = node.cell(), node.cell()
    sealed = node.session()
    assert one.open(sealed, node.now_s) == []
    assert two.find(sealed, node.now_s) == sealed
    two.end("a")
    assert two.find(sealed, node.now_s) is None
    node.now_s += IDLE_S * 3
    assert one.find(sealed, node.now_s) is None


def test_without_a_timeout_nothing_expires(node: Node) -> None:
    keeper = node.cell(idle_timeout_s=float("inf"))
    sealed = node.session()
    keeper.open(sealed, node.now_s)
    node.now_s += 10**9
    assert keeper.sweep(node.now_s) == []
    assert keeper.find(sealed, node.now_s) == sealed


# ---- in a cluster: two keepers with a journal each


def test_a_session_of_another_node_is_served_until_that_node_has_ended_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, other = (Node(tmp_path / name, monkeypatch) for name in "ab")
    for each in (home, other):
        assert each.path is not None
        each.path.mkdir()
    at_home, elsewhere = home.cell(node="a"), other.cell(node="b")
    state = msgspec.structs.replace(home.session(), node="a")
    at_home.open(state, 0.0)
    assert elsewhere.find(state, 0.0) == state
    elsewhere.use(state, 0.0)
    elsewhere.end(state.key)
    assert elsewhere.find(state, 0.0) is None


def test_a_session_that_is_used_at_another_node_alone_does_not_expire_at_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path / "a", monkeypatch)
    assert node.path is not None
    node.path.mkdir()
    at_home, elsewhere = node.cell(node="a"), SessionKeeper(SessionJournal(None, 0), 100, IDLE_S, is_alone=True, node="b")
    used, idle = (msgspec.structs.replace(node.session(key), node="a") for key in ("used", "idle"))
    for state in (used, idle):
        at_home.open(state, 0.0)
    expired = []
    while node.now_s < 3 * IDLE_S:
        node.now_s += 1.0
        elsewhere.use(used, node.now_s)
        told = elsewhere.take_used_elsewhere(node.now_s)
        assert told.keys() <= {"a"}
        at_home.note_use(told.get("a", {}))
        expired += at_home.sweep(node.now_s)
    assert [state.key for state in expired] == ["idle"]


def test_a_session_of_another_node_that_nobody_has_used_here_for_the_idle_timeout_is_not_found(node: Node) -> None:
    elsewhere = node.cell(node="b")
    state = msgspec.structs.replace(node.session(), node="a")
    elsewhere.use(state, 0.0)
    assert elsewhere.find(state, IDLE_S - 1.0) is not None
    assert elsewhere.find(state, IDLE_S + 1.0) is None
