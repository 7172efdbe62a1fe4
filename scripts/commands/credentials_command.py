"""`mcp-gateway credentials`: who is logged in at which server through the gateway; by the files alone, which all cells share."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mcp_gateway.config.shown_text import shown, shown_json

from .attaching import EXIT_NOTHING_THERE, EXIT_REFUSED, Refused, say, settings_of

if TYPE_CHECKING:
    from mcp_gateway.actors.storage.stored_vault import KeptCredential, StoredVault

_KINDS = {"grant": "user", "client": "registration"}


def add_credentials_command(commands: Any) -> None:
    """commands: what `add_subparsers` returned."""
    parser = commands.add_parser("credentials", help="who is logged in at which server; tokens themselves are never shown")
    actions = parser.add_subparsers(metavar="ACTION", dest="action")
    listing = actions.add_parser("list", help="what is kept (what is done without an action)")
    deleting = actions.add_parser("delete", help="forget what is kept of a server, of a user, or of a user at a server")
    deleting.add_argument("--backend", metavar="NAME", help="at this server")
    deleting.add_argument("--subject", metavar="S", help="of this user")
    deleting.add_argument("--issuer", metavar="I", help="as this issuer names it; each one if not given")
    deleting.add_argument("--all", action="store_true", help="of everybody at every server")
    rotating = actions.add_parser("rotate", help="seal what is kept under a new key, and forget the old one")
    for each in (parser, listing, deleting, rotating):
        # Where an action has options of its own, what stands before it must not be lost to a default behind it.
        default = None if each is parser else argparse.SUPPRESS
        each.add_argument("--state-dir", metavar="D", default=default, help="where the gateway keeps its state")
        each.add_argument("--config", metavar="F.toml", default=default, help="read that from the file it was started with")
    for each in (parser, listing):
        each.add_argument("--json", action="store_true", default=False, help="for programs")
    parser.set_defaults(run=_credentials)


def _credentials(options: argparse.Namespace) -> int:
    from mcp_gateway.actors.storage.stored_vault import FILE_NAME, StoredVault
    from mcp_gateway.transports.ports.credential_vault import VaultFailed

    try:
        state_path = settings_of(options).gateway.state_path
        if options.action == "delete" and not (options.all or options.backend or options.subject is not None):
            raise Refused("say what to delete: --backend NAME, --subject S or --all")
    except Refused as refusal:
        return say(str(refusal), EXIT_REFUSED)
    if state_path is None or not (state_path / FILE_NAME).exists():
        return say(f"{state_path or 'this gateway'} keeps no credentials", EXIT_NOTHING_THERE)
    vault = StoredVault(state_path)
    try:
        if options.action == "delete":
            return _delete(vault, options)
        if options.action == "rotate":
            print(f"{vault.rotate()} entries are sealed under a new key")
            return 0
        return _list(vault, as_json=options.json)
    except (VaultFailed, OSError) as error:
        return say(str(error), EXIT_NOTHING_THERE)
    finally:
        vault.close()


def _list(vault: StoredVault, *, as_json: bool) -> int:
    from datetime import UTC, datetime

    rows = []
    for each in vault.kept():
        issuer, _, subject = each.principal.partition(" ")
        changed = datetime.fromtimestamp(each.changed_ms / 1_000, UTC).isoformat(timespec="seconds")
        kind = _KINDS[each.kind.value]
        rows.append({"backend": each.backend, "kind": kind, "subject": subject, "issuer": issuer, "changed": changed})
    if as_json:
        print(shown_json(rows))
        return 0
    table = [("BACKEND", "KIND", "SUBJECT", "ISSUER", "CHANGED"), *(tuple(row.values()) for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        print(shown("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()))
    return 0


def _delete(vault: StoredVault, options: argparse.Namespace) -> int:
    if options.subject is None:
        count = vault.delete_of(options.backend)
    else:
        principals = {each.principal for each in vault.kept() if _is_of(each, options)}
        count = sum(vault.delete_of(options.backend, principal) for principal in principals)
    print(f"{count} deleted")
    return 0 if count else EXIT_NOTHING_THERE


def _is_of(kept: KeptCredential, options: argparse.Namespace) -> bool:
    issuer, _, subject = kept.principal.partition(" ")
    return kept.kind.value == "grant" and subject == options.subject and options.issuer in (None, issuer)
