"""What belongs to one principal, or to operators, is refused to all others, whatever they bring."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.attacks.attack import Attack
from tests.attacks.catalogue import PRINCIPAL_ATTACKS, params_of
from tests.attacks.place import Place
from tests.attacks.surroundings import among_known_clients


@pytest.fixture(scope="module", name="place")
def place_fixture(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with among_known_clients(tmp_path_factory.mktemp("attacked"), request.param) as place:
        yield place


@pytest.mark.parametrize(("place", "attack", "transport"), params_of(PRINCIPAL_ATTACKS), indirect=["place"], scope="module")
def test_it_is_refused_or_harmless(place: Place, attack: Attack, transport: str) -> None:
    finding = place.carry_out(attack, transport)
    assert finding.problems == (), finding
