"""README's table is what the attacks say of themselves, and the report tells what did harm."""

from __future__ import annotations

import re
from pathlib import Path

import attrs

from tests.attacks import http_syntax
from tests.attacks.attack import HARMLESS, HTTP, Attack, attacks_in
from tests.attacks.catalogue import ALL
from tests.attacks.place import Cost, Finding
from tests.attacks.report import listed, measured

README = (Path(__file__).parents[2] / "README.md").read_text()


async def _attempt(arena: object, transport: str) -> str:
    return HARMLESS


ONE = Attack(
    name="a", title="An attack", group="Of a kind", attempt=_attempt, reads=("too_large", HARMLESS), over=HTTP,
    forms=("embedded",), tries=1, long_tries=1, at_once=1,
)  # fmt: skip
CHEAP = Cost(held_bytes=2_000_000, left_bytes=1_000_000, descriptors=0, series=0)
FINE = Finding(attack=ONE, transport="HTTP", reads={HARMLESS: 1}, problems=(), cost=CHEAP, usual_s=0.01, meanwhile_s=0.015)


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
        f"* An attack, HTTP: {'; '.join(dear.problems())}",
    ]
    assert [each.partition(" more ")[2] for each in dear.problems()] == [
        "memory than before",
        "descriptors than before",
        "series of metrics than before",
    ]
