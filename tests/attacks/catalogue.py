"""Every attack, by the surroundings in which it is carried out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import pytest

from tests.attacks import (
    actor_ports,
    bombs,
    floods,
    forged_ids,
    hostile_servers,
    http_syntax,
    origins,
    other_peoples,
    shown,
    slowness,
    state_files,
)
from tests.attacks.attack import Attack, attacks_in
from tests.attacks.surroundings import among_hostile_clients, among_hostile_servers, before_spectators

_OF_CLIENTS: Final = (http_syntax, slowness, bombs, origins, forged_ids, other_peoples, floods)
_OF_NEIGHBOURS: Final = (actor_ports, state_files, shown)

CLIENT_ATTACKS: Final = [each for module in _OF_CLIENTS for each in attacks_in(module)]
SERVER_ATTACKS: Final = attacks_in(hostile_servers)
LOCAL_ATTACKS: Final = [each for module in _OF_NEIGHBOURS for each in attacks_in(module)]
PLACES: Final = (
    (among_hostile_clients, CLIENT_ATTACKS),
    (among_hostile_servers, SERVER_ATTACKS),
    (before_spectators, LOCAL_ATTACKS),
)
"""(what makes the gateway that is attacked, by what)"""
ALL: Final = [each for _, attacks in PLACES for each in attacks]


def params_of(attacks: Iterable[Attack]) -> list[Any]:
    """(form, attack, transport) for each test, those of one gateway together."""
    found = [(form, attack, transport) for attack in attacks for form in attack.forms for transport in attack.over]
    return [
        pytest.param(form, attack, transport, id=f"{attack.name}-{transport}-{form}")
        for form, attack, transport in sorted(found, key=lambda each: each[0])
    ]
