"""What becomes of a client's session when its cell dies, the gateway starts again, nobody uses it, or too many are opened."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import StartGateway
from tests.doubles.sdk_server import SdkServer, start_sdk_server
from tests.end_to_end.raw_http import Answer, ask, open_session, request, tool_call
from tests.end_to_end.running_gateway import FORMS, Form, RunningGateway, start_gateway, wait_until

EVERYTHING = str(Path(__file__).parents[1] / "doubles" / "everything_server.py")
STDIO_SERVER = [sys.executable, EVERYTHING, "--transport", "stdio", "--era", "legacy"]


@pytest.fixture(scope="module")
def server() -> Iterator[SdkServer]:
    with start_sdk_server(name="legacy", era="legacy") as running:
        yield running


def echo(gateway: RunningGateway, session: dict[str, str], text: str = "hi") -> Answer:
    return ask(gateway.endpoint(), tool_call("echo", {"message": text}), session)


def backend_of(server: SdkServer) -> list[dict[str, Any]]:
    return [{"name": "all", "prefix": "", "replicas": [server.url]}]


@pytest.mark.parametrize("form", ["node", "two cells"])
def test_a_session_goes_on_when_the_cell_that_served_it_is_killed(
    form: Form, start_gateway: StartGateway, server: SdkServer
) -> None:
    with start_gateway(form, backend_of(server), expects_errors=True) as gateway:
        sessions = [open_session(gateway.endpoint()) for _ in range(4)]
        for pid in gateway.cell_pids():
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: answers(gateway), 5, "a cell serves again")
        assert [echo(gateway, session).text for session in sessions] == ["hi"] * 4


@pytest.mark.parametrize("form", FORMS)
def test_a_session_goes_on_after_a_full_restart_of_the_gateway_and_an_ended_one_does_not(
    form: Form, tmp_path: Path, server: SdkServer
) -> None:
    with start_gateway(tmp_path, form, backend_of(server)) as gateway:
        living, ended = open_session(gateway.endpoint()), open_session(gateway.endpoint())
        assert ask(gateway.endpoint(), verb="DELETE", headers=ended).status == 200
    with start_gateway(tmp_path, form, backend_of(server)) as gateway:
        assert echo(gateway, living).text == "hi"
        refused = echo(gateway, ended)
        assert (refused.status, refused.reason) == (404, "session_not_found")


@pytest.mark.parametrize("form", ["embedded", "two cells"])
def test_a_session_at_a_stdio_server_goes_on_after_a_full_restart(form: Form, tmp_path: Path) -> None:
    """The server is started again and initialized again, with the client's own parameters."""
    backends = [{"name": "local", "prefix": "", "command": STDIO_SERVER}]
    with start_gateway(tmp_path, form, backends) as gateway:
        session = open_session(gateway.endpoint())
        assert echo(gateway, session).text == "hi"
        first = whoami(gateway, session)
    with start_gateway(tmp_path, form, backends) as gateway:
        assert echo(gateway, session).text == "hi"
        assert whoami(gateway, session)["pid"] != first["pid"]


@pytest.mark.parametrize("form", ["embedded", "two cells"])
def test_idle_sessions_are_over_here_and_at_their_server_and_used_ones_go_on(form: Form, start_gateway: StartGateway) -> None:
    with start_sdk_server(name="legacy", era="legacy") as server:
        limits = {"streamable_http": {"session_idle_timeout": 2.0}}
        with start_gateway(form, backend_of(server), transports=limits) as gateway:
            idle, used = open_session(gateway.endpoint()), open_session(gateway.endpoint())

            def is_over() -> bool:
                assert echo(gateway, used).text == "hi"
                return server.counters()["sessions"] < 3  # the used one, and that of the gateway's own probe

            wait_until(is_over, 15, "the server was told to end the idle session")
            assert echo(gateway, used).text == "hi"
            refused = echo(gateway, idle)
            assert (refused.status, refused.reason) == (404, "session_not_found")


