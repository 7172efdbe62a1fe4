"""`sessions`: who is here, of every cell of a running gateway."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mcp_gateway.config.shown_text import shown, shown_json

from .attaching import EXIT_NOTHING_THERE, add_attach_options, ask, say
from .status_table import duration_text, table_lines

_COLUMNS = ("CLIENT", "WHO", "ADDRESS", "REVISION", "AT", "BY", "CALLS", "STREAMS", "AGE", "IDLE", "SESSION")


def add_sessions_command(commands: Any) -> None:
    """commands: what `add_subparsers` returned."""
    parser = commands.add_parser(
        "sessions",
        help="who is here: sessions and open requests of a running gateway",
        description="Sessions by their last use, then clients without one that have something open; up to 1000 of each cell. "
        "Calls that wait for an answer of their client (parked) are counted by address.",
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    add_attach_options(parser, with_config=True)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    return ask(options, lambda client: _show(client, options.json))


def _show(client: Any, as_json: bool) -> int:
    answers = asked_cells(client)
    if not answers:
        return say("no cell has answered", EXIT_NOTHING_THERE)
    here = merged(answers)
    print(shown_json(here, indent=2) if as_json else "\n".join(map(shown, lines_of(here))), flush=True)
    return 0


def asked_cells(client: Any) -> list[Mapping[str, Any]]:
    """What each cell answers that does; one that is just being started again does not."""
    names = _cell_names(client.status()["tree"])
    answers = (client.command("sessions", {"child": f"{name}/edge"}) for name in names)
    return [answer for answer in answers if "clients" in answer]


def _cell_names(tree: Iterable[Mapping[str, Any]]) -> list[str]:
    """Of the tree of `status`: cell/0, and not the actors in it."""
    names = []
    for row in tree:
        if row["name"].startswith("cell/") and row["name"].count("/") == 1:
            names.append(str(row["name"]))
        names += _cell_names(row.get("children", ()))
    return names


def merged(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """{"sessions", "clients", "connections", "parked"} of all cells; a session that several have seen is one row."""
    sessions: dict[str, dict[str, Any]] = {}
    others: list[Mapping[str, Any]] = []
    connections: dict[str, int] = {}
    parked: dict[str, int] = {}
    for answer in answers:
        for row in answer["clients"]:
            if not row["session"]:
                others.append(row)
            elif (known := sessions.get(row["session"])) is None:
                sessions[row["session"]] = dict(row)
            else:
                known["transports"] = sorted({*known["transports"], *row["transports"]})
                known["streams"] += row["streams"]
                known["calls"] += row["calls"]
                known["idle_seconds"] = min(known["idle_seconds"], row["idle_seconds"])
        for total, key in ((connections, "connections"), (parked, "parked")):
            for name, count in answer[key].items():
                total[name] = total.get(name, 0) + count
    ordered = sorted(sessions.values(), key=lambda row: row["idle_seconds"])
    most = max(len(sessions), *(answer["sessions"] for answer in answers))  # what several cells have seen cannot be added up
    return {"sessions": most, "clients": [*ordered, *others], "connections": connections, "parked": parked}


def lines_of(here: Mapping[str, Any]) -> list[str]:
    """A table for people, and what is held in all."""
    rows = [_row(row) for row in here["clients"]]
    shown_sessions = sum(1 for row in here["clients"] if row["session"])
    counts = [f"{name} {count}" for name, count in sorted(here["connections"].items())]
    summary = f"sessions: {here['sessions']}   connections: {', '.join(counts) or 'none'}"
    if here["sessions"] > shown_sessions:
        summary += f"   shown: the {shown_sessions} used last"
    parked = [f"{count} of {address or 'nobody'}" for address, count in sorted(here["parked"].items())]
    return [
        *(table_lines(_COLUMNS, rows) if rows else ["nobody is here"]),
        "",
        summary,
        f"parked calls: {', '.join(parked) or 'none'}",
    ]


def _row(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        f"{row['client']} {row['version']}".strip() or "-",
        row["principal"] or "-",
        row["address"] or "-",
        row["revision"],
        f"/mcp/servers/{row['endpoint']}" if row["endpoint"] else "/mcp",
        " ".join(row["transports"]) or "-",
        str(row["calls"]),
        str(row["streams"]),
        duration_text(row["age_seconds"]) if "age_seconds" in row else "-",
        duration_text(row["idle_seconds"]) if "idle_seconds" in row else "-",
        row["session"] or "-",
    )
