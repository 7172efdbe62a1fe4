from __future__ import annotations

from typing import Any

import pytest

from mcp_gateway.config.loader import ConfigError, settings_from_mapping
from mcp_gateway.config.settings import Settings


def test_nothing_listens_for_grpc_where_nobody_asks_for_it() -> None:
    assert (Settings().grpc.port, Settings().grpc.max_connections) == (0, 1000)


@pytest.mark.parametrize("port", [1, 65_535])
def test_a_port_of_its_own_is_taken(port: int) -> None:
    assert settings_from_mapping({"grpc": {"port": port}}, "f").grpc.port == port


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        ({"grpc": {"port": 65_536}}, "65535"),
        ({"grpc": {"port": 4000}}, "another port than gateway.port"),
        ({"grpc": {"port": 1900}}, "another port than actor_system.admin_port"),
        ({"grpc": {"max_connections": 0}}, "grpc.max_connections"),
        ({"grpc": {"host": "x"}}, "grpc.host"),
        (
            {"grpc": {"port": 1}, "tls": {"certificate": "c", "key": "k", "client_ca": "a", "client_crl": "l"}},
            "nothing beside tls.client_crl",
        ),
    ],
)
def test_what_cannot_be_served_is_told(tables: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        settings_from_mapping(tables, "f")
