"""Files of other programs, from the disk: what is served of them, what is left out, and what is passed over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mcp_gateway.config.desktop_files import KNOWN_FILES
from mcp_gateway.config.desktop_loader import DesktopServers, is_desktop_file, load_desktop_files
from mcp_gateway.config.loader import ConfigError, ConfigProblem
from mcp_gateway.config.settings import GatewaySettings


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def load(path: Path, servers: dict[str, Any], **environment: str) -> DesktopServers:
    return load_desktop_files([write(path / "mcp.json", {"mcpServers": servers})], environment=environment)


def only_problem(path: Path) -> ConfigProblem:
    with pytest.raises(ConfigError) as refusal:
        load_desktop_files([path])
    (problem,) = refusal.value.problems
    assert "\n" not in str(problem)
    return problem


def test_desktop_client_file_is_read(tmp_path: Path) -> None:
    servers = {
        "local": {"command": "npx", "args": ["-y", "server", "-y"], "env": {"KEY": "x"}, "cwd": "/srv", "type": "stdio"},
        "remote": {"url": "https://h/mcp", "headers": {"Authorization": "Bearer x"}},
        "typed": {"type": "streamable-http", "url": "http://h/mcp", "autoApprove": [], "timeout": 3},
        "old": {"type": "sse", "url": "https://h/sse"},
        "socket": {"url": "wss://h/mcp"},
        "off": {"command": "x", "disabled": True},
    }
    path = write(tmp_path / "mcp.json", {"mcpServers": servers, "globalShortcut": "F1"})
    found = load_desktop_files([path], GatewaySettings(pool_size=7))
    backends = {backend.name: backend for backend in found.backends}
    assert list(backends) == ["local", "remote", "typed", "old", "socket"]
    assert (found.left_out, found.problems, found.warnings) == ((), (), ())
    local = backends["local"]
    assert (local.command, local.env, local.cwd, local.prefix) == (("npx", "-y", "server", "-y"), {"KEY": "x"}, "/srv", "local__")
    assert backends["remote"].headers == {"Authorization": "Bearer x"}
    assert [backend.replicas for backend in backends.values()][1:] == [
        ("auto+https://h/mcp",),
        ("http://h/mcp",),
        ("sse+https://h/sse",),
        ("wss://h/mcp",),
    ]
    assert {backend.pool_size for backend in backends.values()} == {7}


def test_a_server_that_cannot_be_understood_is_left_out_and_the_others_are_served(tmp_path: Path) -> None:
    servers = {
        "good": {"command": "x"},
        "none": {},
        "both": {"command": "x", "url": "http://h/"},
        "slip": {"command": "x", "enviroment": {}, "arg": []},
        "word": 3,
        "where": {"url": "ftp://joe:hunter2@h/"},
        "kind": {"url": "http://h/", "type": "carrier pigeon"},
        "two words": {"command": "npx.cmd", "args": ["C:\\x", "${NONE}"]},
        "no\x00ne": {"command": "x\x00y", "args": ["\ud800"], "env": {"A": "\x00"}},
    }
    found = load(tmp_path, servers)
    assert [backend.name for backend in found.backends] == ["good", "slip"]
    file = str(tmp_path / "mcp.json")
    assert {problem.file for problem in found.problems} == {file}
    assert [problem.key for problem in found.problems] == [
        "mcpServers.none",
        "mcpServers.both",
        "mcpServers.word",
        "mcpServers.where.url",
        "mcpServers.kind.type",
        "mcpServers.'two words'.command",
        "mcpServers.'two words'.args[0]",
        "mcpServers.'two words'.args[1]",
        "mcpServers.'no\\x00ne'.command",
        "mcpServers.'no\\x00ne'.args[0]",
        "mcpServers.'no\\x00ne'.env.A",
    ]
    left_out = {server.title: server for server in found.left_out}
    assert list(left_out) == ["none", "both", "word", "where", "kind", "two words", "no ne"]
    assert left_out["two words"].name == "two-words"
    reasons = [str(problem) for problem in found.problems if "two words" in problem.key]
    assert left_out["two words"].reason == "; ".join(reasons)
    assert (
        found.warnings
        == (f"{file}: mcpServers.slip: unknown keys, passed over: enviroment (did you mean env?), arg (did you mean args?)",)
        or "enviroment" in found.warnings[0]
    )
    assert "hunter2" not in str(found)


def test_what_has_no_value_names_server_place_and_variable(tmp_path: Path) -> None:
    servers = {"a": {"command": "x", "env": {"KEY": "${NONE}"}}, "b": {"url": "http://h/", "headers": {"X": "${TOKEN}"}}}
    found = load(tmp_path, servers, TOKEN="t0ken")
    assert [backend.headers for backend in found.backends] == [{"X": "t0ken"}]
    (left_out,) = found.left_out
    assert left_out.reason == (
        f"{tmp_path}/mcp.json: mcpServers.a.env.KEY: found ${{NONE}}, which has no value; "
        "allowed: a value for NONE in the gateway's environment"
    )


def test_a_name_as_written_is_the_title_where_another_is_served(tmp_path: Path) -> None:
    found = load(tmp_path, {name: {"command": "x"} for name in ("files", "Framelink MCP for Figma", "Files", "x" * 400)})
    assert [(backend.name, backend.title) for backend in found.backends] == [
        ("files", ""),
        ("framelink-mcp-for-figma", "Framelink MCP for Figma"),
        ("files-c7f46f", "Files"),
        ("x" * 23 + "-6ecb3f", "x" * 299 + "…"),
    ]
    assert all(backend.prefix == f"{backend.name}__" for backend in found.backends)


def test_the_folder_of_a_server_is_relative_to_the_file_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    folders = {"default": None, "below": "servers/one", "above": "../x", "absolute": "/srv", "home": "~/x"}
    expected = [str(tmp_path), f"{tmp_path}/servers/one", str(tmp_path.parent / "x"), "/srv", str(Path("~/x").expanduser())]
    servers = {name: {"command": "x", "cwd": cwd} for name, cwd in folders.items()}
    for name in ("mcp.json", ".vscode/mcp.json"):
        write(tmp_path / name, {"mcpServers": servers})
        assert [backend.cwd for backend in load_desktop_files([f"../{name}"]).backends] == expected


def test_several_files_and_the_files_of_a_folder_are_put_together(tmp_path: Path) -> None:
    first = write(tmp_path / "a.json", {"mcpServers": {"one": {"command": "x"}}})
    project = tmp_path / "project"
    write(project / ".vscode/mcp.json", {"servers": {"two": {"command": "${workspaceFolder}/x"}}})
    write(project / ".mcp.json", b'// ours\n{"mcpServers": {"one": {"command": "y"},},}')
    write(project / ".gemini/settings.json", {"theme": "dark"})
    write(project / "package.json", {"mcpServers": {"no": {"command": "x"}}})
    found = load_desktop_files([first, project], taken=["two"])
    assert [(backend.title or backend.name, backend.command) for backend in found.backends] == [
        ("one", ("x",)),
        ("one", ("y",)),
        ("two", (f"{project}/x",)),
    ]
    names = [backend.name for backend in found.backends]
    assert names[0] == "one"
    assert names[1].startswith("one-")
    assert names[2].startswith("two-")
    assert [backend.name for backend in load_desktop_files([first, project], taken=["two"]).backends] == names


def test_a_folder_without_any_of_the_files_says_which_were_looked_for(tmp_path: Path) -> None:
    assert all(name in only_problem(tmp_path).allowed for name in KNOWN_FILES)


def test_a_key_that_stands_twice_is_named_and_the_last_one_counts(tmp_path: Path) -> None:
    path = write(tmp_path / "m.json", b'{"mcpServers": {"a": {"command": "x"}, "a": {"command": "y"}}}')
    found = load_desktop_files([path])
    assert [backend.command for backend in found.backends] == [("y",)]
    assert found.warnings == (f"{path}: the key 'a' stands twice in one table; the last one counts",)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"3",
        b"{}",
        b'{"mcpServers": 3}',
        b"[" * 100_000,
        b"9" * 5000,
        b"\xff",
        b'{"mcpServers": 9' + b"9" * 5000 + b"}",
    ],
)
def test_what_has_no_servers_is_one_problem_that_says_where_they_were_looked_for(tmp_path: Path, content: bytes) -> None:
    problem = only_problem(write(tmp_path / "mcp.json", content))
    assert "mcpServers, servers, mcp.servers, mcp, context_servers, mcp_servers" in problem.allowed


def test_a_file_that_cannot_be_read_is_one_problem(tmp_path: Path) -> None:
    assert only_problem(tmp_path / "none\n.json").found == "no such file or directory"


@pytest.mark.parametrize("servers", [{}, {"a": {"disabled": True}}, {"a": None}])
def test_a_file_whose_servers_are_all_off_is_none_the_worse(tmp_path: Path, servers: dict[str, Any]) -> None:
    assert load(tmp_path, servers) == DesktopServers(backends=(), left_out=(), problems=(), warnings=())


def test_files_are_told_apart_by_their_names(tmp_path: Path) -> None:
    assert [is_desktop_file(name) for name in ("a.json", "A.JSONC", "x.code-workspace", "gateway.toml", "json")] == [
        *(True, True, True, False, False)
    ]
    assert is_desktop_file(str(tmp_path))


@hypothesis_settings(max_examples=200, deadline=None)
@given(
    content=st.binary(max_size=200)
    | st.text(alphabet="[]{}=.,'\"\n\\#/ab1_-:Tx \x00é$", max_size=120).map(str.encode)
    | st.text(alphabet='[]{},":abcdmnrsvx', max_size=60).map(lambda text: f'{{"mcpServers": {{"a": {text}}}}}'.encode())
)
def test_any_bytes_give_servers_or_our_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = write(tmp_path_factory.getbasetemp() / "fuzz.json", content)
    try:
        found = load_desktop_files([path], environment={})
    except ConfigError as error:
        assert all(str(problem).isprintable() for problem in error.problems)
    else:
        assert all(server.reason.isprintable() for server in found.left_out)
        assert all(warning.isprintable() for warning in found.warnings)


WORDS = st.text(max_size=6) | st.sampled_from(["x", "http://h/", "${A}", "sse", "accept", "a" * 70_000, "\x00", "\ud800", "é\n"])
ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        "command": WORDS | st.lists(WORDS, max_size=3),
        "args": st.lists(WORDS, max_size=3),
        "url": WORDS,
        "type": st.sampled_from(["sse", "http", "ws", "x"]),
        "env": st.dictionaries(WORDS, WORDS, max_size=3),
        "headers": st.dictionaries(WORDS, WORDS, max_size=3),
        "cwd": WORDS,
    },
)


@hypothesis_settings(max_examples=200, deadline=None)
@given(servers=st.dictionaries(WORDS, ENTRIES, max_size=4))
def test_any_servers_are_served_or_left_out(tmp_path_factory: pytest.TempPathFactory, servers: dict[str, Any]) -> None:
    found = load(tmp_path_factory.getbasetemp(), servers, A="a")
    assert len(found.backends) + len(found.left_out) <= len(servers)
    assert len({backend.name for backend in found.backends}) == len(found.backends)
    assert all(str(problem).isprintable() for problem in found.problems)
