"""The Markdown tables of README: which servers and clients of the field work with the gateway, from a run now."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.end_to_end.running_gateway import FORMS
from tests.field.clients import TRANSPORTS, known_clients
from tests.field.run import Findings, known_failures, run_field
from tests.field.servers import REFUSED, STEPS, Outcomes


def markdown(findings: Findings) -> str:
    """Both tables, and below them every failure with what is known of it."""
    return "\n".join([*_servers(findings), "", *_clients(findings), "", *_notes(findings)]).rstrip()


def _servers(findings: Findings) -> Iterator[str]:
    yield f"| server | started by | {' | '.join(STEPS)} |"
    yield "|---|---|" + "---|" * len(STEPS)
    for server, outcomes in findings.servers.items():
        if server.is_broken:
            cells = ["told why" if _verdict(outcomes, REFUSED) == "yes" else "**no**", *["-"] * (len(STEPS) - 1)]
        else:
            cells = [_verdict(outcomes, step) for step in STEPS]
        yield f"| {server.title} | `{server.command[0]}` | {' | '.join(cells)} |"


def _verdict(outcomes: Outcomes, step: str) -> str:
    """Of both eras of clients."""
    found = [steps[step] for steps in outcomes.values() if step in steps]
    return "-" if not found else "**no**" if any(found) else "yes"


def _clients(findings: Findings) -> Iterator[str]:
    yield "| client | address | spoke | lists and calls |"
    yield "|---|---|---|---|"
    for client, why in findings.clients.items():
        spoke = f"{TRANSPORTS[client.path]}, {revision}" if (revision := findings.revisions[client]) else "-"
        yield f"| {client.title} | `{client.path}` | {spoke} | {'**no**' if why else 'yes'} |"


def _notes(findings: Findings) -> Iterator[str]:
    known = known_failures()
    for what, why in findings.failures().items():
        yield f"* {what}: {known.get(what) or f'**not explained: {why}**'}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="field", description=__doc__)
    parser.add_argument("--form", choices=FORMS, default="embedded", help="how the gateway runs (default: embedded)")
    parser.add_argument("--only", default="", metavar="TEXT", help="clients with this in their title")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="field") as directory:
        clients = [client for client in known_clients() if options.only in client.title]
        findings = run_field(Path(directory), options.form, clients)
    print(markdown(findings))
    return 1 if findings.failures().keys() - known_failures().keys() else 0


if __name__ == "__main__":
    sys.exit(main())
