"""The transport registry: strategies checked, replaced and removed while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import attrs
import pytest

from mcp_gateway.actors.messages.events import PublishEvent
from mcp_gateway.actors.messages.health import ComponentProbed, ProbeComponent
from mcp_gateway.actors.messages.status import StatusRequested
from mcp_gateway.actors.messages.transports import (
    RegisterTransport,
    RemoveTransport,
    ResolveScheme,
    SchemeResolved,
    TransportRefused,
    TransportRegistered,
    TransportRemoved,
    TransportsChanged,
)
from mcp_gateway.actors.pool.transport_registry import TransportRegistry
from mcp_gateway.transports.upstream.builtin.demo_conversation import BuiltinUpstream
from mcp_gateway.transports.upstream.http.streamable_http import StreamableHttpUpstream
from tests.doubles.actor_stage import Peer, Stage


@attrs.define
class Downstream:
    name: object = "phone"
    paths: object = ("/phone",)


@attrs.define
class Upstream:
    name: object = "pigeon"
    schemes: object = frozenset({"pigeon"})
    connect: object = staticmethod(lambda *_: None)


class Bench:
    def __init__(self) -> None:
        self.stage = Stage()
        self.bus, self.edge = self.stage.peer(), self.stage.peer()
        strategies = (StreamableHttpUpstream(), BuiltinUpstream())
        self.registry = self.stage.start(TransportRegistry, {"event-bus": self.bus}, strategies)

    def register(self, strategy: object, owner: Peer | None = None) -> object:
        """Give the registry a strategy; gives its answer."""
        owner = owner or self.edge
        owner.received.clear()
        owner.say(self.registry, RegisterTransport(request_id="r", strategy=strategy))
        return owner.received[0]

    def speaker(self, scheme: str) -> object:
        resolved = self.stage.ask(self.registry, ResolveScheme("q", scheme))
        assert isinstance(resolved, SchemeResolved)
        assert (resolved.request_id, resolved.scheme) == ("q", scheme)
        return resolved.strategy

    def names(self) -> list[str]:
        found: list[str] = self.stage.ask(self.registry, StatusRequested("s")).status["transports"]
        return found

    def events(self) -> list[tuple[str, str]]:
        return [(event.topic, event.payload["transport"]) for event in self.bus.take(PublishEvent)]


def on_loop(test: Callable[[], None]) -> None:
    async def body() -> None:
        test()

    asyncio.run(body())


def test_the_strategies_it_starts_with_speak_to_servers() -> None:
    def test() -> None:
        bench = Bench()
        assert {scheme: getattr(bench.speaker(scheme), "name", None) for scheme in ("http", "https", "builtin", "ws")} == {
            "http": "streamable_http_upstream",
            "https": "streamable_http_upstream",
            "builtin": "builtin_upstream",
            "ws": None,
        }

    on_loop(test)


def test_a_client_transport_is_registered_and_its_owner_told_what_is_served() -> None:
    def test() -> None:
        bench = Bench()
        assert bench.register(Downstream()) == TransportRegistered("r", "phone")
        assert bench.edge.of(TransportsChanged) == [TransportsChanged(frozenset({"phone"}))]
        assert bench.events() == [("mcp.transport.registered", "phone"), ("mcp.transport.started", "phone")]
        bench.register(Downstream(name="fax"))
        assert bench.edge.of(TransportsChanged) == [TransportsChanged(frozenset({"phone", "fax"}))]

    on_loop(test)


def test_an_upstream_transport_serves_its_schemes_from_then_on_and_clients_are_not_concerned() -> None:
    def test() -> None:
        bench = Bench()
        bench.register(Downstream())
        pigeon = Upstream()
        assert bench.register(pigeon, bench.stage.peer()) == TransportRegistered("r", "pigeon")
        assert bench.speaker("pigeon") is pigeon
        newer = Upstream()
        bench.register(newer, bench.stage.peer())
        assert bench.speaker("pigeon") is newer
        assert {each.names for each in bench.edge.of(TransportsChanged)} == {frozenset({"phone"})}

    on_loop(test)


@pytest.mark.parametrize(
    ("strategy", "problem"),
    [
        (object(), "a transport has a name"),
        (Downstream(name=""), "a transport has a name"),
        (Downstream(name=7), "a transport has a name"),
        (Downstream(paths=()), "transport 'phone': paths must be a non-empty tuple of paths"),
        (Downstream(paths=["/phone"]), "transport 'phone': paths must be a non-empty tuple of paths"),
        (Downstream(paths=("phone",)), "transport 'phone': paths must be a non-empty tuple of paths"),
        (Upstream(schemes=()), "transport 'pigeon': schemes must be a non-empty frozenset of strings"),
        (Upstream(schemes=frozenset({1})), "transport 'pigeon': schemes must be a non-empty frozenset of strings"),
        (Upstream(connect=7), "transport 'pigeon': connect must be callable"),
    ],
)
def test_an_invalid_strategy_is_refused_and_replaces_nothing(strategy: object, problem: str) -> None:
    def test() -> None:
        bench = Bench()
        bench.register(Downstream())
        bench.register(Upstream())
        before, _ = bench.names(), bench.events()
        refused = bench.register(strategy)
        assert isinstance(refused, TransportRefused)
        assert (refused.request_id, refused.problem) == ("r", problem)
        assert bench.names() == before
        assert bench.events() == []
        assert bench.stage.is_alive(bench.registry)

    on_loop(test)


def test_a_removed_transport_is_served_and_spoken_no_more() -> None:
    def test() -> None:
        bench = Bench()
        bench.register(Downstream())
        operator = bench.stage.peer()
        for name in ("phone", "builtin_upstream"):
            operator.say(bench.registry, RemoveTransport("x", name))
        assert operator.received == [TransportRemoved("x", "phone"), TransportRemoved("x", "builtin_upstream")]
        assert bench.edge.of(TransportsChanged)[-1] == TransportsChanged(frozenset())
        assert bench.speaker("builtin") is None
        operator.received.clear()
        operator.say(bench.registry, RemoveTransport("y", "phone"))
        assert operator.received == [TransportRefused("y", "no transport 'phone' is registered")]

    on_loop(test)


def test_it_is_half_well_while_no_transport_serves_clients() -> None:
    def test() -> None:
        bench = Bench()
        assert bench.stage.ask(bench.registry, ProbeComponent("p")).problem == "no transport serves clients"
        bench.register(Downstream())
        assert bench.stage.ask(bench.registry, ProbeComponent("p")) == ComponentProbed("p", "transport-registry")

    on_loop(test)


def test_it_does_not_start_with_an_invalid_strategy() -> None:
    def test() -> None:
        stage = Stage()
        registry = stage.start(TransportRegistry, {"event-bus": stage.peer()}, (Upstream(schemes=()),))
        assert not stage.is_alive(registry)

    on_loop(test)
