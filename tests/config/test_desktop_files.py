"""Where servers stand in the files of every program that we know of."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mcp_gateway.config.desktop_entry import Surroundings
from mcp_gateway.config.desktop_files import KNOWN_FILES, project_folder, written_servers

SURROUNDINGS = Surroundings(
    folder="/work", environment={"INPUT_TOK": "s"}, home="/home/me", is_file=lambda _: False, read_lines=lambda _: None
)
A, B = {"command": "x"}, {"url": "http://h/mcp"}
TWO = {"a": A, "b": B}


def servers_in(document: Any) -> list[tuple[str, str]] | None:
    servers = written_servers(document, SURROUNDINGS)
    return None if servers is None else [(server.where, server.name) for server in servers]


def under(where: str) -> list[tuple[str, str]]:
    return [(f"{where}.a", "a"), (f"{where}.b", "b")]


FORMS: list[tuple[Any, list[tuple[str, str]] | None]] = [
    *(({key: TWO, "other": {"x": 1}}, under(key)) for key in ("mcpServers", "servers", "context_servers", "mcp_servers")),
    *(({key: TWO}, under(key)) for key in ("MCPServers", "mcp-servers", "contextServers", "amp.mcpServers", "mcp")),
    ({"mcp": {"servers": TWO, "inputs": []}}, under("mcp.servers")),
    ({"mcp.servers": TWO, "editor.fontSize": 12}, under("mcp.servers")),
    ({"settings": {"mcp": {"servers": TWO}}, "folders": []}, under("mcp.servers")),
    ({"experimental": {"modelContextProtocolServers": [{"transport": {"type": "stdio", **A}}]}},
     [("experimental.modelContextProtocolServers[0]", "server 1")]),
    ({"$schema": "s", "mcp": TWO, "model": "m", "agent": {"command": 1}}, under("mcp")),
    ({"mcpServers": [{"name": "a", **A}, {"id": "b", **B}, B]},
     [("mcpServers[0]", "a"), ("mcpServers[1]", "b"), ("mcpServers[2]", "server 3")]),
    ({"mcpServers": [{"a": A}, {"b": B}]}, [("mcpServers[0]", "a"), ("mcpServers[1]", "b")]),
    ([{"name": "a", **A}], [("[0]", "a")]),
    (TWO, [("a", "a"), ("b", "b")]),
    ({**TWO, "$schema": "s", "version": 1, "theme": {"dark": True}}, [("a", "a"), ("b", "b")]),
    ({"name": "a", **A}, [("[0]", "a")]),
    ({"mcpServers": {"//": "comment", "_off": A, "#x": A, "a": A}}, [("mcpServers.a", "a")]),
    ({"mcpServers": {"a": None, "b": {"disabled": True}, "c": {**A, "_disabled": True}}}, []),
    ({"mcpServers": {}}, []),
    ({"mcpServers": {}, "servers": TWO}, under("servers")),
    ({"mcpServers": TWO, "servers": {"c": A}}, under("mcpServers")),
    ({"mcpServers": {"u": A}, "projects": {"/p": {"mcpServers": {"p": A}}}}, [("mcpServers.u", "u")]),
    ({"mcpServers": {"two words": A}}, [("mcpServers.'two words'", "two words")]),
    ({}, None),
    ([], []),
    (None, None),
    (3, None),
    ("text", None),
    ({"mcpServers": None, "servers": 3}, None),
    ({"theme": "dark", "window": {"zoom": 1}}, None),
]  # fmt: skip


@pytest.mark.parametrize(("document", "servers"), FORMS)
def test_servers_are_found_wherever_a_program_has_them(document: Any, servers: list[tuple[str, str]] | None) -> None:
    assert servers_in(document) == servers


@pytest.mark.parametrize(
    ("inputs", "value"),
    [
        ([], "s"),
        ([{"id": "tok", "type": "promptString", "default": "d"}], "s"),
        ([{"id": "other", "default": "d"}], None),
        ([{"id": "other"}, 3, {"default": "x"}], None),
    ],
)
def test_an_input_is_read_from_the_environment_and_has_its_default_otherwise(inputs: Any, value: str | None) -> None:
    wanted = "tok" if value else "other"
    document = {"inputs": inputs, "servers": {"a": {**B, "headers": {"X": f"${{input:{wanted}}}"}}}}
    (server,) = written_servers(document, SURROUNDINGS) or ()
    if value:
        assert server.table["headers"] == {"X": value}
    elif inputs[0].get("default"):
        assert server.table["headers"] == {"X": "d"}
    else:
        assert server.problems[0].allowed == "its value in the environment variable INPUT_OTHER"


@pytest.mark.parametrize(
    ("file", "folder"),
    [
        ("/p/.mcp.json", "/p"),
        ("/p/.vscode/mcp.json", "/p"),
        ("/home/me/.cursor/mcp.json", "/home/me"),
        ("/p/.claude-plugin/plugin.json", "/p"),
        ("/home/me/.config/Claude/claude_desktop_config.json", "/home/me/.config/Claude"),
        ("/mcp.json", "/"),
        ("/.vscode/mcp.json", "/"),
    ],
)
def test_a_file_in_the_folder_of_a_program_speaks_of_the_folder_above(file: str, folder: str) -> None:
    """Source: VS Code, "Variables reference", and Cursor: `${workspaceFolder}` is the folder that has `.vscode`, `.cursor`."""
    assert project_folder(file) == folder


def test_known_files_are_relative_and_named_once() -> None:
    assert len(set(KNOWN_FILES)) == len(KNOWN_FILES)
    assert not [name for name in KNOWN_FILES if name.startswith("/")]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["mcpServers", "servers", "mcp", "settings", "inputs", "command", "url", "name", "a", ""]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@hypothesis_settings(max_examples=300, deadline=None)
@given(document=JSON)
def test_any_value_gives_servers_or_none(document: Any) -> None:
    servers = written_servers(document, SURROUNDINGS)
    for one, other in itertools.combinations(servers or (), 2):
        assert one.where != other.where
