"""Virtual servers and the search, as a file has them."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_gateway.config.backend_settings import BackendSettings
from mcp_gateway.config.curation_settings import SearchSettings, ServerSettings
from mcp_gateway.config.loader import ConfigError, settings_from_mapping
from mcp_gateway.config.setting_rules import InvalidSetting
from mcp_gateway.config.settings import Settings

BACKENDS = [{"name": "files", "builtin": "demo"}, {"name": "mail", "builtin": "demo"}]


def load(**tables: Any) -> Settings:
    return settings_from_mapping({"backends": BACKENDS, **tables}, "f.toml")


def test_a_file_with_servers_and_search_is_read() -> None:
    table = {"name": "research", "include": ["files/read_*", "*/echo"], "exclude": ["mail/*"], "instructions": "Look."}
    settings = load(servers=[table], search={"above": 50, "pinned": ["files__*"]})
    include = ("files/read_*", "*/echo")
    assert settings.servers == (ServerSettings(name="research", include=include, exclude=("mail/*",), instructions="Look."),)
    assert settings.search == SearchSettings(above=50, pinned=("files__*",))


@pytest.mark.parametrize(
    ("tables", "key"),
    [
        ({"servers": [{"name": "files", "include": ["mail/*"]}]}, "servers[0].name"),
        ({"servers": [{"name": "a", "include": []}, {"name": "a", "include": []}]}, "servers[1].name"),
        ({"servers": [{"name": "a"}]}, "servers[0].include"),
        ({"servers": [{"name": "a", "include": ["read_*"]}]}, "servers[0].include[0]"),
        ({"servers": [{"name": "a", "include": ["flies/*"]}]}, "servers[0].include[0]"),
        ({"servers": [{"name": "a", "include": ["*/*"], "exclude": ["files/*", "male/x"]}]}, "servers[0].exclude[1]"),
        ({"servers": [{"name": "a", "include": ["files/*"], "instruction": ""}]}, "servers[0].instruction"),
        ({"search": {"above": -1}}, "search.above"),
        ({"search": {"above": 100_001}}, "search.above"),
    ],
)
def test_what_cannot_be_is_named(tables: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(**tables)
    assert [problem.key for problem in refused.value.problems] == [key]


def test_a_backend_that_is_added_cannot_take_a_servers_name() -> None:
    server = ServerSettings(name="files", include=("mail/*",))
    with pytest.raises(InvalidSetting, match="no backend has"):
        Settings(backends=(BackendSettings(name="files", builtin="demo"),), servers=(server,))
