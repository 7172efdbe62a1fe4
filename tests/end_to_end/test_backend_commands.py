"""Backends come, go, drain and change while clients hold sessions and streams at a node of two cells."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import StartGateway
from tests.doubles.stream_reader import StreamReader
from tests.doubles.topic_reader import read_topic
from tests.end_to_end.raw_http import Answer, ask, ask_modern, modern, open_session, request, tool_call
from tests.end_to_end.running_gateway import RunningGateway, wait_until

EVERYTHING = str(Path(__file__).parents[1] / "doubles" / "everything_server.py")
STDIO = [sys.executable, EVERYTHING, "--transport", "stdio", "--era", "legacy"]
DEMO = {"name": "demo", "builtin": "demo"}
OTHER = {"name": "other", "builtin": "demo"}
LOCAL = {"name": "local", "command": STDIO}
CHANGED = "notifications/tools/list_changed"
MANY = 8
"""Connections enough to have met both cells."""


@pytest.fixture(scope="module")
def gateway(start_gateway: StartGateway) -> Iterator[RunningGateway]:
    """Shared by tests that leave it with the backends of its file."""
    with start_gateway("two cells", [DEMO, LOCAL]) as running:
        yield running


def tool_names(gateway: RunningGateway, session: dict[str, str]) -> set[str]:
    listed = ask(gateway.endpoint(), request("tools/list"), session).message["result"]["tools"]
    return {tool["name"].partition("__")[0] for tool in listed}


def echo(gateway: RunningGateway, backend: str, session: dict[str, str]) -> Answer:
    return ask(gateway.endpoint(), tool_call(f"{backend}__echo", {"message": "hi"}), session)


def echo_stateless(gateway: RunningGateway, backend: str) -> Answer:
    return ask_modern(gateway.endpoint(), tool_call(f"{backend}__echo", {"message": "hi"}))


def states(gateway: RunningGateway) -> dict[str, bool]:
    """{backend: whether it is draining}."""
    return {backend["name"]: backend["draining"] for backend in gateway.status()["backends"]}


def open_streams(stack: ExitStack, gateway: RunningGateway) -> tuple[list[dict[str, str]], list[StreamReader]]:
    """Sessions with their streams, and as many subscriptions without a session."""
    sessions = [open_session(gateway.endpoint()) for _ in range(MANY)]
    body, headers = modern(request("subscriptions/listen", {"notifications": {"toolsListChanged": True}}))
    streams = [stack.enter_context(StreamReader(gateway.endpoint(), session)) for session in sessions]
    streams += [stack.enter_context(StreamReader(gateway.endpoint(), headers, body)) for _ in range(MANY)]
    wait_until(lambda: all(len(stream.methods()) == 1 for stream in streams[MANY:]), 10, "the subscriptions are acknowledged")
    return sessions, streams


def in_background(call: Callable[[], Answer]) -> tuple[threading.Thread, list[Answer]]:
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(call()))
    thread.start()
    return thread, answers


def test_a_backend_is_added_and_removed_under_clients_that_keep_their_sessions_and_streams(gateway: RunningGateway) -> None:
    with ExitStack() as stack:
        sessions, streams = open_streams(stack, gateway)
        # 1. Added: known everywhere as soon as the command has ended, and clients are told that there is more.
        assert gateway.admin("add-backend", "two", "--builtin", "demo") == (0, "two added\n")
        assert [echo_stateless(gateway, "two").text for _ in range(MANY)] == ["hi"] * MANY
        wait_until(lambda: all(CHANGED in stream.methods() for stream in streams), 10, "every stream says that tools changed")
        for session in sessions:
            assert tool_names(gateway, session) == {"demo", "local", "two"}
            assert echo(gateway, "two", session).text == "hi"
        assert ask_modern(gateway.endpoint("two"), tool_call("echo", {"message": "alone"})).text == "alone"
        # 2. Removed: what it was doing ends with a clear error, and so does what comes later.
        slow = tool_call("two__slow", {"seconds": 30})
        thread, answers = in_background(lambda: ask(gateway.endpoint(), slow, sessions[0]))
        wait_until(lambda: gateway.metric_sum("mcp_gateway_pool_connections", backend="two", state="leased") == 1, 10, "it runs")
        for stream in streams:
            stream.messages.clear()
        assert gateway.admin("remove-backend", "two") == (0, "two removed\n")
        thread.join(10)
        assert (answers[0].status, answers[0].reason) == (502, "upstream_failed")
        for session in sessions:
            assert tool_names(gateway, session) == {"demo", "local"}
            assert echo(gateway, "two", session).reason == "invalid_params"
            assert echo(gateway, "demo", session).text == "hi"
        assert ask_modern(gateway.endpoint("two"), tool_call("echo", {})).reason == "no_backend"
        wait_until(lambda: all(CHANGED in stream.methods() for stream in streams), 10, "every stream says that tools changed")
        assert all(stream.is_open for stream in streams)


def test_each_change_is_one_event_of_the_node(gateway: RunningGateway) -> None:
    async def follow() -> None:
        async with read_topic(gateway.port, "mcp.backend.*") as topic:
            for command in ("add-backend two --builtin demo", "drain two", "undrain two", "remove-backend two", "drain demo"):
                assert (await asyncio.to_thread(gateway.admin, *command.split()))[0] == 0
            told = [(each.topic, each.data["payload"]["backend"]) for each in await topic.events(5)]
            kinds = [("added", "two"), ("drained", "two"), ("undrained", "two"), ("removed", "two"), ("drained", "demo")]
            assert told == [(f"mcp.backend.{kind}", backend) for kind, backend in kinds]

    asyncio.run(follow())
    assert gateway.admin("undrain", "demo")[0] == 0


def test_a_drained_backend_keeps_its_sessions_and_takes_nothing_new(start_gateway: StartGateway) -> None:
    with start_gateway("two cells", [DEMO, OTHER], expects_errors=True) as gateway:
        session = open_session(gateway.endpoint())
        assert gateway.admin("drain", "demo") == (0, "demo drained\n")
        assert gateway.admin("drain", "demo") == (0, "nothing has changed\n")

        def is_drained() -> bool:
            stateless = [echo_stateless(gateway, "demo") for _ in range(MANY)]
            assert {(answer.status, answer.reason) for answer in stateless} == {(503, "draining")}
            fresh = open_session(gateway.endpoint())
            assert (tool_names(gateway, fresh), echo(gateway, "demo", fresh).reason) == ({"other"}, "draining")
            assert {echo(gateway, "demo", session).text for _ in range(MANY)} == {"hi"}
            return states(gateway) == {"demo": True, "other": False}

        assert is_drained()
        assert "draining" in gateway.admin("backends")[1]
        # It is known again after the restart of the actor that decides, of the cells, and of everything.
        for child in ("cell/0/router", "cell/1/router"):
            assert gateway.admin("kill", child)[0] == 0
        assert is_drained()
        for pid in gateway.cell_pids():
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: serves_with(gateway, 2), 15, "both cells serve again")
        assert is_drained()
        gateway.admin("kill", "node-supervisor")
        wait_until(lambda: serves_with(gateway, 2), 15, "the node serves again")
        assert is_drained()
        assert gateway.admin("undrain", "demo") == (0, "demo undrained\n")
        assert [echo_stateless(gateway, "demo").text for _ in range(MANY)] == ["hi"] * MANY


def test_cells_and_nodes_that_start_later_have_the_changed_backends(start_gateway: StartGateway) -> None:
    with start_gateway("two cells", [DEMO], expects_errors=True) as gateway:
        session = open_session(gateway.endpoint())
        assert gateway.admin("add-backend", "two", "--", *STDIO) == (0, "two added\n")
        assert gateway.admin("remove-backend", "demo") == (0, "demo removed\n")
        for what in ("cells", "node"):
            if what == "cells":
                for pid in gateway.cell_pids():
                    os.kill(pid, signal.SIGKILL)
            else:
                gateway.admin("kill", "node-supervisor")
            wait_until(lambda: serves_with(gateway, 2), 15, f"the {what} serve again")
            assert states(gateway) == {"two": False}
            assert {echo(gateway, "two", session).text for _ in range(MANY)} == {"hi"}
            assert echo_stateless(gateway, "demo").reason == "invalid_params"


def test_a_reload_takes_over_backends_and_routes_and_leaves_what_has_not_changed(start_gateway: StartGateway) -> None:
    with start_gateway("two cells", [DEMO, LOCAL]) as gateway, ExitStack() as stack:
        sessions, streams = open_streams(stack, gateway)
        server = whoami(gateway, sessions[0])
        was = gateway.config_path.read_text()
        now = was.replace('name = "demo"', 'name = "two"').replace("cells = 2", "cells = 3").replace("drain_timeout = 1.0", "")
        now += "[limits]\nburst = 3\n"
        gateway.config_path.write_text(now)
        # 1. The file that it was started with, read again.
        keys = ("gateway.cells", "gateway.drain_timeout", "limits.burst")
        left = [f"{key} differs from what runs and was left: it changes when the gateway starts again" for key in keys]
        exit_code, lines = gateway.admin("reload")
        assert (exit_code, sorted(lines.splitlines())) == (0, sorted(["two added", "demo removed", *left]))
        assert states(gateway) == {"two": False, "local": False}
        assert whoami(gateway, sessions[0]) == server  # the same process, the same session
        assert all(stream.is_open for stream in streams)
        assert {echo(gateway, "two", session).text for session in sessions} == {"hi"}
        # 2. Again: there is nothing left to do but what cannot be done.
        assert gateway.admin("reload")[1].count("\n") == 3
        # 3. A file that is wrong changes nothing, and every mistake has its line.
        gateway.config_path.write_text(now.replace('builtin = "demo"', 'builtin = "dmeo"\nprefixx = "x"'))
        exit_code, lines = gateway.admin("reload")
        assert (exit_code, sorted(line.split(": ")[1] for line in lines.splitlines())) == (
            2,
            ["backends[0].builtin", "backends[0].prefixx"],
        )
        assert states(gateway) == {"two": False, "local": False}
        # 4. Another file. What an operator has drained goes on doing so.
        assert gateway.admin("drain", "local")[0] == 0
        other = gateway.config_path.with_name("other.toml")
        other.write_text(was)
        assert gateway.admin("reload", "--config", str(other)) == (0, "demo added\ntwo removed\n")
        assert states(gateway) == {"demo": False, "local": True}
        assert echo_stateless(gateway, "demo").text == "hi"
        # 5. A server that is removed is ended.
        assert whoami(gateway, sessions[0]) == server
        assert gateway.admin("remove-backend", "local")[0] == 0
        wait_until(lambda: not psutil.pid_exists(server["pid"]), 10, "the process of the server is gone")
        assert all(stream.is_open for stream in streams)


def test_a_description_at_a_private_address_is_taken_where_that_is_said(gateway: RunningGateway) -> None:
    pets = ["add-backend", "pets", "--openapi", "http://127.0.0.1:1/openapi.json"]
    assert gateway.admin(*pets)[0] == 2
    assert gateway.admin(*pets, "--allow-private") == (0, "pets added\n")
    assert gateway.admin("remove-backend", "pets") == (0, "pets removed\n")


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        (["add-backend", "demo", "--builtin", "demo"], ["backends[2].name"]),
        (["add-backend", "2x", "--replica", "nope", "--instances", "0"], ["name", "replicas[0]", "instances"]),
        (["add-backend", "new", "--replica", "http://127.0.0.1:1/mcp", "--", "python"], ["found replicas and command; allowed"]),
        (["add-backend", "new"], ["found none of them; allowed"]),
        (["add-backend", "new", "--builtin", "demo", "--prefix", "dem"], ["backends[2].prefix"]),
        (["remove-backend", "nobody"], ["name"]),
        (["drain", "nobody"], ["name"]),
        (["undrain", ""], ["name"]),
        (["reload", "--config", "/nonexistent.toml"], ["found no such file or directory; allowed"]),
    ],
)
def test_what_is_wrong_is_refused_as_check_config_would_and_changes_nothing(
    gateway: RunningGateway, arguments: list[str], keys: list[str]
) -> None:
    exit_code, lines = gateway.admin(*arguments)
    assert (exit_code, [line.split(": ")[1] for line in lines.splitlines()]) == (2, keys), lines
    assert states(gateway) == {"demo": False, "local": False}


def test_a_secret_that_is_misspelled_is_not_shown(gateway: RunningGateway) -> None:
    exit_code, text = gateway.admin("add-backend", "new", "--builtin", "demo", "--header", "Authorization:s3cret")
    assert exit_code == 2
    assert "not of the form NAME=VALUE" in text
    assert "s3cret" not in text


def test_secrets_come_from_a_file_or_standard_input_and_never_from_the_arguments(gateway: RunningGateway, tmp_path: Path) -> None:
    secrets = tmp_path / "headers"
    secrets.write_text("Authorization: Bearer s3cret:with a colon\n\nX-Tenant:acme\n")
    (tmp_path / "env").write_text("KEY=s3cret=\n")
    given = {
        "two": ["--replica", "http://127.0.0.1:9/mcp", "--header", f"@{secrets}"],
        "three": ["--replica", "http://127.0.0.1:9/mcp", "--header", "@-"],
        "four": ["--env", f"@{tmp_path / 'env'}", "--", *STDIO],
    }
    for name, arguments in given.items():
        options = ["--state-dir", str(gateway.state_dir), "--admin-port", str(gateway._admin_port)]
        command = [sys.executable, "-m", "mcp_gateway.scripts.command_line", "add-backend", name, *options, *arguments]
        done = subprocess.run(command, input=secrets.read_text(), capture_output=True, text=True, timeout=20, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{name} added\n", "")
    (kept,) = gateway.state_dir.glob("mcp-gateway-run-*/backends.json")
    backends = {each["name"]: each for each in json.loads(kept.read_text())["backends"]}
    headers = {"Authorization": "Bearer s3cret:with a colon", "X-Tenant": "acme"}
    assert [backends[name]["headers"] for name in ("two", "three")] == [headers, headers]
    assert backends["four"]["env"] == {"KEY": "s3cret="}
    for name in given:
        assert gateway.admin("remove-backend", name)[0] == 0


@pytest.mark.parametrize(
    ("content", "says"), [("s3cret", "not of the form NAME: VALUE"), ("s3cret" * 20_000, "longer than"), (None, "No such")]
)
def test_a_file_of_headers_that_cannot_be_used_is_refused_and_not_shown(
    gateway: RunningGateway, tmp_path: Path, content: str | None, says: str
) -> None:
    if content is not None:
        (tmp_path / "headers").write_text(content)
    replica = ["--replica", "http://127.0.0.1:9/mcp"]
    exit_code, text = gateway.admin("add-backend", "two", *replica, "--header", f"@{tmp_path / 'headers'}")
    assert (exit_code, says in text, "s3cret" in text) == (2, True, False)


def test_an_embedded_gateway_says_that_it_has_no_port_for_commands(start_gateway: StartGateway) -> None:
    with start_gateway("embedded", [DEMO]) as gateway:
        for command in (["add-backend", "two", "--builtin", "demo"], ["drain", "demo"], ["reload"]):
            exit_code, line = gateway.admin(*command)
            assert (exit_code, "is embedded: it has no admin port" in line, line.count("\n")) == (1, True, 1)


def test_backends_beside_routes_get_routes_of_their_own(start_gateway: StartGateway) -> None:
    routes = [{"pattern": "tools/call/demo__*", "backend": "demo"}]
    with start_gateway("two cells", [DEMO], routes=routes) as gateway:
        assert gateway.admin("add-backend", "two", "--builtin", "demo")[0] == 0
        assert [echo_stateless(gateway, "two").text for _ in range(MANY)] == ["hi"] * MANY
        assert gateway.admin("remove-backend", "two")[0] == 0
        assert echo_stateless(gateway, "two").reason == "invalid_params"
        assert echo_stateless(gateway, "demo").text == "hi"


def serves_with(gateway: RunningGateway, cell_count: int) -> bool:
    try:
        return None not in (pids := gateway.cell_pids()) and len(pids) == cell_count and gateway.health()["status"] != "unhealthy"
    except (OSError, AssertionError, subprocess.TimeoutExpired):
        return False


def whoami(gateway: RunningGateway, session: dict[str, str]) -> Any:
    answer = ask(gateway.endpoint(), tool_call("local__whoami", {}), session)
    return answer.message["result"]["structuredContent"]


def test_a_server_of_the_registry_is_added_by_its_description(gateway: RunningGateway, tmp_path: Path) -> None:
    described = tmp_path / "server.json"
    url = {"type": "streamable-http", "url": gateway.endpoint("demo"), "headers": [{"name": "X-Key", "default": "k"}]}
    described.write_text(json.dumps({"name": "io.github.example/weather", "version": "1", "remotes": [url]}))
    assert gateway.admin("add-backend", "--registry", str(described)) == (0, "weather added\n")
    wait_until(lambda: echo_stateless(gateway, "weather").text == "hi", 30, "it serves")
    assert gateway.admin("remove-backend", "weather")[0] == 0
    described.write_text(json.dumps({"name": "a/b", "packages": [{"registryType": "nuget", "identifier": "b"}]}))
    code, text = gateway.admin("add-backend", "--registry", str(described))
    assert (code, "it has nuget" in text) == (2, True)
