"""What is loaded once for all processes of a node."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_gateway.config.loader import settings_from_mapping
from mcp_gateway.scripts.serving.preloading import needed_libraries


@pytest.mark.parametrize(
    ("tables", "libraries"),
    [
        ({}, []),
        ({"backends": [{"name": "b", "replicas": ["https://b.example/mcp"]}, {"name": "c", "command": ["server"]}]}, []),
        ({"backends": [{"name": "b", "replicas": ["wss://b.example/mcp"]}]}, ["aiohttp"]),
        ({"backends": [{"name": "b", "replicas": ["sse+http://b.example/sse"]}]}, ["aiohttp"]),
        ({"cluster": {"url": "nats://127.0.0.1:4222", "node": "a", "key_file": "key"}}, ["nats"]),
        ({"alerts": {"webhook_url": "https://alerts.example/"}}, ["aiohttp"]),
        (
            {"auth": {"mode": "required", "issuers": [{"issuer": "https://login.example", "audience": ["us"]}]}},
            ["jwt", "aiohttp"],
        ),
    ],
)
def test_what_few_gateways_need_is_loaded_before_cells_fork_where_one_does(tables: dict[str, Any], libraries: list[str]) -> None:
    assert [*needed_libraries(settings_from_mapping(tables, "gateway.toml"))] == libraries
