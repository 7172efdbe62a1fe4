"""Every attack, by the surroundings in which it is carried out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import pytest

from tests.attacks import (
    bombs,
    floods,
    forged_ids,
    hostile_servers,
    http_syntax,
    origins,
    other_peoples,
)
from tests.attacks.attack import Attack, attacks_in

_OF_CLIENTS: Final = (http_syntax, bombs, origins, forged_ids, other_peoples, floods)

CLIENT_ATTACKS: Final = [each for module in _OF_CLIENTS for each in attacks_in(module)]
SERVER_ATTACKS: Final = attacks_in(hostile_servers)


def params_of(attacks: Iterable[Attack]) -> list[Any]:
    """(form, attack, transport) for each test, those of one gateway together."""
    found = [(form, attack, transport) for attack in attacks for form in attack.forms for transport in attack.over]
    return [
        pytest.param(form, attack, transport, id=f"{attack.name}-{transport}-{form}")
        for form, attack, transport in sorted(found, key=lambda each: each[0])
    ]
