"""HTTP as attackers write it and as slowly as they write it, at the parser that is not the default: it refuses as much."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final
from unittest import mock

import pytest

from tests.attacks import http_syntax, slowness
from tests.attacks.attack import Attack, attacks_in
from tests.attacks.place import Place
from tests.attacks.surroundings import among_hostile_clients
from tests.doubles.http_parser import OTHER, VARIABLE

ATTACKS: Final = [each for module in (http_syntax, slowness) for each in attacks_in(module) if "embedded" in each.forms]


@pytest.fixture(scope="module", name="place")
def place_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with (
        mock.patch.dict(os.environ, {VARIABLE: OTHER}),
        among_hostile_clients(tmp_path_factory.mktemp("parser"), "embedded") as place,
    ):
        yield place


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_it_is_refused_or_harmless_there_too(place: Place, attack: Attack) -> None:
    finding = place.carry_out(attack, attack.over[0])
    assert finding.problems == (), finding
