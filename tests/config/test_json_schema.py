"""The schema for editors takes every file that the gateway takes, and says of each key what it is for."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.config.json_schema import json_schema
from mcp_gateway.config.loader import ConfigError, settings_from_mapping
from mcp_gateway.config.setting_rules import Rule
from mcp_gateway.config.settings import Settings
from tests.doubles.gateway_process import run_command

SCHEMA = json_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
SHIPPED = tomllib.loads((Path(__file__).parents[2] / "config" / "gateway.toml").read_text())


def tables(schema: dict[str, Any] = SCHEMA, where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """(dotted name, schema) of every table, those of lists too."""
    for name, inner in schema["properties"].items():
        table = inner.get("items", inner)
        if "properties" in table:
            yield f"{where}{name}", table
            yield from tables(table, f"{where}{name}.")


def test_it_is_a_schema_and_the_command_prints_it() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    done = run_command("schema")
    assert (done.returncode, json.loads(done.stdout)) == (0, SCHEMA)


def test_the_file_that_is_shipped_is_valid() -> None:
    assert list(VALIDATOR.iter_errors(SHIPPED)) == []


def test_every_section_and_every_key_of_a_file_has_its_place() -> None:
    def keys(value: Any) -> set[str]:
        return {field.name for field in attrs.fields(type(value))}

    settings = Settings.demo()
    not_in_files = {"left_out", "warnings", "revocations"}
    assert SCHEMA["properties"].keys() == keys(settings) - not_in_files
    assert SCHEMA["properties"]["gateway"]["properties"].keys() == keys(settings.gateway)
    assert SCHEMA["properties"]["backends"]["items"]["properties"].keys() == keys(settings.backends[0])
    assert SCHEMA["properties"]["auth"]["properties"].keys() >= {"mode", "issuers", "api_keys"}


def test_nearly_all_keys_say_what_they_are_for() -> None:
    told = [("description" in key) for _, table in tables() for key in table["properties"].values()]
    assert sum(told) > 0.5 * len(told)
    assert SCHEMA["properties"]["gateway"]["properties"]["write_timeout"]["description"].startswith("how long a client")


@pytest.mark.parametrize(
    ("mapping", "where"),
    [
        ({"gateway": {"port": "4000"}}, "gateway.port"),
        ({"gateway": {"port": 65_536}}, "gateway.port"),
        ({"gateway": {"prt": 4000}}, "gateway"),
        ({"gatewy": {}}, ""),
        ({"backends": [{"replicas": []}]}, "backends.0"),
        ({"backends": [{"name": "a", "protocol": "2020-01-01"}]}, "backends.0.protocol"),
        ({"backends": [{"name": "a", "replicas": ["ftp://x"]}]}, "backends.0.replicas.0"),
        ({"auth": {"mode": "off"}}, "auth.mode"),
        ({"auth": {"issuers": [{"issuer": "no url"}]}}, "auth.issuers.0.issuer"),
        ({"policies": [{"effect": "maybe"}]}, "policies.0.effect"),
    ],
)
def test_a_mistake_is_found_where_it_is(mapping: dict[str, Any], where: str) -> None:
    (error,) = VALIDATOR.iter_errors(mapping)
    assert ".".join(map(str, error.absolute_path)) == where
    with pytest.raises(ConfigError):
        settings_from_mapping(mapping, "f")


def rules(value: type[Any]) -> Iterator[tuple[str, Rule]]:
    for name, field in attrs.fields_dict(value).items():
        if isinstance(field.validator, Rule):
            yield name, field.validator


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20)
    | st.sampled_from(["auto", "127.0.0.1", "files", "http://127.0.0.1:1/mcp", "user|ip", "sha256:" + "0" * 64, "a.b", "x_y-z"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
)  # fmt: skip
ALL_RULES = [
    rule
    for kind in {type(getattr(Settings.demo(), name)) for name in ("gateway", "actor_system", "limits", "logging", "alerts")}
    | {type(Settings.demo().backends[0])}
    for _, rule in rules(kind)
]


@given(rule=st.sampled_from(ALL_RULES), value=VALUES)
def test_what_a_rule_takes_the_schema_takes(rule: Rule, value: Any) -> None:
    if not list(rule.problems("key", value)):
        assert jsonschema.Draft202012Validator(rule.json_schema()).is_valid(value)
