"""Servers behind stdio that take long to start, as a first `npx -y` or `uvx` does: they are waited for, by one process each."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from mcp_gateway.transports.protocol.merging.merged_server import MISSING_BACKENDS
from tests.conftest import StartGateway
from tests.doubles.stream_reader import StreamReader
from tests.end_to_end.raw_http import LEGACY, Answer, ask, ask_modern, modern, open_session, request, tool_call
from tests.end_to_end.running_gateway import RunningGateway, wait_until

ODD = Path(__file__).parents[1] / "doubles" / "odd_stdio_server.py"
FAN_OUT_S = 5.0


@attrs.frozen
class SlowServer:
    """Each of its processes says nothing until the test lets it go on."""

    directory: Path

    @property
    def command(self) -> list[str]:
        script = 'echo start >> "$0/starts"; until [ -e "$0/go" ]; do sleep 0.05; done; exec "$1" "$2"'
        return ["sh", "-c", script, str(self.directory), sys.executable, str(ODD)]

    def go_on(self) -> None:
        (self.directory / "go").touch()

    def hold(self) -> None:
        (self.directory / "go").unlink()

    def start_count(self) -> int:
        path = self.directory / "starts"
        return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture(params=["embedded", "node", "two cells"])
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SlowServer]:
    server = SlowServer(tmp_path)
    yield server
    server.go_on()


def component(gateway: RunningGateway, backend: str = "slow") -> dict[str, str]:
    components: dict[str, dict[str, str]] = gateway.health()["components"]
    return next((found for name, found in components.items() if name.startswith(f"{backend}/")), {})


def initialize(url: str, timeout_s: float = 40.0) -> Answer:
    """As a client that can be asked, so that it has a process of its own."""
    params = {"protocolVersion": LEGACY, "capabilities": {"roots": {}}, "clientInfo": {"name": "raw", "version": "1"}}
    return ask(url, request("initialize", params), timeout_s=timeout_s)


def test_a_server_that_starts_slowly_is_told_of_as_starting_and_served_by_its_first_process(
    form: str, server: SlowServer, start_gateway: StartGateway
) -> None:
    backends = [{"name": "slow", "command": server.command, "request_timeout": 3.0}]
    with start_gateway(form, backends, gateway={"health_check_interval": 0.5}) as gateway:
        # 1. Many probes long, and longer than `server/discover` is waited for, it is starting and no more than that.
        def is_long_starting() -> bool:
            health = gateway.health()
            shown = next((each for name, each in health["components"].items() if name.startswith("slow/")), {})
            return health["status"] == "degraded" and shown == {**shown, "status": "degraded", "reason": "starting since 11 s"}

        wait_until(is_long_starting, 30, "it has been starting for long, and is no more than degraded")
        for _ in range(10):  # each answer may come from another cell
            shown = component(gateway)
            assert (shown["status"], shown["reason"].partition(" since ")[0]) == ("degraded", "starting")
        # 2. A caller is told so, of either era, when its own time is over.
        for answer in (ask_modern(gateway.endpoint("slow"), tool_call("echo")), initialize(gateway.endpoint("slow"))):
            assert answer.reason == "upstream_timeout"
            assert "starting" in answer.message["error"]["message"]
        # 3. It comes up: who waits for it is served, and nothing was started twice for that.
        server.go_on()
        open_session(gateway.endpoint("slow"))
        answer = ask_modern(gateway.endpoint("slow"), tool_call("echo", {"a": 1}))
        assert answer.text == '{"a": 1}'
        assert initialize(gateway.endpoint("slow")).status == 200
        wait_until(lambda: component(gateway)["status"] == "healthy", 10, "it is healthy")
        assert server.start_count() == 2, "one that all share, and one of the client that can be asked"


def test_a_client_that_can_be_asked_opens_all_where_one_server_starts_slowly_and_the_other_never(
    form: str, server: SlowServer, start_gateway: StartGateway
) -> None:
    server.go_on()
    backends = [{"name": "slow", "command": server.command}, {"name": "broken", "command": ["sh", "-c", "exit 1"]}]
    with start_gateway(form, backends, gateway={"health_check_interval": 0.5}) as gateway:
        wait_until(lambda: component(gateway).get("status") == "healthy", 20, "it is healthy")
        server.hold()
        before = server.start_count()
        # 1. One that gives up leaves a process that is starting.
        with pytest.raises(TimeoutError):
            initialize(gateway.endpoint(), timeout_s=2.0)
        # 2. Its next try waits for it, longer than a part of a merged answer is waited for where there is another.
        answers: list[Any] = []
        client = threading.Thread(target=lambda: answers.append(initialize(gateway.endpoint())))
        client.start()
        client.join(FAN_OUT_S + 1.0)
        assert answers == []
        server.go_on()
        client.join(20)
        assert [answer.status for answer in answers] == [200]
        assert server.start_count() - before == 1, "also where the next try overtook the word of the first's end"


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_the_first_list_goes_without_a_server_that_is_starting_and_its_tools_come_with_list_changed(
    form: str, era: str, server: SlowServer, start_gateway: StartGateway
) -> None:
    backends = [{"name": "slow", "command": server.command}, {"name": "demo", "builtin": "demo"}]
    with start_gateway(form, backends, gateway={"health_check_interval": 0.5}) as gateway:
        url = gateway.endpoint()
        headers: dict[str, str] = {}
        if era == "legacy":
            headers = open_session(url)
            listening = StreamReader(url, headers)
        else:
            body, listen_headers = modern(request("subscriptions/listen", {"notifications": {"toolsListChanged": True}}))
            listening = StreamReader(url, listen_headers, body)

        def listed() -> dict[str, Any]:
            answer = ask(url, request("tools/list"), headers) if headers else ask_modern(url, request("tools/list"))
            result: dict[str, Any] = answer.message["result"]
            return result

        with listening as stream:
            # 1. The others are served meanwhile, and the client is told what is missing and why.
            first = listed()
            assert {tool["name"].partition("__")[0] for tool in first["tools"]} == {"demo"}
            assert first["_meta"][MISSING_BACKENDS]["slow"].startswith("upstream_timeout; starting")
            assert "notifications/tools/list_changed" not in stream.methods()
            # 2. It comes up: whoever listens is told, and finds all tools.
            server.go_on()
            wait_until(lambda: "notifications/tools/list_changed" in stream.methods(), 30, "it is told that the list has changed")
            second = listed()
            assert {tool["name"].partition("__")[0] for tool in second["tools"]} == {"demo", "slow"}
