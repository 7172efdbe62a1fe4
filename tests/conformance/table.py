"""The Markdown table of README: how many scenarios of the conformance suite pass in each place, from a run of it now."""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import attrs

from tests.conformance.places import Findings, run_everywhere
from tests.conformance.suite import PLACES, REVISIONS, Difference, Verdicts, known_differences
from tests.end_to_end.running_cluster import EVERY_FORM

# The first pattern that a scenario's name starts with is its group.
_GROUPS = (
    ("tasks-", "tasks, an extension"),
    ("elicitation-", "input from the client"),
    ("input-required-", "input from the client"),
    ("tools-call-sampling", "input from the client"),
    ("tools-call-elicitation", "input from the client"),
    ("tools-", "tools"),
    ("json-schema-", "tools"),
    ("resources-", "resources"),
    ("sep-2164-", "resources"),
    ("prompts-", "prompts"),
    ("http-", "request headers"),
    ("dns-", "request headers"),
    ("server-sse-", "streams"),
    ("", "lifecycle, discovery, utilities"),
)


@attrs.frozen
class Row:
    """passed: of `scenarios`, directly, through the gateway, and with the eras crossed."""

    revision: str
    group: str
    scenarios: int
    passed: tuple[int, ...]


def rows(findings: Findings) -> Iterator[Row]:
    different = findings.differences()
    for revision in REVISIONS:
        direct = findings.direct[revision]
        groups = dict.fromkeys(group_of(scenario) for scenario in direct)
        for group in sorted(groups, key=[name for _, name in _GROUPS].index):
            scenarios = [scenario for scenario in direct if group_of(scenario) == group]
            passed = [sum(_passes(direct, scenario) for scenario in scenarios)]
            for place in PLACES:
                spoiled = {each.scenario for each in different if (each.place, each.revision) == (place, revision)}
                seen = findings.behind[place, revision]
                passed.append(sum(_passes(seen, scenario) and scenario not in spoiled for scenario in scenarios))
            yield Row(revision, group, len(scenarios), tuple(passed))


def group_of(scenario: str) -> str:
    return next(group for start, group in _GROUPS if scenario.startswith(start))


def _passes(verdicts: Verdicts, scenario: str) -> bool:
    statuses = set(verdicts.get(scenario, {}).values())
    return "SUCCESS" in statuses and not statuses & {"WARNING", "FAILURE"}


def markdown(findings: Findings) -> str:
    lines = ["| the suite's client | scenarios | direct | through | crossed |", "|---|---|---:|---:|---:|"]
    for row in rows(findings):
        cells = " | ".join(f"{count}/{row.scenarios}" for count in row.passed)
        lines.append(f"| {row.revision} | {row.group} | {cells} |")
    return "\n".join([*lines, "", *_reasons(findings.differences())])


def _reasons(different: Iterable[Difference]) -> Iterator[str]:
    known = known_differences()
    by_scenario = itertools.groupby(sorted(different), key=lambda each: (each.place, each.revision, each.scenario))
    for (place, revision, scenario), found in by_scenario:
        reasons = dict.fromkeys(known.get(each, f"**not explained: {each.check}**") for each in found)
        yield f"* {place}, {revision}, `{scenario}`: {' '.join(reasons)}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="conformance", description=__doc__)
    parser.add_argument("--form", choices=EVERY_FORM, default="embedded", help="how the gateway runs (default: embedded)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="conformance") as directory:
        findings = run_everywhere(Path(directory), options.form)
    print(markdown(findings))
    unexplained = findings.differences() - known_differences().keys()
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
