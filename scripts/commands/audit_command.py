"""`mcp-gateway audit verify`: whether the trail of what policies have decided is whole."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

from mcp_gateway.config.shown_text import shown

from .attaching import EXIT_REFUSED, Refused, say, settings_of

EXIT_BROKEN: Final = 1


def add_audit_command(commands: Any) -> None:
    """commands: what `add_subparsers` returned."""
    audit = commands.add_parser("audit", help="the trail of what policies have decided")
    actions = audit.add_subparsers(metavar="ACTION", required=True)
    verify = actions.add_parser(
        "verify", help="check that no line was changed, left out or put in; exit 1 where the chain breaks"
    )
    verify.add_argument("--config", metavar="F.toml", help="the file that the gateway was started with")
    verify.add_argument("--state-dir", metavar="D", help="where the gateway keeps its state")
    verify.add_argument(
        "--head", metavar="HASH", help="that of a line as `audit verify` told it before: the trail must still hold it"
    )
    verify.set_defaults(run=_verify)


def _verify(options: argparse.Namespace) -> int:
    try:
        folder = settings_of(options).gateway.state_path
        if folder is None or not folder.is_dir():
            raise Refused("there is no state directory, and so no audit trail")
        return _verify_folder(folder, options.head)
    except OSError as error:
        return say(f"{error.filename or 'the audit trail'}: {error.strerror}", EXIT_REFUSED)
    except Refused as refusal:
        return say(str(refusal), EXIT_REFUSED)


def _verify_folder(folder: Path, wanted_head: str | None) -> int:
    """Raises: OSError."""
    from mcp_gateway.actors.storage.audit_chain import LONGEST_LINE_BYTES, ChainCheck
    from mcp_gateway.actors.storage.audit_file import opened_parts

    check, line_count, has_head = ChainCheck(), 0, wanted_head is None
    for path, file, size in opened_parts(folder):
        with file:
            number = 0
            while file.tell() < size:  # what has come since belongs to the next look
                line, number = file.readline(LONGEST_LINE_BYTES + 1), number + 1
                if not line.endswith(b"\n") and file.tell() >= size:
                    print(f"{shown(str(path))}:{number}: a line that was not finished is not counted")
                    break
                problem = check.take(line.removesuffix(b"\n"))
                if problem is not None:
                    print(f"{shown(str(path))}:{number}: {problem}")
                    return EXIT_BROKEN
                line_count += 1
                has_head = has_head or check.end.head == wanted_head
    if not line_count:
        print("the audit trail is empty")
    else:
        print(f"entries {check.first_number} to {check.end.number} follow each other; head {check.end.head}")
        if check.first_number > 1:
            print(f"older ones than {check.first_number} are gone: retention has dropped them, or somebody else")
    if not has_head:
        print("no line has the hash that was asked for: the trail was cut, or written anew")
        return EXIT_BROKEN
    return 0
