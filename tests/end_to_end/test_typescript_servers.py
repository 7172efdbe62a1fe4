"""Servers of the official TypeScript SDK 1.x behind the gateway: they know no revision after 2025-06-18, and refuse its name."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.doubles.ports import free_port
from tests.end_to_end.python_client import MODES, connected, run, text_of
from tests.end_to_end.running_gateway import RunningGateway, is_continuous_integration, wait_until
from tests.node.node_client import install_once

pytestmark = pytest.mark.node_js
SERVER = Path(__file__).parents[1] / "node" / "typescript_server.mjs"
PROBE_S = 0.5


@pytest.fixture(scope="module")
def server_port() -> Iterator[int]:
    node = shutil.which("node")
    try:
        assert node, "Node.js is not installed"
        install_once()
    except (AssertionError, subprocess.SubprocessError, OSError) as problem:
        if is_continuous_integration():
            raise
        pytest.skip(f"the TypeScript SDK cannot be had: {problem}")
    port = free_port()
    with subprocess.Popen([node, str(SERVER), str(port)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "listening\n"
            yield port
        finally:
            process.kill()


@pytest.fixture(scope="module", params=["embedded", "two cells"])
def gateway(request: pytest.FixtureRequest, start_gateway: StartGateway, server_port: int) -> Iterator[RunningGateway]:
    backends = [{"name": path, "replicas": [f"http://127.0.0.1:{server_port}/{path}"]} for path in ("mcp", "stateless")]
    with start_gateway(request.param, backends, gateway={"health_check_interval": PROBE_S}) as gateway:
        yield gateway


def session_counts(port: int) -> dict[str, int]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/counters", timeout=5) as answer:
        found: dict[str, int] = json.load(answer)
    return found


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("path", ["mcp", "stateless"])
def test_clients_of_both_eras_are_served(path: str, mode: str, gateway: RunningGateway) -> None:
    async def converse() -> None:
        async with connected(gateway.endpoint(path), mode) as (client, record):
            assert [tool.name for tool in (await client.list_tools()).tools] == ["echo", "ask", "ask_apart"]
            assert text_of(await client.call_tool("echo", {"message": "hi"})) == "hi"
            if path == "mcp":  # without sessions nobody can be asked
                for tool in ("ask", "ask_apart") if mode == "legacy" else ("ask",):
                    assert text_of(await client.call_tool(tool, {})) == "accept: Ada"
                    assert record.questions.pop() == "elicitation"

    run(converse())


def test_probes_find_it_healthy_and_stay_in_one_session(gateway: RunningGateway, server_port: int) -> None:
    def replicas() -> dict[str, Any]:
        return {name: each for name, each in gateway.health()["components"].items() if str(server_port) in name}

    wait_until(lambda: len(replicas()) == 2, 10, "both have been probed")
    opened = session_counts(server_port)["opened"]
    until_s = time.monotonic() + 6 * PROBE_S  # more failures than eject a replica
    while time.monotonic() < until_s:
        assert {each["status"] for each in replicas().values()} == {"healthy"}
        time.sleep(0.1)
    assert session_counts(server_port)["opened"] == opened


def test_no_session_outlives_the_gateway(start_gateway: StartGateway, server_port: int) -> None:
    before = session_counts(server_port)["open"]
    backend = {"name": "mcp", "replicas": [f"http://127.0.0.1:{server_port}/mcp"]}

    async def converse() -> None:
        async with connected(gateway.endpoint("mcp"), "legacy") as (client, _):
            assert text_of(await client.call_tool("echo", {"message": "hi"})) == "hi"

    with start_gateway("embedded", [backend], gateway={"health_check_interval": PROBE_S}) as gateway:
        run(converse())
        wait_until(lambda: session_counts(server_port)["open"] == before + 1, 10, "the client's has ended, the probe's has not")
    assert session_counts(server_port)["open"] == before
