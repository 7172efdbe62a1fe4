"""README's table is what the attacks say of themselves, and the report tells what did harm."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from tests.attacks import http_syntax, report
from tests.attacks.attack import HARMLESS, HTTP, Attack, Effort, attacks_in
from tests.attacks.catalogue import ALL
from tests.attacks.finding import Cost, Finding, read_lines
from tests.attacks.report import listed, measured
from tests.end_to_end.running_gateway import Form

README = (Path(__file__).parents[2] / "README.md").read_text()


async def _attempt(arena: object, transport: str) -> str:
    return HARMLESS


ONE = Attack(
    name="a", title="An attack", group="Of a kind", attempt=_attempt, reads=("too_large", HARMLESS), over=HTTP,
    forms=("embedded",), short=Effort(tries=1, at_once=1), long=Effort(tries=200, at_once=1),
)  # fmt: skip
CHEAP = Cost(held_bytes=2_000_000, left_bytes=1_000_000, descriptors=0, series=0)
FINE = Finding(
    form="embedded", attack=ONE, transport="HTTP", tries=200, reads={HARMLESS: 200}, problems=(), cost=CHEAP,
    usual_s=0.01, meanwhile_s=0.015, took_s=2.0, cpu_s=0.5, strangers=0.0,
)  # fmt: skip


def test_readme_has_every_attack_and_how_it_ends() -> None:
    """`scripts/attack_report --list` prints the table."""
    section = README.partition("\n## Attacked\n")[2].partition("\n## ")[0]
    assert [line for line in section.splitlines() if line.startswith("|")] == listed(ALL).splitlines()


def test_there_are_at_least_sixty_attacks_each_with_a_name_and_a_title_of_its_own() -> None:
    assert len(ALL) >= 60
    assert len({attack.name for attack in ALL}) == len({attack.title for attack in ALL}) == len(ALL)
    assert all(re.fullmatch(r"[A-Z`].*[^.]", attack.title) and "|" not in attack.title for attack in ALL)


def test_attacks_are_declared_in_their_order_with_their_words() -> None:
    first = attacks_in(http_syntax)[0]
    assert (first.name, first.title) == ("a_length_and_chunks", "Content-Length beside Transfer-Encoding")
    assert first.group == "HTTP that means one thing to a proxy and another to us"


def test_the_list_has_a_row_for_each_group_and_attack() -> None:
    assert listed([ONE]).splitlines()[2:] == ["| **Of a kind** | | |", "| An attack | HTTP | `too_large`, harmless |"]


def test_the_report_shows_what_was_read_and_what_it_cost() -> None:
    assert measured([FINE]).splitlines()[2:] == ["| **Of a kind** | | | | |", "| An attack | harmless | 2.0 | 1.0 | 1.5x |"]


def test_the_report_shows_what_did_harm_and_why() -> None:
    dear = Cost(held_bytes=0, left_bytes=40_000_000, descriptors=99, series=999)
    bad = attrs.evolve(FINE, reads={"answered": 1}, problems=tuple(dear.problems()), cost=dear, usual_s=0.0)
    assert measured([FINE, bad]).splitlines()[3:] == [
        "| An attack | **does harm** (`answered`, harmless) | 2.0 | 40.0 | 1.5x |",
        "",
        f"* An attack, HTTP, embedded: {'; '.join(dear.problems())}",
    ]
    assert [each.partition(" more ")[2] for each in dear.problems()] == [
        "memory than before",
        "descriptors than before",
        "series of metrics than before",
    ]


@pytest.mark.parametrize(("meanwhile_s", "strangers", "is_harm"), [(0.02, 0.0, False), (0.021, 0.25, True), (0.021, 0.26, False)])
def test_others_may_wait_twice_as_long_and_are_asked_only_on_a_quiet_machine(
    meanwhile_s: float, strangers: float, is_harm: bool
) -> None:
    finding = attrs.evolve(FINE, meanwhile_s=meanwhile_s, strangers=strangers)
    assert bool(finding.harm) is is_harm
    assert ("does harm" in measured([finding])) is is_harm


def test_what_was_measured_on_a_quiet_machine_is_shown_before_what_a_busy_one_adds() -> None:
    disturbed = attrs.evolve(FINE, meanwhile_s=0.9, strangers=1.5)
    assert measured([disturbed]).endswith("| 90.0x (busy machine) |")
    assert measured([disturbed, FINE]).endswith("| 1.5x |")


def test_findings_that_were_written_are_read_again_the_last_of_each_case() -> None:
    bad = attrs.evolve(FINE, problems=("it broke",))
    other = attrs.evolve(FINE, form="two cells")
    forgotten = attrs.evolve(FINE, attack=attrs.evolve(ONE, name="gone"))
    assert read_lines([each.line() for each in (FINE, other, forgotten, bad)], [ONE]) == [bad, other]


@pytest.mark.parametrize("line", ["{", "7", "{}", '{"attack": "a", "cost": {}, "problems": []}'])
def test_a_line_that_is_no_finding_is_told_by_its_number(line: str) -> None:
    with pytest.raises(ValueError, match="line 2 is no finding"):
        read_lines([FINE.line(), line], [ONE])


class StoppedPlace:
    """Measures until it has measured enough, as somebody who stops the run would have it."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.efforts: list[tuple[str, Effort]] = []

    def measure(self, attack: Attack, transport: str, effort: Effort) -> Finding:
        if len(self.efforts) == self.most:
            raise KeyboardInterrupt
        self.efforts.append((transport, effort))
        return attrs.evolve(FINE, attack=attack, transport=transport, tries=effort.tries)


def test_a_run_that_was_stopped_goes_on_where_it_was_and_its_file_makes_the_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    several = attrs.evolve(ONE, over=("HTTP", "WebSocket", "HTTP+SSE"))
    place = StoppedPlace(1)

    @contextmanager
    def surroundings(directory: Path, form: Form) -> Iterator[StoppedPlace]:
        yield place

    monkeypatch.setattr(report, "PLACES", ((surroundings, [several]),))
    monkeypatch.setattr(report, "ALL", [several])
    words = ["--continue", str(tmp_path / "findings"), "--tries", "7"]
    # 1. It is stopped after the first.
    with pytest.raises(KeyboardInterrupt):
        report.main(words)
    # 2. It goes on with the second, and comes to the end.
    place.most = 9
    assert report.main(words) == 0
    assert [transport for transport, _ in place.efforts] == ["HTTP", "WebSocket", "HTTP+SSE"]
    assert {effort.tries for _, effort in place.efforts} == {7}
    shown = capsys.readouterr().out
    # 3. There is nothing left to do, and the file says the same.
    assert report.main(words) == report.main(["--from", str(tmp_path / "findings")]) == 0
    assert len(place.efforts) == 3
    assert capsys.readouterr().out == shown * 2


def test_a_gateway_that_does_not_end_well_is_told_of_and_the_next_one_is_attacked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def surroundings(directory: Path, form: Form) -> Iterator[StoppedPlace]:
        yield StoppedPlace(1)
        assert form != "embedded", "an error in its log"

    monkeypatch.setattr(report, "PLACES", ((surroundings, [attrs.evolve(ONE, forms=("embedded", "two cells"))]),))
    monkeypatch.setattr(report, "ALL", [ONE])
    assert report.main([]) == 1
    told = capsys.readouterr().err
    assert "a gateway did not end well: an error in its log" in told
    assert "two cells: a over HTTP" not in told  # its double says embedded of itself
    assert told.count("a over HTTP, 2.0 s") == 2
