"""Loading settings: every problem of a file is told at once, one line each, and no input gives a traceback."""

import os
import string
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import mcp_gateway.config as config_package
from mcp_gateway.config.backend_settings import BackendSettings, RouteSettings
from mcp_gateway.config.curation_settings import ServerSettings
from mcp_gateway.config.loader import ConfigError, backend_from_mapping, load_settings, settings_from_mapping
from mcp_gateway.config.settings import GatewaySettings, Settings
from mcp_gateway.config.tool_settings import TOOLS

SAMPLE = Path(config_package.__file__).parent / "gateway.toml"


def problems_of(mapping):
    with pytest.raises(ConfigError) as refusal:
        settings_from_mapping(mapping, "g.toml")
    return {problem.key: problem for problem in refusal.value.problems}


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def problems_or_none(load, *arguments):
    """The problems of a refused input, () of an accepted one; anything else that is raised is a failure of ours."""
    try:
        load(*arguments)
    except ConfigError as error:
        return error.problems or pytest.fail("refused without a problem")
    return ()


def only_problem(load, path):
    with pytest.raises(ConfigError) as refusal:
        load(path)
    (problem,) = refusal.value.problems
    assert "\n" not in str(problem)
    return problem


def test_the_sample_file_says_what_the_defaults_are():
    assert load_settings(SAMPLE) == Settings.demo()


def test_the_sample_file_names_every_key():
    text = SAMPLE.read_text(encoding="utf-8")
    defaults = Settings()
    tables = [defaults.gateway, defaults.actor_system, defaults.limits]
    tables += [defaults.transports.http_sse, defaults.transports.streamable_http, defaults.transports.websocket]
    keys = [field.name for table in [*map(type, tables), BackendSettings, RouteSettings] for field in attrs.fields(table)]
    assert [key for key in keys if f"\n{key} = " not in text and f"\n# {key} = " not in text] == []


def test_the_sample_with_everything_uncommented_is_valid(tmp_path):
    lines = SAMPLE.read_text(encoding="utf-8").splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("# A server that others run"))
    names = [field.name for cls in (BackendSettings, RouteSettings, ServerSettings) for field in attrs.fields(cls)]
    names += [*TOOLS.rules, "annotations", "defaults", "fixed"]
    is_toml = ("# [[", "# [backends.tools", *(f"# {name} = " for name in names))
    opened = [line.removeprefix("# ") if line.startswith(is_toml) else line for line in lines[start:]]
    body = [line for line in lines[:start] if not line.startswith("prefix =")]
    settings = load_settings(write(tmp_path / "g.toml", "\n".join(body + opened)))
    assert [backend.name for backend in settings.backends] == ["demo", "files", "local", "pets", "search"]
    assert settings.routes[0].backend == "files"
    assert settings.backends[2].tools["overrides"].keys() == {"read_file"}
    assert settings.servers[0].include == ("files/read_*", "demo/*")


def test_an_empty_file_is_all_defaults(tmp_path):
    assert load_settings(write(tmp_path / "g.toml", "")) == Settings()


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path):
    path = write(tmp_path / "g.toml", b"\xef\xbb\xbf[gateway]\r\nport = 5000\r\n")
    assert load_settings(path).gateway.port == 5000


def test_all_problems_are_told_at_once():
    found = problems_of(
        {
            "gatewey": {},
            "gateway": {"pol_size": 3, "port": 70_000, "cells": True, "request_timeout": "60"},
            "actor_system": [],
            "transports": {"grpc": {}, "websocket": {"ping_interval": 5, "pong_timeout": 6, "compression": 1}},
            "limits": {"key": "cookie"},
            "backends": [
                {"name": "a", "replicas": ["http://h/", "h"], "pool_size": 0},
                {"name": "a", "prefix": "a", "builtin": "demo"},
                {"prefix": "c__"},
                "backend",
            ],
            "routes": [{"pattern": "*", "backend": "nope"}, {"hash_on": "user|", "transports": "all"}],
        }
    )
    assert set(found) == {
        "gatewey",
        "gateway.pol_size",
        "gateway.port",
        "gateway.cells",
        "gateway.request_timeout",
        "actor_system",
        "transports.grpc",
        "transports.websocket.compression",
        "transports.websocket.pong_timeout",
        "limits.key",
        "backends[0].replicas[1]",
        "backends[0].pool_size",
        "backends[1].name",
        "backends[1].prefix",
        "backends[2].name",
        "backends[2]",
        "backends[3]",
        "routes[0].backend",
        "routes[1].pattern",
        "routes[1].backend",
        "routes[1].hash_on",
        "routes[1].transports",
    }


def test_one_problem_is_one_line_that_names_file_key_finding_and_what_is_allowed():
    problem = problems_of({"gateway": {"port": 70_000}})["gateway.port"]
    assert str(problem) == "g.toml: gateway.port: found 70000; allowed: an integer from 0 to 65535"


