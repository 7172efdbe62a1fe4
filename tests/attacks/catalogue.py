"""Every attack, by the surroundings in which it is carried out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import pytest

from tests.attacks import (
    actions,
    actor_ports,
    bombs,
    consents,
    floods,
    forged_ids,
    forged_tokens,
    hostile_servers,
    http_syntax,
    misplaced_tokens,
    origins,
    other_peoples,
    principals,
    privileges,
    shown,
    slowness,
    state_files,
)
from tests.attacks.attack import Attack, attacks_in
from tests.attacks.surroundings import (
    among_forgers,
    among_hostile_clients,
    among_hostile_servers,
    among_known_clients,
    among_ruled_clients,
    before_spectators,
)

_OF_CLIENTS: Final = (http_syntax, slowness, bombs, origins, forged_ids, other_peoples, floods)
_OF_NEIGHBOURS: Final = (actor_ports, state_files, shown, consents)

CLIENT_ATTACKS: Final = [each for module in _OF_CLIENTS for each in attacks_in(module)]
PRINCIPAL_ATTACKS: Final = [*attacks_in(principals), *attacks_in(actions)]
SERVER_ATTACKS: Final = attacks_in(hostile_servers)
PRIVILEGE_ATTACKS: Final = attacks_in(privileges)
TOKEN_ATTACKS: Final = [*attacks_in(forged_tokens), *attacks_in(misplaced_tokens)]
LOCAL_ATTACKS: Final = [each for module in _OF_NEIGHBOURS for each in attacks_in(module)]
PLACES: Final = (
    (among_hostile_clients, CLIENT_ATTACKS),
    (among_ruled_clients, PRIVILEGE_ATTACKS),
    (among_known_clients, PRINCIPAL_ATTACKS),
    (among_hostile_servers, SERVER_ATTACKS),
    (among_forgers, TOKEN_ATTACKS),
    (before_spectators, LOCAL_ATTACKS),
)
"""(what makes the gateway that is attacked, by what)"""
ALL: Final = [each for _, attacks in PLACES for each in attacks]


def params_of(attacks: Iterable[Attack]) -> list[Any]:
    """(form, attack, transport) for each test, those of one gateway together.

    The short form tries each attack once, over one transport at one form of gateway, which go round among the attacks; the others
    are slow.
    """
    found = []
    for number, attack in enumerate(attacks):
        several = [(form, transport) for form in attack.forms for transport in attack.over]
        for place, (form, transport) in enumerate(several):
            marks = () if place == number % len(several) else pytest.mark.slow
            found.append((form, pytest.param(form, attack, transport, id=f"{attack.name}-{transport}-{form}", marks=marks)))
    return [param for _, param in sorted(found, key=lambda each: each[0])]
