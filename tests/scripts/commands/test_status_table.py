"""The status of a gateway as lines for a person."""

from __future__ import annotations

from typing import Any

from mcp_gateway.scripts.commands.status_table import backend_lines, cluster_lines, status_lines, table_lines

STATUS: dict[str, Any] = {
    "version": "1.2.3",
    "uptime_seconds": 61.0,
    "tree": [],
    "backends": [],
    "sessions": 2,
    "connections": {"http_sse": 1},
}


def test_what_hurts_stands_at_the_end() -> None:
    aches = [{"source": "latency/files", "reason": "slow"}, {"source": "restarts", "reason": "1 restart"}]
    lines = status_lines({**STATUS, "viability": {"status": "strained", "pain": 0.312, "aches": aches}})
    assert lines[-4:] == [
        "sessions: 2   connections: http_sse 1",
        "viability: strained   pain: 0.31",
        "  latency/files: slow",
        "  restarts: 1 restart",
    ]


def test_a_gateway_that_nobody_has_judged_yet_says_nothing_of_it() -> None:
    assert status_lines(STATUS)[-1] == "sessions: 2   connections: http_sse 1"


def test_the_addresses_to_copy_are_shown_where_the_url_is_known() -> None:
    lines = status_lines({**STATUS, "url": "http://h:1", "backends": [{"name": "my-notes", "title": "My Notes"}]})
    at = lines.index("addresses:")
    assert lines[at + 1].split() == ["Streamable", "HTTP", "http://h:1/mcp"]
    assert lines[at + 4].split() == ["My", "Notes", "alone", "http://h:1/mcp/servers/my-notes"]
    assert "addresses:" not in status_lines(STATUS)
    with_server = status_lines({**STATUS, "url": "http://h:1", "servers": [{"name": "research", "include": [], "exclude": []}]})
    assert any(line.rstrip().endswith("http://h:1/mcp/servers/research") for line in with_server)
    with_grpc = status_lines({**STATUS, "url": "http://h:1", "grpc_port": 50052})
    assert "gRPC             h:50052" in [line.strip() for line in with_grpc]


def test_names_as_written_stand_at_the_end_where_any_differs() -> None:
    replica = {"address": "stdio:files#0", "ring_share": 1.0}
    backends = [
        {"name": "files", "title": "files", "replicas": [replica]},
        {"name": "my-notes", "title": "My Notes", "replicas": [replica]},
    ]
    lines = status_lines({**STATUS, "backends": backends})
    head = next(index for index, line in enumerate(lines) if line.startswith("BACKEND"))
    assert [line.split("  ")[-1].strip() for line in lines[head : head + 3]] == ["WRITTEN AS", "files", "My Notes"]
    assert "WRITTEN AS" not in "".join(status_lines({**STATUS, "backends": backends[:1]}))


def test_a_replica_that_drains_alone_says_so_and_a_backend_that_drains_says_it_of_each() -> None:
    replicas = [{"address": "http://a/mcp"}, {"address": "http://b/mcp"}]
    backend = {"name": "files", "replicas": replicas, "draining_replicas": ["http://b/mcp"]}
    for is_draining, states in ((False, ["serving", "draining"]), (True, ["draining", "draining"])):
        lines = backend_lines([{**backend, "draining": is_draining}])
        assert [line.split()[1] for line in lines[1:]] == states


def test_a_server_that_is_left_out_has_a_line_with_the_reason() -> None:
    left_out = [{"name": "bad", "title": "Bad one", "reason": "m.json: found 3; allowed: a table"}]
    lines = status_lines({**STATUS, "left_out": left_out})
    assert lines[-4:-2] == ["", "left out: Bad one: m.json: found 3; allowed: a table"]


def test_nodes_of_a_cluster_are_shown_as_this_one_sees_them() -> None:
    node = {"epoch": 3, "cells": 2, "draining": False, "version": "1.2.3", "url": "http://a:4000"}
    nodes = [{**node, "name": "a"}, {**node, "name": "b", "draining": True}]
    cluster = {"node": "a", "is_member": False, "engine": "away", "nodes": nodes}
    lines = status_lines({**STATUS, "cluster": cluster})
    assert lines[-6:-2] == [
        "NODE          EPOCH  CELLS  STATE     VERSION  URL",
        "a (this one)  3      2      serving   1.2.3    http://a:4000",
        "b             3      2      draining  1.2.3    http://a:4000",
        "engine: away, cut off: what lives on other nodes cannot be reached",
    ]


def test_leases_lag_and_owners_of_a_cluster_are_shown() -> None:
    node = {"name": "a", "epoch": 3, "cells": 2, "draining": False, "version": "1", "url": "http://a", "lease_age_seconds": 1.23}
    cluster = {"node": "a", "is_member": True, "engine": "connected", "nodes": [node], "revision": 41, "lag_events": 2}
    owned = [{"thing": "files/stdio:files#0", "node": "b", "token": 17}]
    assert cluster_lines({**cluster, "owned": owned}) == [
        "",
        "NODE          EPOCH  CELLS  STATE    RENEWED   VERSION  URL",
        "a (this one)  3      2      serving  1.2s ago  1        http://a",
        "engine: connected, revision 41, 2 events behind",
        "files/stdio:files#0 runs once, on b (fencing token 17)",
    ]


def test_what_a_gateway_tells_moves_no_terminal_and_keeps_its_columns() -> None:
    lines = table_lines(("NAME", "STATE"), [("a\x1b[2J", "ok"), ("b", "\u202eko")])
    assert lines == [r"NAME      STATE", r"a\x1b[2J  ok", r"b         \u202eko"]