def test_a_slip_in_a_key_is_answered_with_the_key_that_was_meant():
    found = problems_of({"gateway": {"pol_size": 1, "zzz": 1}, "backend": []})
    assert found["gateway.pol_size"].allowed == "pool_size (did you mean that?)"
    assert "hash_ring_size" in found["gateway.zzz"].allowed
    assert found["backend"].allowed == "backends (did you mean that?)"


def test_a_mistake_is_told_once_even_where_other_settings_depend_on_it():
    assert set(problems_of({"backends": [{"name": "1a", "builtin": "demo"}], "routes": [{"pattern": "*", "backend": "1a"}]})) == {
        "backends[0].name",
        "routes[0].backend",
    }
    assert set(problems_of({"backends": [{"name": "a", "replicas": "http://h/"}]})) == {"backends[0].replicas"}
    twins = [{"name": "a", "builtin": "demo"}, {"name": "a", "builtin": "demo"}]
    assert set(problems_of({"backends": twins})) == {"backends[1].name"}
    websocket = {"ping_interval": -1, "pong_timeout": 9}
    assert set(problems_of({"transports": {"websocket": websocket}})) == {"transports.websocket.ping_interval"}


@pytest.mark.parametrize(
    ("key", "value"), [("replicas", 3), ("command", 3), ("openapi", 3), ("grpc", "no port"), ("builtin", "no")]
)
def test_a_kind_of_server_that_is_wrong_is_not_told_to_be_missing_as_well(key, value):
    mapping = {"backends": [{"name": "a", key: value}]}
    assert set(problems_of(mapping)) == {f"backends[0].{key}"}


def test_a_description_over_plain_http_is_told_what_it_needs():
    backend = {"name": "a", "openapi": "http://127.0.0.1:1/api.json?key=secret"}
    found = problems_of({"backends": [backend]})
    assert set(found) == {"backends[0].openapi"}
    assert "secret" not in found["backends[0].openapi"].found
    assert "allow_private" in found["backends[0].openapi"].allowed
    assert problems_or_none(settings_from_mapping, {"backends": [{**backend, "allow_private": True}]}, "f") == ()


def test_a_backend_inherits_what_the_gateway_section_says():
    mapping = {"gateway": {"request_timeout": 7, "pool_size": 3}, "backends": [{"name": "a", "builtin": "demo", "pool_size": 9}]}
    (backend,) = settings_from_mapping(mapping, "g.toml").backends
    assert (backend.request_timeout, backend.pool_size) == (7.0, 9)


def test_a_backend_added_later_is_read_by_the_same_rules():
    gateway = GatewaySettings(pool_size=3)
    assert backend_from_mapping({"name": "a", "builtin": "demo"}, "add-backend", gateway).pool_size == 3
    with pytest.raises(ConfigError, match="add-backend: replicas"):
        backend_from_mapping({"name": "a", "replicas": 3}, "add-backend", gateway)


def test_secrets_never_appear_in_problems():
    secret = "hunter2"
    found = problems_of(
        {
            "backends": [
                {
                    "name": "a",
                    "replicas": [f"ftp://joe:{secret}@h/?t={secret}", f"joe:{secret}@h", secret + "\n@?"],
                    "headers": secret,
                },
                {
                    "name": "b",
                    "replicas": f"http://joe:{secret}@h",
                    "headers": {"A": f"{secret}\n", "Accept": secret, "X": [secret]},
                },
                {
                    "name": "c",
                    "command": f"server --key={secret}",
                    "env": {"A": f"{secret}\x00", "B": 3},
                    "header": {"A": secret},
                },
                {"name": "d", "command": ["server", {"key": secret}], "env": secret},
                {"name": "e", "replicas": [f"http://u:{secret}@h/", f"http://u:{secret}@h/"]},
            ]
        }
    )
    assert len(found) >= 12
    assert secret not in "\n".join(map(str, found.values()))


@pytest.mark.parametrize(
    ("content", "line", "column"),
    [
        ("[gateway]\nport = \n", 2, 8),
        ("[gateway\n", 1, 9),
        ("a = 1\na = 2\n", 2, 6),
        ("a = '''", 1, 8),
        (b"[gateway]\nhost = 'caf\xe9'\n", 2, 12),
    ],
)
def test_what_is_no_toml_is_told_with_line_and_column(tmp_path, content, line, column):
    problem = only_problem(load_settings, write(tmp_path / "g.toml", content))
    assert (problem.line, problem.column) == (line, column)
    assert str(problem).startswith(f"{tmp_path}/g.toml:{line}:{column}: found ")


@pytest.mark.parametrize(
    "content",
    [b"a = " + b"9" * 5000, b"a = " + b"[" * 5000, b"a." * 3000 + b"b = 1", b"\x00", b"x" * 4_194_305, b"a = 0x" + b"f" * 5000],
)
def test_hostile_files_are_one_problem(tmp_path, content):
    only_problem(load_settings, write(tmp_path / "g.toml", content))


def test_an_integer_too_long_to_print_is_one_problem():
    assert problems_of({"gateway": {"port": 10**5000}})["gateway.port"].found == "a huge integer"


