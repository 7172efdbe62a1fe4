"""What stands between a call of a tool and its server, and may refuse or change both: a guardrail."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

import attrs


class Phase(Enum):
    """Before a server gets a call, and after it has answered."""

    BEFORE = "before"
    AFTER = "after"


@attrs.frozen(kw_only=True)
class Guarded:
    """What a guard is shown.

    tool:  as its server calls it; "" where a task gives its result later, whose tool nobody remembers.
    user:  who calls, see `Principal.key`; "" where nobody knows.
    value: JSON: the arguments, or the result.
    """

    phase: Phase
    backend: str
    tool: str
    user: str
    value: bytes = attrs.field(repr=False)


class GuardRefused(Exception):
    """The guard does not let it pass. The text is for the client."""


class Guard(Protocol):
    async def judge(self, guarded: Guarded) -> bytes:
        """What goes on in its stead, as JSON: the value itself, or another object.

        Raises: GuardRefused, also where the guard gives no answer in time and nothing may pass without it.
        """
