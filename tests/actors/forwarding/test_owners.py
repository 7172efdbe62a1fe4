"""Which cell of which node holds the connection that a session has."""

from __future__ import annotations

from mcp_gateway.actors.forwarding.owners import Owners
from mcp_gateway.transports.ports.cell_names import node_of
from mcp_gateway.transports.ports.replica_id import ReplicaId
from mcp_gateway.transports.protocol.sealed.session import SessionState

STDIO = ReplicaId("files", "stdio:files#0")
HTTP = ReplicaId("web", "http://127.0.0.1:1/mcp")


def session(key: str, node: str) -> SessionState:
    return SessionState(key, "", "2025-11-25", "", b"{}", (), node=node)


def owners(cell: str = "a/cell/0", others: dict[str, int] | None = None, *, is_member: bool = True) -> Owners:
    made = Owners(cell, 2)
    made.nodes_changed({"b": 4} if others is None else others, is_member=is_member)
    return made


def test_a_node_that_is_alone_shares_servers_out_as_it_always_did() -> None:
    alone = Owners("cell/1", 2)
    assert alone.owner_of(HTTP) == "cell/1"
    assert alone.owner_of(STDIO) == owners().owner_of(STDIO).removeprefix("a/")
    assert alone.owner_for(STDIO, session("key", "")) == alone.owner_of(STDIO)
    assert not alone.is_gone("cell/0")
    assert not alone.is_cut_off_from("cell/0")


def test_a_session_is_spoken_for_by_the_cell_of_its_own_node_from_wherever_it_is_asked() -> None:
    at_home = Owners("b/cell/3", 4)
    at_home.nodes_changed({"a": 2}, is_member=True)
    for key in ("one", "other"):
        owner = owners().owner_for(STDIO, session(key, "b"))
        assert owner is not None
        assert owner.startswith("b/cell/")
        assert owner == at_home.owner_for(STDIO, session(key, "b")) == at_home.owner_of(STDIO)


def test_what_any_cell_may_speak_to_has_no_owner_elsewhere() -> None:
    assert owners().owner_for(HTTP, session("key", "b")) == "a/cell/0"
    assert owners().owner_for(STDIO, None) == owners().owner_of(STDIO)


def test_sessions_of_a_node_that_is_gone_are_shared_out_among_those_that_are_there_alike_by_all() -> None:
    at_a = owners(others={"c": 2})
    at_c = Owners("c/cell/1", 2)
    at_c.nodes_changed({"a": 2}, is_member=True)
    found = [at_a.owner_for(STDIO, session(f"key-{number}", "b")) for number in range(100)]
    assert found == [at_c.owner_for(STDIO, session(f"key-{number}", "b")) for number in range(100)]
    assert {node_of(owner or "") for owner in found} == {"a", "c"}
    assert at_a.is_gone("b/cell/0")
    assert not at_a.is_gone("c/cell/0")


def test_where_one_node_more_goes_only_its_own_sessions_move() -> None:
    before, after = owners(others={"c": 2, "d": 2}), owners(others={"c": 2})
    for number in range(100):
        orphan = session(f"key-{number}", "b")
        owner = before.owner_for(STDIO, orphan)
        if node_of(owner or "") != "d":
            assert after.owner_for(STDIO, orphan) == owner


def test_a_node_that_is_cut_off_does_not_guess_where_the_sessions_of_others_live() -> None:
    cut_off = owners(others={}, is_member=False)
    assert cut_off.owner_for(STDIO, session("key", "b")) is None
    assert cut_off.is_cut_off_from("b/cell/0")
    assert not cut_off.is_gone("b/cell/0")
    assert cut_off.owner_for(STDIO, session("key", "a")) == cut_off.owner_of(STDIO)


def test_a_change_is_listened_for_wherever_somebody_speaks_to_the_server_himself() -> None:
    """Any cell to a server at HTTP; to a process the one cell of each other node that has it, as far as that runs."""
    at_a = owners(others={"b": 4, "c": 2})
    of_b, of_c = at_a.cell_at("b", STDIO), at_a.cell_at("c", STDIO)
    running = frozenset({"a/cell/1", of_c, *(f"b/cell/{index}" for index in range(4))})
    assert at_a.speakers(HTTP, running) == running
    assert at_a.speakers(STDIO, running) == {of_b, of_c}
    assert at_a.speakers(STDIO, running - {of_c}) == {of_b}
    assert Owners("cell/1", 2).speakers(STDIO, frozenset({"cell/0"})) == frozenset()
