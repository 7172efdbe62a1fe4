"""`mcp-gateway` with one mechanism broken: `broken_gateway.py WHAT serve ...`. Shows that the chaos harness finds what it is for.

It breaks the code when all of it is loaded, before the first fork: cells are made of the process that was broken.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from mcp_gateway.scripts.command_line import main
from mcp_gateway.scripts.serving import launcher


def forget_unacknowledged_events() -> None:
    """A cell does not tell a new event log what the old one has not confirmed."""
    from mcp_gateway.actors.events.event_outbox import EventOutbox

    EventOutbox.unstored = property(lambda _: ())  # type: ignore[assignment, method-assign]


def repeat_every_call() -> None:
    """A call whose connection broke is sent again, whatever its tool does."""
    from mcp_gateway.actors.conversations import relay

    relay.only_reads = lambda request: True  # type: ignore[attr-defined]
    relay.needs_annotations = lambda request: False  # type: ignore[attr-defined]


def keep_circuits_open() -> None:
    """A circuit that has opened lets no call through any more: no probe closes it, nor does the end of an ejection."""
    from mcp_gateway.actors.routing.circuit_breaker import CircuitBreaker, CircuitState
    from mcp_gateway.actors.routing.router import Router
    from mcp_gateway.transports.ports.replica_id import ReplicaId

    def not_once_open(method: Callable[..., Any]) -> Callable[..., Any]:
        def unless_open(self: CircuitBreaker, *arguments: Any, **options: Any) -> Any:
            return None if self.state is CircuitState.OPEN else method(self, *arguments, **options)

        return unless_open

    for name in ("allows", "would_allow", "record_probe"):
        setattr(CircuitBreaker, name, not_once_open(getattr(CircuitBreaker, name)))

    usual = CircuitBreaker.retry_after_s

    def never_due(self: CircuitBreaker, *arguments: Any, **options: Any) -> float:
        return 60.0 if self.state is CircuitState.OPEN else usual(self, *arguments, **options)

    CircuitBreaker.retry_after_s = never_due  # type: ignore[method-assign]

    def end_ejection(self: Router, replica: ReplicaId) -> None:
        if (backend := self._backends.get(replica.backend)) is not None:
            backend.ejected.pop(replica.address, None)

    Router._take_in = end_ejection  # type: ignore[method-assign]


BROKEN = {"replay": forget_unacknowledged_events, "repeat": repeat_every_call, "breaker": keep_circuits_open}


def break_when_prepared(what: Callable[[], None]) -> None:
    prepare = launcher._prepare_process

    def prepare_and_break(*arguments: Any) -> None:
        prepare(*arguments)  # nothing that it loads may be loaded before
        what()

    launcher._prepare_process = prepare_and_break


if __name__ == "__main__":
    break_when_prepared(BROKEN[sys.argv.pop(1)])
    sys.exit(main())
