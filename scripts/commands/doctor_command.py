"""`doctor`: looks at everything that a gateway needs here, and says what to do where something is missing."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Final

from mcp_gateway.config.shown_text import shown, shown_json

from .attaching import EXIT_NOTHING_THERE, EXIT_REFUSED, Refused, add_attach_options, say, settings_of

if TYPE_CHECKING:
    from .doctor_checks import Finding

_MARKS: Final = {"ok": "ok      ", "warning": "warning ", "problem": "PROBLEM "}


def add_doctor_command(commands: Any) -> None:
    """commands: what `add_subparsers` returned."""
    parser = commands.add_parser(
        "doctor",
        help="look at everything that a gateway needs here, and say what to do",
        description="Looks at the configuration, state_dir, ports, limits, certificates, issuers and backends; changes nothing. "
        "Exit code 0, 1 where there is a problem, 2 where the configuration cannot be read.",
    )
    parser.add_argument("--mcp-json", metavar="F.json", action="append", help="a file in which another program has its servers")
    parser.add_argument("--host", metavar="H", help="as of serve: over that of the file")
    parser.add_argument("--port", metavar="P", type=int, help="the same")
    parser.add_argument("--json", action="store_true", help="for programs")
    add_attach_options(parser, with_config=True)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    try:
        settings = settings_of(options)
    except Refused as refusal:
        return say(str(refusal), EXIT_REFUSED)
    from .doctor_checks import Verdict, findings

    found = []
    for finding in findings(settings):
        found.append(finding)
        if not options.json:
            print(shown(line_of(finding)), flush=True)
    if options.json:
        rows = [{"what": f.what, "verdict": f.verdict.value, "text": f.text, "advice": f.advice} for f in found]
        print(shown_json(rows, indent=2))
    return EXIT_NOTHING_THERE if any(finding.verdict is Verdict.PROBLEM for finding in found) else 0


def line_of(finding: Finding) -> str:
    """One finding for people."""
    advice = f"; {finding.advice}" if finding.advice else ""
    return f"{_MARKS[finding.verdict.value]}{finding.what}: {finding.text}{advice}"