@pytest.mark.parametrize("form", ["embedded", "two cells"])
def test_more_sessions_than_allowed_drive_out_the_longest_unused(
    form: Form, start_gateway: StartGateway, server: SdkServer
) -> None:
    limits = {"streamable_http": {"max_sessions": 5}}
    table = {"max_share_per_address": 1.0}
    with start_gateway(form, backend_of(server), transports=limits, gateway=table) as gateway:
        sessions = [open_session(gateway.endpoint()) for _ in range(6)]
        assert [echo(gateway, session).text for session in sessions[1:]] == ["hi"] * 5
        # The other cell learns of it by an event.
        wait_until(lambda: all(echo(gateway, sessions[0]).status == 404 for _ in range(8)), 5, "every cell refuses it")
        assert gateway.errors() == []


def test_a_session_that_its_client_has_ended_is_over_in_every_cell_at_once(start_gateway: StartGateway) -> None:
    """Each request is a connection of its own, so that both cells know the session, and both are asked for it afterwards."""
    with start_gateway("two cells", [{"name": "demo", "prefix": "", "builtin": "demo"}]) as gateway:
        for _ in range(20):
            session = open_session(gateway.endpoint())
            pings = [ask(gateway.endpoint(), request("ping"), session).status for _ in range(6)]
            assert ask(gateway.endpoint(), headers=session, verb="DELETE").status == 200
            pings += [ask(gateway.endpoint(), request("ping"), session).status for _ in range(4)]
            assert pings == [200] * 6 + [404] * 4


@pytest.mark.parametrize("form", ["embedded", "two cells"])
def test_who_opens_more_sessions_than_its_share_drives_out_its_own(
    form: Form, start_gateway: StartGateway, server: SdkServer
) -> None:
    """The other client's session is the oldest of all, and idle."""
    limits = {"streamable_http": {"max_sessions": 16}}
    table = {"trusted_proxies": ["127.0.0.1"]}
    with start_gateway(form, backend_of(server), transports=limits, gateway=table) as gateway:
        victim = open_session(gateway.endpoint(), {"X-Forwarded-For": "10.0.0.1"})
        greedy = [open_session(gateway.endpoint(), {"X-Forwarded-For": "10.0.0.2"}) for _ in range(20)]
        assert echo(gateway, victim).text == "hi"
        assert [echo(gateway, session).text for session in greedy[-4:]] == ["hi"] * 4
        wait_until(lambda: all(echo(gateway, greedy[0]).status == 404 for _ in range(8)), 5, "every cell refuses it")


@pytest.mark.parametrize("count", [pytest.param(10_000, marks=pytest.mark.slow), 400])
def test_sessions_that_are_opened_and_never_closed_cost_no_more_memory_and_no_processes(
    count: int, start_gateway: StartGateway
) -> None:
    """The short form is what CI runs; the long one is the promise."""
    cap = count // 10
    demo = {"name": "demo", "prefix": "demo__", "builtin": "demo"}
    backends = [demo, {"name": "local", "command": STDIO_SERVER, "pool_size": 3}]
    tables = {"transports": {"streamable_http": {"max_sessions": cap}}, "gateway": {"max_overflow": 1}}
    with start_gateway("embedded", backends, **tables) as gateway:
        for _ in range(2 * cap):
            open_session(gateway.endpoint())
        before = gateway.memory_bytes()
        for _ in range(count - 2 * cap):
            open_session(gateway.endpoint())
        assert gateway.memory_bytes() - before < 10_000_000
        children = psutil.Process(gateway.pid).children(recursive=True)
        assert len([each for each in children if EVERYTHING in each.cmdline()]) <= 4
        assert gateway.metric_sum("mcp_gateway_sessions") <= cap


def answers(gateway: RunningGateway) -> bool:
    try:
        return gateway.health()["status"] != "unhealthy"
    except OSError:
        return False


def whoami(gateway: RunningGateway, session: dict[str, str]) -> Any:
    return ask(gateway.endpoint(), request("tools/call", {"name": "whoami", "arguments": {}}), session).message["result"][
        "structuredContent"
    ]
