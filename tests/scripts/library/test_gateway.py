"""The gateway inside another program, as the README shows it."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from mcp import Client

import mcp_gateway
from mcp_gateway import Gateway, GatewayError
from mcp_gateway.scripts.serving import embedded_node
from tests.doubles.gateway_process import wait_until
from tests.doubles.ports import free_port

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """What tests that are coroutines run on."""
    return "asyncio"


EVERYTHING = Path(__file__).parents[2] / "doubles" / "everything_server.py"
COMMAND = [sys.executable, str(EVERYTHING), "--transport", "stdio", "--era", "legacy"]


async def tool_names(url: str) -> list[str]:
    async with Client(url) as client:
        return [tool.name for tool in (await client.list_tools()).tools]


async def test_a_gateway_serves_for_the_length_of_a_block() -> None:
    async with Gateway() as gateway:
        assert gateway.url.startswith("http://127.0.0.1:")
        assert gateway.url.endswith("/mcp")
        assert await tool_names(gateway.url) == ["echo", "time", "slow", "fail"]
        assert await tool_names(gateway.url_of("demo")) == ["echo", "time", "slow", "fail"]
        status = await gateway.status()
        assert [backend["name"] for backend in status["backends"]] == ["demo"]
        port = int(gateway.url.split(":")[2].split("/")[0])
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    with pytest.raises(GatewayError, match="does not run"):
        _ = gateway.url
    async with gateway:  # and again
        assert await tool_names(gateway.url) == ["echo", "time", "slow", "fail"]
        with pytest.raises(GatewayError, match="runs already"):
            await gateway.__aenter__()


async def test_its_servers_end_with_it_and_those_of_another_one_go_on() -> None:
    here = psutil.Process()
    others = set(here.children(recursive=True))  # servers that other tests share
    async with Gateway({"one": COMMAND, "demo": {"builtin": "demo"}}) as gateway:
        assert "one__echo" in await tool_names(gateway.url)
        assert "demo__echo" in await tool_names(gateway.url)
        async with Gateway({"two": COMMAND}) as other:
            assert "two__echo" in await tool_names(other.url)
        assert "one__echo" in await tool_names(gateway.url)
        async with Client(gateway.url) as client:
            await client.call_tool("one__echo", {"message": "still here"})

    def left() -> list[psutil.Process]:
        return [each for each in set(here.children(recursive=True)) - others if str(EVERYTHING) in each.cmdline()]

    wait_until(lambda: not left(), 10, "no server")


async def test_the_program_around_it_is_left_alone() -> None:
    before, tasks = (gc.get_threshold(), gc.get_freeze_count()), asyncio.all_tasks()
    async with Gateway() as gateway:
        assert await tool_names(gateway.url)
        assert (gc.get_threshold(), gc.get_freeze_count()) == before
    async with asyncio.timeout(10):
        while asyncio.all_tasks() - tasks:
            await asyncio.sleep(0.01)


def test_in_a_program_without_an_event_loop_it_has_a_thread_of_its_own() -> None:
    with Gateway() as gateway:
        assert asyncio.run(tool_names(gateway.url)) == ["echo", "time", "slow", "fail"]
        with pytest.raises(GatewayError, match="runs already"):
            gateway.__enter__()
    with pytest.raises(GatewayError, match="does not run"):
        _ = gateway.url


def test_a_start_that_fails_is_one_error_whatever_the_form() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        table = {"port": holder.getsockname()[1]}
        with pytest.raises(GatewayError, match="is in use"), Gateway(gateway=table):
            pass

        async def enter() -> None:
            async with Gateway(gateway=table):
                pass

        with pytest.raises(GatewayError, match="is in use"):
            asyncio.run(enter())


def test_what_is_wrong_with_settings_is_told_as_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(GatewayError, match=r"Gateway\(\.\.\.\): gateway\.pool_size: found 0; allowed: an integer"):
        Gateway(gateway={"pool_size": 0})
    with pytest.raises(GatewayError, match=r"backends\[0\]\.replicas\[0\]"):
        Gateway({"a": "no address"})
    (tmp_path / "g.toml").write_text("[gateway]\nport = 'x'\n")
    with pytest.raises(GatewayError, match=r"g\.toml: gateway\.port"):
        Gateway(config=tmp_path / "g.toml")
    with pytest.raises(TypeError, match="not from both"):
        Gateway({}, config=tmp_path / "g.toml")


async def test_a_file_serves_as_well(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "g.toml").write_text(
        f'[gateway]\nport = {port}\ncells = 4\nstate_dir = "{tmp_path}/state"\n[[backends]]\nname = "d"\nbuiltin = "demo"\n'
    )
    async with Gateway(config=tmp_path / "g.toml") as gateway:
        assert gateway.url == f"http://127.0.0.1:{port}/mcp"
        assert await tool_names(gateway.url) == ["d__echo", "d__time", "d__slow", "d__fail"]


async def test_a_cell_that_gives_up_is_started_again() -> None:
    async with Gateway() as gateway:
        node = gateway._node
        assert node is not None
        first = node.content
        node.request_stop("a test wants so")
        while node.content in (first, None):
            await asyncio.sleep(0.01)
        assert await tool_names(gateway.url) == ["echo", "time", "slow", "fail"]


async def test_one_that_gives_up_again_and_again_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_node, "MAX_RESTARTS", 1)
    async with Gateway() as gateway:
        assert gateway._node is not None
        assert gateway._keeping is not None
        for _ in range(2):
            gateway._node.request_stop("again")
        await asyncio.wait_for(gateway._keeping, 10)
        assert gateway._node.content is None


def test_the_import_root_has_three_names_and_loads_nothing_by_itself() -> None:
    assert sorted(mcp_gateway.__all__) == ["Gateway", "GatewayError", "__version__"]
    code = (
        "import json, sys, mcp_gateway; print(json.dumps(sorted({'tornado', 'attrs', 'aiohttp', 'thespian'} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
    with pytest.raises(AttributeError, match="no attribute 'Gatway'"):
        _ = mcp_gateway.Gatway
