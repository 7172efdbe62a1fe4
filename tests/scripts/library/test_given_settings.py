"""What a program says of its gateway, as the tables of a file."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_gateway.config.loader import ConfigError, settings_from_mapping
from mcp_gateway.scripts.library.given_settings import SOURCE, Backends, file_of


@pytest.mark.parametrize(
    ("given", "tables"),
    [
        (None, [{"name": "demo", "prefix": "", "builtin": "demo"}]),
        ({}, []),
        ({"a": "http://127.0.0.1:1/mcp"}, [{"name": "a", "replicas": ["http://127.0.0.1:1/mcp"]}]),
        ({"a": ["python", "server.py"]}, [{"name": "a", "command": ["python", "server.py"]}]),
        ({"a": {"builtin": "demo", "prefix": ""}}, [{"name": "a", "builtin": "demo", "prefix": ""}]),
        ([{"name": "a", "builtin": "demo"}], [{"name": "a", "builtin": "demo"}]),
        (({"name": "a", "builtin": "demo"},), [{"name": "a", "builtin": "demo"}]),
    ],
)
def test_a_backend_is_a_url_a_command_or_a_table(given: Backends | None, tables: list[Any]) -> None:
    assert file_of(given, {})["backends"] == tables


def test_without_more_words_a_free_port_is_taken_and_nothing_is_kept_on_disk() -> None:
    assert file_of(None, {})["gateway"] == {"port": 0, "state_dir": ""}
    given = {"gateway": {"port": 4000, "host": "::1"}, "limits": {"burst": 3}}
    assert file_of(None, given)["gateway"] == {"port": 4000, "state_dir": "", "host": "::1"}
    assert file_of(None, given)["limits"] == {"burst": 3}
    assert file_of(None, {"gateway": 7})["gateway"] == 7, "the loader says what is wrong with it"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"a": 3}, "backends[0].command: found an integer"),
        ({"a": None}, "backends[0].command: found"),
        ({3: "http://127.0.0.1:1/mcp"}, "backends[0].name: found 3"),
        (7, "backends: found an integer"),
        ("http://127.0.0.1:1/mcp", "backends: found a string"),
        (["http://127.0.0.1:1/mcp"], "backends[0]: found a string"),
    ],
)
def test_what_is_no_backend_is_told_as_a_mistake_of_a_file_is(given: Any, said: str) -> None:
    with pytest.raises(ConfigError) as told:
        settings_from_mapping(file_of(given, {}), SOURCE)
    assert said in str(told.value)
