"""`revoke`: take access from a subject or a credential, in every cell before the command ends."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from mcp_gateway.config.shown_text import shown

from .attaching import EXIT_REFUSED, add_attach_options, ask, report

if TYPE_CHECKING:
    from .admin_client import AdminClient


def add_revoke_command(commands: Any) -> None:
    """commands: what `add_subparsers` returned."""
    parser = commands.add_parser(
        "revoke",
        help="take access from a subject or a credential, and end its streams",
        description="Take access from a subject or a credential. When this returns, no cell of the gateway serves it, and its"
        " streams have ended. It stays so when the gateway starts again, where that has a state directory.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("subject", metavar="SUBJECT", nargs="?", help="a name, a pattern such as team-*, or 'ISSUER SUBJECT'")
    what.add_argument("--fingerprint", metavar="F", help="of one credential, as the log shows it")
    parser.add_argument("--undo", action="store_true", help="give access back")
    add_attach_options(parser, with_config=True)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    key = "subject" if options.subject is not None else "fingerprint"
    name = getattr(options, key)
    return ask(options, lambda client: _revoke(client, key, name, undo=options.undo))


def _revoke(client: AdminClient, key: str, name: str, *, undo: bool) -> int:
    answer = client.command("revoke", {key: name, "undo": undo})
    if "refused" in answer:
        print("\n".join(map(shown, answer["refused"])), file=sys.stderr)
        return EXIT_REFUSED
    if not undo:
        return report(answer, f"{name} has no access any more")
    from mcp_gateway.transports.identity.denials import reinstated

    return report(answer, reinstated(name, answer.get("denied", ()) if key == "subject" else ()))
