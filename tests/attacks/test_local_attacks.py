"""Neighbours on the machine run no code and break no start, and no text of clients takes over what operators look at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.attacks.attack import Attack
from tests.attacks.catalogue import LOCAL_ATTACKS, params_of
from tests.attacks.place import Place
from tests.attacks.surroundings import before_spectators
from tests.node.browser import Browser

pytestmark = pytest.mark.node_js


@pytest.fixture(scope="module", name="place")
def place_fixture(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Place]:
    with before_spectators(tmp_path_factory.mktemp("attacked"), request.param, browser) as place:
        yield place


@pytest.mark.parametrize(("place", "attack", "transport"), params_of(LOCAL_ATTACKS), indirect=["place"], scope="module")
def test_it_is_refused_or_harmless(place: Place, attack: Attack, transport: str) -> None:
    finding = place.carry_out(attack, transport)
    assert finding.problems == (), finding
