"""The places where the suite runs: against a server directly, through the gateway to it, and with the eras crossed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs

from tests.conformance.suite import (
    PLACES,
    REVISIONS,
    Difference,
    Era,
    Place,
    Verdicts,
    differences,
    era_of,
    failures,
    install_once,
    known_differences,
    run_suite,
)
from tests.doubles.sdk_server import SdkServer
from tests.end_to_end.running_cluster import ClusterForm, start_in
from tests.end_to_end.running_gateway import Form

_OTHER: dict[Era, Era] = {"legacy": "modern", "modern": "legacy"}
# The suite waits more than it works; more runs at once would only make its own time limits shorter.
_AT_ONCE = 3


@attrs.frozen
class Findings:
    """direct: {revision: verdicts}. behind: {(place, revision): verdicts}."""

    direct: dict[str, Verdicts]
    behind: dict[tuple[Place, str], Verdicts]

    def differences(self) -> set[Difference]:
        found: set[Difference] = set()
        for (place, revision), verdicts in self.behind.items():
            found |= differences(place, revision, self.direct[revision], verdicts)
        return found


def run_everywhere(directory: Path, form: Form | ClusterForm = "embedded") -> Findings:
    """Every scenario of both revisions in all three places, with one gateway. directory: an empty one, for the gateway.

    Two servers, each of one era: a server of both eras would always be met in the gateway's favourite one. The suite gives
    what it asks half a second here and there: a scenario that fails beside the others is judged by what it does alone.
    """
    install_once()
    with ExitStack() as stack:
        servers: dict[Era, SdkServer] = {era: stack.enter_context(conformance_server(era)) for era in _OTHER}
        backends = [{"name": era, "replicas": [server.url]} for era, server in servers.items()]
        gateway = stack.enter_context(start_in(directory, form, backends))
        pool = stack.enter_context(ThreadPoolExecutor(_AT_ONCE))
        urls = {revision: servers[era_of(revision)].url for revision in REVISIONS}
        direct = {revision: pool.submit(run_suite, url, revision) for revision, url in urls.items()}
        behind, urls_behind = {}, {}
        for place in PLACES:
            for revision in REVISIONS:
                era = era_of(revision) if place == "through" else _OTHER[era_of(revision)]
                url = urls_behind[place, revision] = f"{gateway.url}/mcp/servers/{era}"
                behind[place, revision] = pool.submit(run_suite, url, revision)
        findings = Findings(
            {revision: run.result() for revision, run in direct.items()}, {key: run.result() for key, run in behind.items()}
        )
        for revision, verdicts in findings.direct.items():
            judge_again(verdicts, failures(verdicts), lambda revision=revision: run_suite(urls[revision], revision))  # type: ignore[misc]
        unknown = findings.differences() - known_differences().keys()
        for key, verdicts in findings.behind.items():
            odd = {each.scenario for each in unknown if (each.place, each.revision) == key}
            judge_again(verdicts, odd, lambda key=key: run_suite(urls_behind[key], key[1]))  # type: ignore[misc]
        return findings


def judge_again(verdicts: Verdicts, scenarios: set[str], run: Callable[[], Verdicts]) -> None:
    """Replace what was found for these scenarios by what another run finds."""
    if scenarios:
        again = run()
        verdicts.update((scenario, again[scenario]) for scenario in scenarios)


@contextmanager
def conformance_server(era: Era) -> Iterator[SdkServer]:
    """Run the everything server of the suite, of one era, for the length of the `with` block."""
    server = SdkServer(era, ["--era", era], "/mcp", program="tests.conformance.everything_server")
    server.start()
    try:
        yield server
    finally:
        server.stop()
