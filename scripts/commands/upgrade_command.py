"""`upgrade`: the cells of a running gateway take in the code that is installed now, one after the other."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Final

from .attaching import add_attach_options, ask, report
from .restart_command import restart_cells

if TYPE_CHECKING:
    from .admin_client import AdminClient

_LOADING_TIMEOUT_S: Final = 95.0
"""A little longer than the node gives the new code to be loaded."""


def add_upgrade_command(commands: Any) -> None:
    """commands: what `add_subparsers` returned."""
    text = (
        "let the cells of a running gateway take in the code that is installed now, one after the other, while the others serve"
    )
    parser = commands.add_parser("upgrade", help=text)
    add_attach_options(parser, with_config=True)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    return ask(options, _upgrade)


def _upgrade(client: AdminClient) -> int:
    """This process has loaded the code of now; the node says whether it could speak to cells that have, too."""
    from mcp_gateway.actors.node.wire_fingerprint import WIRE_FINGERPRINT

    answer = client.command("upgrade", {"fingerprint": WIRE_FINGERPRINT}, _LOADING_TIMEOUT_S)
    if exit_code := report(answer, "from now on processes start with the code that is installed"):
        return exit_code
    return restart_cells(client)
