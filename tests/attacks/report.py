"""The tables of attacks: how each ends, which is README's, and what many tries of each have cost, in one or more sittings."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import attrs

from tests.attacks.attack import EVERY_FORM, HARMLESS, Attack
from tests.attacks.catalogue import ALL, PLACES
from tests.attacks.finding import MEGABYTE, Finding, read_lines
from tests.end_to_end.running_gateway import Form


def listed(attacks: Sequence[Attack]) -> str:
    """A row for each attack, with all that its attacker may read."""
    rows = [f"| {each.title} | {', '.join(each.over)} | {_ends(each.reads)} |" for each in attacks]
    return "\n".join(["| attack | over | ends |", "|---|---|---|", *_in_groups(attacks, rows)])


def measured(findings: Sequence[Finding]) -> str:
    """A row for each attack, with what was read, over all transports and forms; below them what did harm."""
    attacks = list(dict.fromkeys(finding.attack for finding in findings))
    rows = [_row(attack, [finding for finding in findings if finding.attack is attack]) for attack in attacks]
    harm = [f"* {each.attack.title}, {each.transport}, {each.form}: {'; '.join(each.harm)}" for each in findings if each.harm]
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
    if any(finding.harm for finding in findings):
        ends = f"**does harm** ({ends})"
    held = max(finding.cost.held_bytes for finding in findings) / MEGABYTE
    left = max(finding.cost.left_bytes for finding in findings) / MEGABYTE
    slowest = max(findings, key=lambda finding: (not finding.is_disturbed, finding.slower))
    slower = f"{slowest.slower:.1f}x{' (busy machine)' if slowest.is_disturbed else ''}"
    return f"| {attack.title} | {ends} | {max(0.0, held):.1f} | {max(0.0, left):.1f} | {slower} |"


def findings_of(
    only: str, tries: int | None, forms: Sequence[Form], known: Collection[tuple[str, str, str]]
) -> Iterator[Finding | AssertionError]:
    """Carry out every attack whose name has this in it, but for the known cases; of a gateway that did not end well, why.

    tries: of each at most, None for what it says itself.
    """
    for surroundings, attacks in PLACES:
        for form in forms:
            chosen = [
                (attack, transport)
                for attack in attacks
                for transport in attack.over
                if only in attack.name and form in attack.forms and (form, attack.name, transport) not in known
            ]
            if not chosen:
                continue
            try:
                with tempfile.TemporaryDirectory(prefix="attacks") as directory, surroundings(Path(directory), form) as place:
                    for attack, transport in chosen:
                        effort = attack.long if tries is None else attrs.evolve(attack.long, tries=min(tries, attack.long.tries))
                        yield place.measure(attack, transport, effort)
            except AssertionError as problem:
                yield problem


def carry_out(options: argparse.Namespace, known: list[Finding]) -> tuple[list[Finding], bool]:
    """What is known and what is found now, each written as soon as it is; and whether every gateway has ended well."""
    forms = [options.form] if options.form else EVERY_FORM
    findings, is_well = list(known), True
    began_s = time.monotonic()
    for finding in findings_of(options.only, options.tries, forms, {each.case for each in known}):
        if isinstance(finding, AssertionError):
            is_well = False
            print(f"a gateway did not end well: {str(finding)[:4_000]}", file=sys.stderr, flush=True)
            continue
        findings.append(finding)
        if options.findings:
            with options.findings.open("a") as file:
                file.write(f"{finding.line()}\n")
        shown = "; ".join(finding.harm) or ("fine, on a busy machine" if finding.is_disturbed else "fine")
        case = f"{finding.form}: {finding.attack.name} over {finding.transport}, {finding.took_s:.1f} s"
        took = f"{time.monotonic() - began_s:6.0f} s"
        print(f"{took} {case}, {finding.cpu_s:.1f} s of CPU: {shown}", file=sys.stderr, flush=True)
    return findings, is_well


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="attack_report", description=__doc__)
    parser.add_argument("--list", action="store_true", help="attack nothing, print the table of README")
    parser.add_argument("--only", default="", metavar="TEXT", help="attacks with this in the name of their function")
    parser.add_argument("--tries", type=int, metavar="N", help="of each, instead of 200 (fewer of those that take seconds)")
    parser.add_argument("--form", choices=EVERY_FORM, help="how the gateway runs (default: each in turn)")
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument(
        "--continue",
        dest="findings",
        type=Path,
        metavar="FILE",
        help="keep findings there, and go on with those it lacks",
    )
    kept.add_argument("--from", dest="source", type=Path, metavar="FILE", help="attack nothing, print what that file has")
    options = parser.parse_args(arguments)
    if options.list:
        print(listed(ALL))
        return 0
    path = options.source or options.findings
    is_new = path is None or (path is options.findings and not path.exists())
    findings = [] if is_new else read_lines(path.read_text().splitlines(), ALL)
    is_well = True
    if options.source is None:
        findings, is_well = carry_out(options, findings)
    order = {attack.name: number for number, attack in enumerate(ALL)}
    findings.sort(key=lambda finding: order[finding.attack.name])
    print(measured(findings))
    return 0 if is_well and not any(finding.harm for finding in findings) else 1


if __name__ == "__main__":
    sys.exit(main())
