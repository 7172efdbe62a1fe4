"""One run over servers and clients of the field, and what of its failures is known."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs

from tests.end_to_end.running_gateway import Form, start_gateway
from tests.field.clients import Call, Client, try_client
from tests.field.installing import HERE, fetch, install_tools
from tests.field.servers import Outcomes, Server, known_servers, make_place, try_server, wait_for_first_answer

CALLS = (
    Call("demo__echo", {"message": "hello-from-the-field"}, "hello-from-the-field"),
    Call("everything__get-sum", {"a": 20, "b": 22}, "is 42"),
)
"""What each client calls: of the gateway's own demo server, and of one of the field."""


@attrs.frozen
class Findings:
    """servers: {server: outcomes}. clients: {client: why it failed, "" where it did not}. revisions: {client: what it spoke}."""

    servers: dict[Server, Outcomes]
    clients: dict[Client, str]
    revisions: dict[Client, str]

    def failures(self) -> dict[str, str]:
        """{what, as in known_failures.toml: why}."""
        return dict(self._failures())

    def _failures(self) -> Iterator[tuple[str, str]]:
        for server, outcomes in self.servers.items():
            for era, steps in outcomes.items():
                yield from ((f"{server.name}, {era}: {step}", why) for step, why in steps.items() if why)
        yield from ((client.name, why) for client, why in self.clients.items() if why)


def known_failures() -> dict[str, str]:
    """{what: reason}, as written in the repository."""
    entries = tomllib.loads((HERE / "known_failures.toml").read_text()).get("failure", [])
    return {entry["what"]: entry["reason"] for entry in entries}


def run_field(
    directory: Path, form: Form, clients: Sequence[Client], is_wanted: Callable[[Server], bool] = lambda server: True
) -> Findings:
    """Try every wanted server, then every client at two of them, one after the other; two gateways.

    directory: an empty one.
    Raises: InstallFailed.
    """
    install_tools()
    for name in ("place", "servers", "clients"):
        (directory / name).mkdir()
    with make_place(directory / "place") as place:
        servers = [each for each in known_servers(place) if is_wanted(each)]
        for server in servers:
            fetch(server.fetching())
        tried = {}
        with start_gateway(directory / "servers", form, [each.backend() for each in servers]) as gateway:
            for server in servers:
                if not server.is_broken:
                    wait_for_first_answer(gateway, server)
                tried[server] = try_server(gateway, server)
        everything = next(each for each in servers if each.name == "everything")
        backends = [{"name": "demo", "builtin": "demo"}, everything.backend()]
        used, revisions = {}, {}
        with start_gateway(directory / "clients", form, backends, logging={"access": True}) as gateway:
            wait_for_first_answer(gateway, everything)
            for client in clients:
                seen = len(gateway.log)
                used[client] = try_client(client, gateway.url, CALLS)
                revisions[client] = spoken_revision(gateway.log[seen:])
    return Findings(tried, used, revisions)


def spoken_revision(log: str) -> str:
    """That of the last call of a tool in the access log, "" without one."""
    calls = [json.loads(line) for line in log.splitlines() if '"target": "tools/call/' in line]
    return str(calls[-1]["revision"]) if calls else ""
