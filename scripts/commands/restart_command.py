"""`restart`: a part of a running gateway in good order, or all of its cells one after the other."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .attaching import add_attach_options, ask, report

if TYPE_CHECKING:
    from .admin_client import AdminClient


def add_restart_command(commands: Any) -> None:
    """commands: what `add_subparsers` returned."""
    parser = commands.add_parser("restart", help="restart a part of a running gateway in good order")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("child", metavar="CHILD", nargs="?", help="cell/0, event-log, cell/0/router; NODE/cell/0 of another node")
    what.add_argument("--rolling", action="store_true", help="every cell, one after the other, while the others serve")
    add_attach_options(parser, with_config=True)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    return ask(options, restart_cells if options.rolling else lambda client: _restart(client, options.child))


def restart_cells(client: AdminClient) -> int:
    """Each when the one before it serves again; where one does not come back, the rest stay as they are."""
    for cell in cell_names(client.status()["tree"]):
        if exit_code := _restart(client, cell):
            return exit_code
    return 0


def _restart(client: AdminClient, child: str) -> int:
    return report(client.command("restart", {"child": child}), f"{child} restarted")


def cell_names(rows: list[Mapping[str, Any]]) -> Iterator[str]:
    """Names of the processes that serve clients, in a supervision tree as `status` has it."""
    for row in rows:
        kind, _, rest = row["name"].partition("/")
        if kind == "cell" and rest.isdigit():
            yield row["name"]
        else:
            yield from cell_names(row["children"])
