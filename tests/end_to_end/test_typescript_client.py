"""The official TypeScript client meets through the gateway what it meets without it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.doubles.sdk_server import SdkServer
from tests.end_to_end.running_cluster import BALANCED, start_in
from tests.end_to_end.running_gateway import Entrance, is_continuous_integration
from tests.node.node_client import install_once, run_node_client

pytestmark = pytest.mark.node_js

VERSIONS = {"legacy": "2025-11-25", "modern": "2026-07-28", "auto": "2026-07-28"}


@pytest.fixture(scope="module", autouse=True)
def node_packages() -> None:
    """Skip where the client cannot be had; a machine of continuous integration must have it."""
    try:
        assert shutil.which("node"), "Node.js is not installed"
        install_once()
    except (AssertionError, subprocess.SubprocessError, OSError) as problem:
        if is_continuous_integration():
            raise
        pytest.skip(f"the TypeScript client cannot be had: {problem}")


@pytest.fixture(scope="module", params=["embedded", "two cells", *BALANCED])
def gateways(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, legacy_server: SdkServer, modern_server: SdkServer
) -> Iterator[dict[str, Entrance]]:
    """{era: a gateway in front of the server of that era}."""

    def starting(server: SdkServer) -> AbstractContextManager[Entrance]:
        backends = [{"name": "all", "prefix": "", "replicas": [server.url]}]
        return start_in(tmp_path_factory.mktemp("gateway"), request.param, backends)

    with starting(legacy_server) as legacy:
        with starting(modern_server) as modern:
            yield {"legacy": legacy, "modern": modern, "auto": modern}


@pytest.fixture(scope="module")
def seen_directly(legacy_server: SdkServer, modern_server: SdkServer) -> dict[str, dict[str, Any]]:
    """{mode: what the client sees of the server itself}."""
    return {
        "legacy": run_node_client(legacy_server.url, "legacy"),
        "modern": run_node_client(modern_server.url, "modern"),
        "auto": run_node_client(modern_server.url, "auto"),
    }


@pytest.mark.parametrize("mode", ["legacy", "modern", "auto"])
def test_the_walk_through_the_gateway_sees_what_the_direct_walk_sees(
    mode: Any, gateways: dict[str, Entrance], seen_directly: dict[str, dict[str, Any]]
) -> None:
    seen = run_node_client(gateways[mode].endpoint(), mode)
    assert seen["errors"] == {}
    assert (seen["protocol_version"], seen["session"]) == (VERSIONS[mode], mode == "legacy")
    assert (seen["elicit"], seen["sample"], seen["progress"]) == ("accept: Hello, Ada!", "test-model: 42", [1, 2, 3])
    assert seen == seen_directly[mode]


@pytest.mark.parametrize(("mode", "version"), [("legacy", "2025-11-25"), ("auto", "2026-07-28")])
def test_a_client_of_either_era_uses_a_legacy_server_behind_the_gateway(
    mode: Any, version: str, gateways: dict[str, Entrance]
) -> None:
    seen = run_node_client(gateways["legacy"].endpoint(), mode)
    assert (seen["errors"], seen["protocol_version"], seen["session"]) == ({}, version, mode == "legacy")


@pytest.mark.parametrize("mode", ["legacy", "modern"])
def test_the_client_uses_the_demo_server(mode: Any, start_gateway: StartGateway) -> None:
    with start_gateway("embedded", [{"name": "demo", "prefix": "", "builtin": "demo"}]) as gateway:
        seen = run_node_client(gateway.endpoint(), mode, server="demo")
    assert seen["errors"] == {}
    assert (seen["tools"], seen["echo"], seen["tool_error"]) == (["echo", "time", "slow", "fail"], "hi", True)
    assert seen["progress"] == [1, 2, 3, 4]


def test_the_client_reaches_each_of_two_servers_by_its_prefix(
    start_gateway: StartGateway, legacy_server: SdkServer, seen_directly: dict[str, dict[str, Any]]
) -> None:
    """The walk reads one server's resource by its inner name, which only one server alone has; the rest goes by prefix."""
    two = [{"name": name, "replicas": [legacy_server.url]} for name in ("a", "b")]
    with start_gateway("embedded", two) as gateway:
        seen = run_node_client(gateway.endpoint(), "legacy", prefix="b__")
    assert set(seen["errors"]) == {"resource"}
    assert seen["resources"] == sorted(f"{name}+test://{item}" for name in "ab" for item in ("blob", "static"))
    expected = seen_directly["legacy"]
    for key in (
        "echo",
        "structured",
        "tool_error",
        "elicit",
        "sample",
        "roots",
        "progress",
        "logs",
        "cancelled",
        "prompt",
        "completion",
    ):
        assert seen[key] == expected[key], key
