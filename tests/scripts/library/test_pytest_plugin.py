"""The pytest fixture, in a test suite of another program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TESTS = """
import asyncio
import urllib.request

from mcp import Client

def test_of_a_function(mcp_gateway):
    gateway = mcp_gateway()
    other = mcp_gateway({"a": {"builtin": "demo"}}, gateway={"pool_size": 3})
    assert gateway.url != other.url

    async def names(url):
        async with Client(url) as client:
            return [tool.name for tool in (await client.list_tools()).tools]

    assert asyncio.run(names(gateway.url))[0] == "echo"
    assert asyncio.run(names(other.url))[0] == "a__echo"

def test_that_fails_ends_its_gateway_all_the_same(mcp_gateway):
    mcp_gateway()
    assert False
"""


def test_a_suite_finds_the_fixture_by_itself_and_ends(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False)
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert "mcp_gateway(" not in done.stderr
    listed = subprocess.run([*command, "--fixtures"], capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False)
    assert "is a gateway that runs until the test is over" in listed.stdout
