"""The official conformance suite, against a server of the official SDK and against the same server behind the gateway."""

from __future__ import annotations

import pytest

from tests.conformance.places import Findings, judge_again, run_everywhere
from tests.conformance.suite import PLACES, REVISIONS, Difference, Place, differences, failures, known_differences, worst_statuses
from tests.conformance.table import markdown
from tests.end_to_end.running_cluster import BALANCED

_SEEN = {"scenario": {"a/A": "SUCCESS", "b/B": "WARNING", "c/C": "INFO"}}


@pytest.fixture(scope="module", params=["embedded", *BALANCED])
def findings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Findings:
    return run_everywhere(tmp_path_factory.mktemp("conformance"), request.param)


@pytest.mark.node_js
@pytest.mark.timeout(300)
@pytest.mark.parametrize("revision", REVISIONS)
def test_the_server_itself_passes_every_scenario(findings: Findings, revision: str) -> None:
    """A scenario that fails here would prove nothing about the gateway."""
    assert failures(findings.direct[revision]) == set()
    assert len(findings.direct[revision]) >= {"2025-11-25": 33, "2026-07-28": 50}[revision]


@pytest.mark.node_js
@pytest.mark.timeout(300)
@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize("place", PLACES)
def test_what_passes_directly_passes_behind_the_gateway_but_for_what_is_listed(
    findings: Findings, place: Place, revision: str
) -> None:
    def here(found: Difference) -> bool:
        return (found.place, found.revision) == (place, revision)

    found, known = set(filter(here, findings.differences())), set(filter(here, known_differences()))
    assert found - known == set(), "new differences"
    assert known - found == set(), "differences that have gone: take them off the list"


@pytest.mark.node_js
@pytest.mark.timeout(300)
def test_the_table_counts_every_scenario_once(findings: Findings) -> None:
    table = markdown(findings).splitlines()
    counted = [line.split("|")[3].strip().split("/")[1] for line in table if line.startswith("| 20")]
    assert sum(map(int, counted)) == sum(map(len, findings.direct.values()))
    assert "not explained" not in "\n".join(table)


def test_every_known_difference_has_a_reason() -> None:
    assert all(reason.endswith(".") and len(reason) > 40 for reason in known_differences().values())


@pytest.mark.parametrize(
    ("here", "expected"),
    [
        (_SEEN, set()),
        ({"scenario": {"a/A": "WARNING", "b/B": "WARNING"}}, {"a/A"}),
        ({"scenario": {"a/A": "INFO", "b/B": "SUCCESS", "c/C": "SUCCESS"}}, set()),
        ({"scenario": {"b/B": "SKIPPED", "c/C": "SKIPPED"}}, {"a/A"}),
        ({"scenario": {"a/A": "SUCCESS", "b/B": "FAILURE", "c/C": "FAILURE"}}, {"b/B", "c/C"}),
        ({"scenario": {"a/A": "SUCCESS", "d/D": "FAILURE", "e/E": "SUCCESS"}}, {"d/D"}),
        ({}, {"a/A"}),
        ({**_SEEN, "another": {"f/F": "SKIPPED", "g/G": "WARNING"}}, {"g/G"}),
    ],
)
def test_a_difference_is_what_has_become_worse(here: dict[str, dict[str, str]], expected: set[str]) -> None:
    found = differences("through", "2026-07-28", _SEEN, here)
    assert {each.check for each in found} == expected


def test_a_scenario_that_failed_is_judged_by_another_run_and_fails_if_that_does() -> None:
    verdicts = {
        "slow": {"a/A": "FAILURE"},
        "broken": {"b/B": "WARNING"},
        "fine": {"c/C": "SUCCESS"},
    }
    again = {"slow": {"a/A": "SUCCESS"}, "broken": {"b/B": "FAILURE"}, "fine": {"c/C": "FAILURE"}}
    judge_again(verdicts, failures(verdicts), lambda: again)
    assert verdicts == {**again, "fine": {"c/C": "SUCCESS"}}
    assert failures(verdicts) == {"broken"}


def test_of_several_results_of_one_check_the_worst_counts() -> None:
    checks = [{"id": "a", "name": "A", "status": status} for status in ("SUCCESS", "FAILURE", "INFO")]
    checks += [{"id": "a", "name": "B", "status": "INFO"}]
    assert worst_statuses(checks) == {"a/A": "FAILURE", "a/B": "INFO"}
