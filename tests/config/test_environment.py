"""Settings by variables of the environment: where they go, how they are read, and who is blamed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.config.environment import PREFIX, path_of, put_over, value_of, variables_of
from mcp_gateway.config.loader import ConfigError, load_settings, settings_of_variables
from mcp_gateway.config.settings import Settings

_FILE = '[gateway]\nport = 5000\n[[backends]]\nname = "one"\nreplicas = ["http://127.0.0.1:1/mcp"]\n'


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "g.toml").write_text(_FILE)
    return str(tmp_path / "g.toml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5000", 5000),
        ("0.5", 0.5),
        ("true", True),
        ('"auto"', "auto"),
        ("auto", "auto"),
        ("127.0.0.1", "127.0.0.1"),
        ("", ""),
        ('["a", "b"]', ["a", "b"]),
        ('{Authorization = "x"}', {"Authorization": "x"}),
        ('[{"name": "one", "builtin": "demo"}]', [{"name": "one", "builtin": "demo"}]),
        ("1\nother = 2", "1\nother = 2"),
        ("1 # a comment", 1),
    ],
)
def test_a_value_is_toml_or_json_or_else_a_string(text: str, value: object) -> None:
    assert value_of(text) == value


@pytest.mark.parametrize(
    ("variable", "value", "key"),
    [
        ("GATEWAY__PORT", "6000", ("gateway", "port", 6000)),
        ("TRANSPORTS__WEBSOCKET__COMPRESSION", "false", ("transports", "websocket", "compression", False)),
        ("BACKENDS__0__PREFIX", "'x_'", ("backends", 0, "prefix", "x_")),
        ("BACKENDS__1__NAME", "two", ("backends", 1, "name", "two")),
    ],
)
def test_a_variable_stands_in_its_place_over_what_the_file_says(variable: str, value: str, key: tuple[Any, ...]) -> None:
    mapping = {"gateway": {"port": 5000}, "backends": [{"name": "one"}]}
    changed, problems = put_over(mapping, {PREFIX + variable: value})
    assert not problems
    found: Any = changed
    for part in key[:-1]:
        found = found[part]
    assert found == key[-1]
    assert mapping == {"gateway": {"port": 5000}, "backends": [{"name": "one"}]}, "what was read is left alone"


def test_a_whole_list_goes_before_what_is_set_within_it() -> None:
    variables = {
        f"{PREFIX}BACKENDS__0__PREFIX": "p_",
        f"{PREFIX}BACKENDS": '[{"name": "one", "builtin": "demo"}]',
        f"{PREFIX}BACKENDS__10__NAME": "never",
    }
    changed, problems = put_over({"backends": [{"name": "of the file"}]}, variables)
    assert changed == {"backends": [{"name": "one", "builtin": "demo", "prefix": "p_"}]}
    assert [(name, problem.allowed) for name, problem in problems.items()] == [
        (f"{PREFIX}BACKENDS__10__NAME", "an index from 0 to 1")
    ]


def test_indices_are_taken_in_the_order_of_numbers() -> None:
    variables = {f"{PREFIX}BACKENDS__{index}__NAME": f"b{index}" for index in reversed(range(12))}
    changed, problems = put_over({}, variables)
    assert not problems
    assert [backend["name"] for backend in changed["backends"]] == [f"b{index}" for index in range(12)]


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        (
            {"GATEWAY__PORT": "70000"},
            "MCP_GATEWAY__GATEWAY__PORT: gateway.port: found 70000; allowed: an integer from 0 to 65535",
        ),
        ({"GATEWAY__PROT": "1"}, "MCP_GATEWAY__GATEWAY__PROT: gateway.prot: found an unknown key; allowed: port (did you mean"),
        ({"GATWAY__PORT": "1"}, "MCP_GATEWAY__GATWAY__PORT: gatway: found an unknown key; allowed: gateway (did you mean"),
        ({"GATEWAY": "5", "GATEWAY__PORT": "1"}, "MCP_GATEWAY__GATEWAY__PORT: gateway: found an integer; allowed: a table"),
        ({"GATEWAY__0": "1"}, "MCP_GATEWAY__GATEWAY__0: gateway: found the index 0 in the name; allowed: the key of a table"),
        ({"GATEWAY__": "1"}, "MCP_GATEWAY__GATEWAY__: found this name; allowed: MCP_GATEWAY__TABLE__KEY, with two underscores"),
        ({"__".join("ABCDEFGHI"): "1"}, "found this name"),
        ({"BACKENDS__0__POOL_SIZE": "0"}, "MCP_GATEWAY__BACKENDS__0__POOL_SIZE: backends[0].pool_size: found 0; allowed"),
        ({"BACKENDS": "[{}]"}, "MCP_GATEWAY__BACKENDS: backends[0].name: found nothing; allowed"),
    ],
)
def test_what_is_wrong_is_told_with_the_name_of_the_variable(variables: dict[str, str], line: str, file: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(file, {PREFIX + name: value for name, value in variables.items()})
    assert line in str(caught.value)


def test_what_the_file_has_wrong_is_still_told_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "g.toml").write_text("[gateway]\npool_size = 0\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(tmp_path / "g.toml", {f"{PREFIX}GATEWAY__PORT": "1"})
    assert str(caught.value).startswith(f"{tmp_path}/g.toml: gateway.pool_size")


def test_a_secret_is_not_shown_where_it_is_wrong(file: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(file, {f"{PREFIX}BACKENDS__0__HEADERS": json.dumps({"Authorization": "s3cret\u0001"})})
    assert "s3cret" not in str(caught.value)


def test_without_a_file_the_demo_is_served_until_a_backend_is_named() -> None:
    port = {f"{PREFIX}GATEWAY__PORT": "5000"}
    assert settings_of_variables(port).backends == Settings.demo().backends
    named = settings_of_variables({**port, f"{PREFIX}BACKENDS__0__NAME": "two", f"{PREFIX}BACKENDS__0__BUILTIN": "demo"})
    assert ([backend.name for backend in named.backends], named.gateway.port) == (["two"], 5000)
    with pytest.raises(ConfigError, match=r"MCP_GATEWAY__GATEWAY__PORT: gateway\.port"):
        settings_of_variables({f"{PREFIX}GATEWAY__PORT": "x"})


def test_the_token_of_whoever_runs_a_command_is_no_setting() -> None:
    assert variables_of({"MCP_GATEWAY_TOKEN": "t", "PATH": "/bin", f"{PREFIX}GATEWAY__PORT": "1"}) == {
        f"{PREFIX}GATEWAY__PORT": "1"
    }


@given(st.dictionaries(st.text("ABCGTEWAYBCKNDS01_", max_size=30), st.text(max_size=30), max_size=5))
def test_whatever_the_environment_has_there_are_settings_or_clear_errors(variables: dict[str, str]) -> None:
    try:
        settings_of_variables({PREFIX + name: value for name, value in variables.items()})
    except ConfigError as error:
        assert error.problems


@given(st.lists(st.one_of(st.integers(0, 99), st.from_regex(r"[a-z]{1,9}", fullmatch=True)), min_size=1, max_size=6))
def test_a_path_is_found_in_its_name(path: list[str | int]) -> None:
    assert path_of(PREFIX + "__".join(str(part).upper() for part in path)) == tuple(path)
