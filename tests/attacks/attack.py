"""What an attack is: one try of it as a function, how it must end, and where it is told of."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

import attrs

from tests.attacks.arena import Arena
from tests.end_to_end.running_gateway import Form

HARMLESS: Final = "harmless"
"""What a try gives that was let through and did nothing to anybody, as it has checked itself."""
CLOSED: Final = "closed"
"""What a try gives whose connection was ended without a word."""

SESSION, STATELESS, SSE = "Streamable HTTP", "stateless HTTP", "HTTP+SSE"
WEBSOCKET, PHOENIX = "WebSocket", "Phoenix channel"
TALKING: Final = (SESSION, STATELESS, SSE, WEBSOCKET, PHOENIX)
"""Every transport over which JSON-RPC can be said."""
HTTP: Final = ("HTTP",)
_LONG_AT_ONCE = 8
_PAUSE_S = 0.01
"""An attacker who takes all that one processor gives is no attack to tell from a busy client. Source: ours."""
EVERY_FORM: Final[tuple[Form, ...]] = ("embedded", "two cells")


@attrs.frozen(kw_only=True)
class Effort:
    """How often an attack is tried: so many tries side by side at most, one begun after each pause."""

    tries: int
    at_once: int
    pause_s: float = 0.0


@attrs.frozen(kw_only=True)
class Attack:
    """One attack.

    name:    of its function. title: in words, for the table: the function's docstring.
    group:   in words, for the table: the first line of the module's docstring.
    attempt: carries out one try over one of the transports, and gives what its attacker reads.
             Raises: AssertionError where it did harm.
    reads:   what that may be: reasons of the contract, "status 400" where HTTP itself is refused, `CLOSED`, `HARMLESS`.
    over:    transports; each is an attack of its own in the counts.
    short:   in CI. long: in the report.
    """

    name: str
    title: str
    group: str
    attempt: Callable[[Arena, str], Awaitable[str]] = attrs.field(repr=False)
    reads: tuple[str, ...]
    over: tuple[str, ...]
    forms: tuple[Form, ...]
    short: Effort
    long: Effort


def attack(
    *reads: str,
    over: Sequence[str] = HTTP,
    forms: Sequence[Form] = ("embedded",),
    tries: int = 4,
    long_tries: int = 200,
    at_once: int = 2,
    long_at_once: int | None = None,
) -> Callable[[Callable[..., Awaitable[str]]], Attack]:
    """Declare the function below as an attack. It takes the arena, and the transport where it is meant for several.

    long_at_once: how many tries of the long form run side by side; those that run one by one in the short form do so there too.
    """
    if long_at_once is None:
        long_at_once = 1 if at_once == 1 else max(at_once, _LONG_AT_ONCE)

    def declare(function: Callable[..., Awaitable[str]]) -> Attack:
        takes_transport = len(inspect.signature(function).parameters) > 1

        async def attempt(arena: Arena, transport: str) -> str:
            return await (function(arena, transport) if takes_transport else function(arena))

        return Attack(
            name=function.__name__,
            title=_first_line(function),
            group=_first_line(sys.modules[function.__module__]),
            attempt=attempt,
            reads=reads,
            over=tuple(over),
            forms=tuple(forms),
            short=Effort(tries=tries, at_once=at_once),
            long=Effort(tries=long_tries, at_once=long_at_once, pause_s=_PAUSE_S),
        )

    return declare


on_both_bases = partial(attack, forms=EVERY_FORM)
"""An attack on what a node does otherwise than one process: on what cells tell each other, on what only one of them holds."""


def attacks_in(module: Any) -> list[Attack]:
    """Those that a module declares, in its order."""
    return [each for each in vars(module).values() if isinstance(each, Attack)]


def _first_line(what: Any) -> str:
    line = (inspect.getdoc(what) or "").splitlines()[0]
    assert line.endswith("."), f"{what}: its docstring is its row in the table"
    return line.removesuffix(".")
