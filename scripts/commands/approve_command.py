"""`mcp-gateway approve`: which tools are not what was approved, and that they may be; by files alone, which all cells share."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mcp_gateway.config.shown_text import shown, shown_json

from .attaching import EXIT_NOTHING_THERE, EXIT_REFUSED, Refused, say, settings_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mcp_gateway.actors.storage.pin_file import ChangedTool
    from mcp_gateway.config.settings import Settings


def add_approve_command(commands: Any) -> None:
    """commands: what `add_subparsers` returned."""
    parser = commands.add_parser("approve", help="tools that have changed: list them, or approve one as it is now")
    parser.add_argument("tool", metavar="TOOL", nargs="?", help="BACKEND/TOOL, or its name at /mcp; without it all are listed")
    parser.add_argument("--all", action="store_true", help="approve all that have changed")
    parser.add_argument("--state-dir", metavar="D", help="where the gateway keeps its state")
    parser.add_argument("--config", metavar="F.toml", help="read that from the file it was started with")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from mcp_gateway.actors.storage.pin_file import FILE_NAME, PinFile, PinsUnavailable

    try:
        settings = settings_of(options)
    except Refused as refusal:
        return say(str(refusal), EXIT_REFUSED)
    state_path = settings.gateway.state_path
    if state_path is None or not (state_path / FILE_NAME).exists():
        return say(f"{state_path or 'this gateway'} keeps no pins of tools", EXIT_NOTHING_THERE)
    pins = PinFile(state_path)
    try:
        changed = pins.changed()
        if options.tool is None and not options.all:
            return _list(changed, as_json=options.json)
        chosen = changed if options.all else [each for each in changed if options.tool in _names_of(each, settings)]
        if not options.all and len(chosen) != 1:
            found = ", ".join(f"{each.backend}/{each.tool}" for each in chosen) or "no tool of that name"
            return say(f"{options.tool}: {found} has changed; say which, as BACKEND/TOOL", EXIT_REFUSED)
        if not chosen:
            return _list(chosen, as_json=options.json)
        for each in chosen:
            pins.approve(each.backend, each.tool)
            print(shown(f"{each.backend}/{each.tool} is approved"))
        return 0
    except (PinsUnavailable, OSError) as error:
        return say(str(error), EXIT_NOTHING_THERE)
    finally:
        pins.close()


def _names_of(changed: ChangedTool, settings: Settings) -> set[str]:
    """What a tool may be called here: its server's name for it, with the backend or alone, and its name at /mcp."""
    from mcp_gateway.transports.protocol.curation.curation import Curation

    names = {changed.tool, f"{changed.backend}/{changed.tool}"}
    backend = next((each for each in settings.backends if each.name == changed.backend), None)
    if backend is None:  # added while it ran, or known to another file
        return {*names, f"{changed.backend}__{changed.tool}"}
    served = Curation(backend.tools, backend.prefix).names.listed(changed.tool)
    return names if served is None else {*names, f"{backend.prefix}{served}"}


def _list(changed: Sequence[ChangedTool], *, as_json: bool) -> int:
    if as_json:
        print(shown_json([{"backend": each.backend, "tool": each.tool, "changed": list(each.members)} for each in changed]))
        return 0
    for each in changed:
        print(shown(f"{each.backend}/{each.tool}: {', '.join(each.members)}"))
    if not changed:
        print("every tool is what was approved")
    return 0
