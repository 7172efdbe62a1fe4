"""`sessions`: what several cells say as one table, and the same of a gateway that runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mcp_gateway.scripts.commands.sessions_command import lines_of, merged
from tests.doubles.gateway_process import GatewayProcess, run_command
from tests.end_to_end.raw_http import open_session

ROW: dict[str, Any] = {
    "session": "k",
    "client": "editor",
    "version": "2",
    "principal": "",
    "address": "10.0.0.1",
    "revision": "2025-06-18",
    "endpoint": "",
    "transports": ["streamable_http"],
    "streams": 1,
    "calls": 0,
    "servers": 1,
    "age_seconds": 90.0,
    "idle_seconds": 3.0,
}
BY_ITSELF = {key: value for key, value in ROW.items() if key not in ("servers", "age_seconds", "idle_seconds")}


def answer(*rows: dict[str, Any], sessions: int = 1) -> dict[str, Any]:
    return {"ok": True, "sessions": sessions, "clients": list(rows), "connections": {"websocket": 1}, "parked": {"10.0.0.1": 2}}


def test_a_session_that_two_cells_have_seen_is_one_row() -> None:
    other = {**ROW, "transports": ["http_sse"], "streams": 0, "calls": 2, "idle_seconds": 1.0}
    here = merged([answer(ROW, {**ROW, "session": "old", "idle_seconds": 99.0}, sessions=2), answer(other)])
    assert [row["session"] for row in here["clients"]] == ["k", "old"]
    first = here["clients"][0]
    assert (first["transports"], first["streams"], first["calls"], first["idle_seconds"]) == (
        ["http_sse", "streamable_http"],
        1,
        2,
        1.0,
    )
    assert (here["sessions"], here["connections"], here["parked"]) == (2, {"websocket": 2}, {"10.0.0.1": 4})


def test_people_read_a_table_and_what_is_held_in_all() -> None:
    stateless = {**BY_ITSELF, "session": "", "client": "", "version": "", "endpoint": "files", "calls": 1}
    lines = lines_of(merged([answer(ROW, stateless, sessions=1_500)]))
    assert lines[0].split()[:3] == ["CLIENT", "WHO", "ADDRESS"]
    assert " ".join(lines[1].split()) == "editor 2 - 10.0.0.1 2025-06-18 /mcp streamable_http 0 1 1m 30s 3.0s k"
    assert " ".join(lines[2].split()) == "- - 10.0.0.1 2025-06-18 /mcp/servers/files streamable_http 1 1 - - -"
    assert lines[4:] == ["sessions: 1500   connections: websocket 1   shown: the 1 used last", "parked calls: 2 of 10.0.0.1"]
    assert lines_of(merged([{**answer(sessions=0), "parked": {}}]))[0] == "nobody is here"


def test_of_two_cells_that_run_everybody_is_shown_and_nobody_restarts(tmp_path: Path) -> None:
    settings = '[gateway]\ncells = 2\n[[backends]]\nname = "demo"\nprefix = ""\nbuiltin = "demo"\n'
    with GatewayProcess(tmp_path / "state", cell_factory=None, settings=settings) as gateway:
        for _ in range(3):
            open_session(f"{gateway.url}/mcp")
        done = gateway.command("sessions", "--json")
        assert done.returncode == 0, done.stderr
        here = json.loads(done.stdout)
        assert sum(1 for row in here["clients"] if row["session"]) == 3
        assert {row["address"] for row in here["clients"]} == {"127.0.0.1"}
        table = gateway.command("sessions").stdout
        assert "\x1b" not in table
        assert table.startswith("CLIENT")
        assert {row["restarts"] for row in gateway.rows().values()} == {0}
        gateway.end()
    gone = run_command("sessions", "--state-dir", str(tmp_path / "state"), "--admin-port", str(gateway.admin_port))
    assert (gone.returncode, gone.stderr.count("\n")) == (1, 1)
