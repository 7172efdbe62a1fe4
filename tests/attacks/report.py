"""The tables of attacks: how each ends, which is README's, and what many tries of each have cost, from a run now."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tests.attacks.attack import EVERY_FORM, HARMLESS, Attack
from tests.attacks.catalogue import ALL, PLACES
from tests.attacks.place import MEGABYTE, Finding
from tests.end_to_end.running_gateway import Form

_USUAL_FOR_S = 2.0


def listed(attacks: Sequence[Attack]) -> str:
    """A row for each attack, with all that its attacker may read."""
    rows = [f"| {each.title} | {', '.join(each.over)} | {_ends(each.reads)} |" for each in attacks]
    return "\n".join(["| attack | over | ends |", "|---|---|---|", *_in_groups(attacks, rows)])


def measured(findings: Sequence[Finding]) -> str:
    """A row for each attack, with what was read, over all transports and forms; below them what did harm."""
    attacks = list(dict.fromkeys(finding.attack for finding in findings))
    rows = [_row(attack, [finding for finding in findings if finding.attack is attack]) for attack in attacks]
    harm = [f"* {each.attack.title}, {each.transport}: {'; '.join(each.problems)}" for each in findings if each.problems]
    head = ["| attack | ends | held MB | left MB | p99 of others |", "|---|---|---:|---:|---:|"]
    return "\n".join([*head, *_in_groups(attacks, rows), "", *harm]).rstrip()


def _in_groups(attacks: Sequence[Attack], rows: Iterable[str]) -> Iterator[str]:
    group = ""
    for attack, row in zip(attacks, rows, strict=True):
        if attack.group != group:
            group = attack.group
            yield f"| **{group}** |{' |' * (row.count(' | '))}"
        yield row


def _ends(reads: Iterable[str]) -> str:
    return ", ".join(what if what == HARMLESS else f"`{what}`" for what in reads)


def _row(attack: Attack, findings: Sequence[Finding]) -> str:
    ends = _ends(sorted({what for finding in findings for what in finding.reads}))
    if any(finding.problems for finding in findings):
        ends = f"**does harm** ({ends})"
    held = max(finding.cost.held_bytes for finding in findings) / MEGABYTE
    left = max(finding.cost.left_bytes for finding in findings) / MEGABYTE
    slower = max((finding.meanwhile_s / finding.usual_s for finding in findings if finding.usual_s), default=0.0)
    return f"| {attack.title} | {ends} | {max(0.0, held):.1f} | {max(0.0, left):.1f} | {slower:.1f}x |"


def findings_of(only: str, tries: int | None, forms: Sequence[Form]) -> Iterator[Finding]:
    """Carry out every attack whose name has this in it. tries: of each, None for what it says itself."""
    for surroundings, attacks in PLACES:
        for form in forms:
            chosen = [each for each in attacks if only in each.name and form in each.forms]
            if not chosen:
                continue
            with tempfile.TemporaryDirectory(prefix="attacks") as directory, surroundings(Path(directory), form) as place:
                for attack in chosen:
                    for transport in attack.over:
                        print(f"{form}: {attack.name} over {transport}", file=sys.stderr, flush=True)
                        yield place.carry_out(attack, transport, tries or attack.long_tries, _USUAL_FOR_S)


def main() -> int:
    parser = argparse.ArgumentParser(prog="attack_report", description=__doc__)
    parser.add_argument("--list", action="store_true", help="attack nothing, print the table of README")
    parser.add_argument("--only", default="", metavar="TEXT", help="attacks with this in the name of their function")
    parser.add_argument("--tries", type=int, metavar="N", help="of each, instead of 200 (fewer of those that take seconds)")
    parser.add_argument("--form", choices=EVERY_FORM, help="how the gateway runs (default: each in turn)")
    options = parser.parse_args()
    if options.list:
        print(listed(ALL))
        return 0
    findings: list[Finding] = []
    try:
        findings.extend(findings_of(options.only, options.tries, [options.form] if options.form else EVERY_FORM))
    finally:  # what was found is shown, also where a gateway has logged an error in the end
        print(measured(findings))
    return 1 if any(finding.problems for finding in findings) else 0


if __name__ == "__main__":
    sys.exit(main())