def test_files_that_cannot_be_read_are_one_problem(tmp_path):
    assert only_problem(load_settings, tmp_path / "none.toml").found == "no such file or directory"
    assert only_problem(load_settings, tmp_path).found == "is a directory"
    only_problem(load_settings, "a\x00b")
    only_problem(load_settings, tmp_path / "none\n.toml")


def test_the_folder_of_a_server_is_relative_to_the_file_that_names_it(tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    folders = {"default": None, "below": "servers/one", "above": "../x", "absolute": "/srv", "home": "~/x"}
    expected = [str(tmp_path), f"{tmp_path}/servers/one", str(tmp_path.parent / "x"), "/srv", os.path.expanduser("~/x")]
    tables = "".join(
        f'[[backends]]\nname = "{name}"\ncommand = ["x"]\n' + (f'cwd = "{cwd}"\n' if cwd else "") for name, cwd in folders.items()
    )
    write(tmp_path / "gateway.toml", tables)
    assert [backend.cwd for backend in load_settings("../gateway.toml").backends] == expected


@hypothesis_settings(max_examples=150, deadline=None)
@given(content=st.binary(max_size=200) | st.text(alphabet="[]{}=.,'\"\n\\#ab1_-:Tx \x00é", max_size=120).map(str.encode))
def test_any_bytes_give_settings_or_our_error(tmp_path_factory, content):
    path = write(tmp_path_factory.getbasetemp() / "fuzz", content)
    assert all(str(problem).isprintable() for problem in problems_or_none(load_settings, path))


KEYS = sorted(
    {field.name for cls in (Settings, GatewaySettings, BackendSettings, RouteSettings) for field in attrs.fields(cls)}
    | {
        "base",
        "admin_port",
        "websocket",
        "http_sse",
        "ping_interval",
        "pong_timeout",
        "key",
        "burst",
    }
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(10**20), max_value=10**20)
    | st.sampled_from(
        [0, 1, 1900, 4000, 10**4000, "auto", "user|session|ip", "demo", "http://h:1/", "a", "websocket", "2025-06-18", "*"]
    )
    | st.floats()
    | st.text(max_size=6)
    | st.text(alphabet=string.ascii_letters, max_size=6)
    | st.datetimes()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=5),
    max_leaves=12,
)


def of_class(*classes):
    names = [field.name for cls in classes for field in attrs.fields(cls)]
    return st.dictionaries(st.sampled_from(names), VALUES, max_size=5) | VALUES


MAPPINGS = st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), VALUES, max_size=4) | st.fixed_dictionaries(
    {},
    optional={
        "gateway": of_class(GatewaySettings),
        "backends": st.lists(of_class(BackendSettings), max_size=3) | VALUES,
        "routes": st.lists(of_class(RouteSettings), max_size=3) | VALUES,
    },
)


@hypothesis_settings(max_examples=150, deadline=None)
@given(mapping=MAPPINGS)
def test_any_mapping_gives_settings_or_our_error(mapping):
    for problem in problems_or_none(settings_from_mapping, mapping, "f"):
        assert str(problem).isprintable()
        assert len(str(problem)) < 1_000


NAMES = st.sampled_from(["a", "b", "a__", "A", "c"])
VALID_LOOKING = st.fixed_dictionaries(
    {
        "backends": st.lists(
            st.fixed_dictionaries(
                {"name": NAMES},
                optional={
                    "prefix": st.sampled_from(["", "a", "ab", "b"]),
                    "builtin": st.just("demo"),
                    "replicas": st.lists(st.sampled_from(["http://h/", "ws://h/"]), max_size=2),
                    "command": st.lists(st.sampled_from(["", "x"]), max_size=2),
                    "instances": st.integers(0, 2),
                    "headers": st.dictionaries(st.sampled_from(["A", "a", "accept"]), st.text(max_size=2), max_size=2),
                },
            ),
            max_size=3,
        ),
        "routes": st.lists(
            st.fixed_dictionaries(
                {"pattern": st.sampled_from(["*", "x"]), "backend": NAMES},
                optional={"transports": st.lists(st.sampled_from(["websocket", "http_sse"]), max_size=2)},
            ),
            max_size=3,
        ),
        "gateway": st.fixed_dictionaries(
            {},
            optional={
                "port": st.sampled_from([0, 1900]),
                "allowed_origins": st.lists(st.sampled_from(["http://a", "http://A:80"])),
            },
        ),
        "transports": st.fixed_dictionaries(
            {}, optional={"websocket": st.fixed_dictionaries({"ping_interval": st.integers(0, 20)})}
        ),
    }
)


@hypothesis_settings(max_examples=150, deadline=None)
@given(mapping=VALID_LOOKING)
def test_loader_and_settings_classes_agree_on_what_is_valid(mapping):
    """A mapping without problems must not be refused by the classes: that would be a traceback."""
    problems_or_none(settings_from_mapping, mapping, "f")


def test_reading_settings_imports_nothing_heavy():
    heavy = {"tornado", "thespian", "aiohttp", "asyncio", "tomllib", "json5", "shlex", "mcp_gateway.config.desktop_loader"}
    code = f"import sys, mcp_gateway.config.loader; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
