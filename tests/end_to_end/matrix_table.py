"""The Markdown table of README: what works between every client and every server, from a run now."""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

from mcp.shared.exceptions import MCPDeprecationWarning

from tests.end_to_end.matrix import FEATURES, FEATURES_ALONE, Outcomes, gaps_of, known_gaps, run_matrix
from tests.end_to_end.running_cluster import EVERY_FORM

_ALL = (*FEATURES, *FEATURES_ALONE)


def markdown(outcomes: Outcomes) -> str:
    """The table, what it counts, and below it each gap with its reason and each failure."""
    clients = list(dict.fromkeys(client for client, _ in outcomes))
    servers = list(dict.fromkeys(server for _, server in outcomes))
    lines = ["| client → server | " + " | ".join(server.name for server in servers) + " |", "|---|" + "---:|" * len(servers)]
    for client in clients:
        counts = (len(_ALL) - len({*gaps_of(client, server), *outcomes[client, server]}) for server in servers)
        lines.append(f"| {client.name} | " + " | ".join(f"{count}/{len(_ALL)}" for count in counts) + " |")
    return "\n".join([*lines, "", f"Each cell: {', '.join(_ALL)}.", "", *_notes(outcomes)])


def _notes(outcomes: Outcomes) -> Iterator[str]:
    for gap in known_gaps():
        between = " → ".join("any" if names == "*" else names for names in (gap.clients, gap.servers))
        yield f"* {', '.join(gap.features)}; {between}: {gap.reason}"
    failed = [
        (server.name, feature, why, client.name) for (client, server), found in outcomes.items() for feature, why in found.items()
    ]
    for (server_name, feature, why), same in itertools.groupby(sorted(failed), key=lambda each: each[:3]):
        yield f"* failed: {feature}; {'; '.join(name for *_, name in same)} → {server_name}: {why}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="matrix", description=__doc__)
    parser.add_argument("--form", choices=EVERY_FORM, default="embedded", help="how the gateway runs (default: embedded)")
    options = parser.parse_args()
    warnings.simplefilter("ignore", MCPDeprecationWarning)
    with tempfile.TemporaryDirectory(prefix="matrix") as directory:
        outcomes = run_matrix(Path(directory), options.form)
    print(markdown(outcomes))
    return 1 if any(outcomes.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
