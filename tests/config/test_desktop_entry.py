"""One server in every form that programs have for it, and what it is to give."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mcp_gateway.config.desktop_entry import Surroundings, WrittenServer, read_entry
from mcp_gateway.config.desktop_values import word_of

FOLDER = "/work/project"
ENV_FILE = ["# comment", "", "export A=1", "B = 'two words'", 'C="x"', "D=plain # comment", "no equals sign", "=x", "E=a=b"]
SURROUNDINGS = Surroundings(
    folder=FOLDER,
    environment={"TOKEN": "t0ken", "HOST": "h.example"},
    home="/home/me",
    is_file=lambda path: path in ("/opt/my server/run", "/bin/run"),
    read_lines=lambda path: ENV_FILE if path == f"{FOLDER}/.env" else None,
)


def read(entry: Any, inputs: dict[str, str] | None = None) -> WrittenServer | None:
    return read_entry("mcpServers.a", "a", entry, inputs or {}, SURROUNDINGS)


def table_of(entry: Any) -> Any:
    server = read(entry)
    assert server is not None
    assert server.problems == ()
    return server.table


PROGRAMS: list[tuple[Any, list[str]]] = [
    ({"command": "npx", "args": ["-y", "pkg"]}, ["npx", "-y", "pkg"]),
    ({"type": "stdio", "command": "uvx", "args": ["pkg"]}, ["uvx", "pkg"]),
    ({"type": "LOCAL", "command": ["bun", "x", "pkg"]}, ["bun", "x", "pkg"]),
    ({"command": ["bun"], "args": ["x"]}, ["bun", "x"]),
    ({"command": "uvx pkg --name 'two words'"}, ["uvx", "pkg", "--name", "two words"]),
    ({"command": "npx -y", "args": ["pkg"]}, ["npx", "-y", "pkg"]),
    ({"command": "npx", "args": "-y pkg"}, ["npx", "-y", "pkg"]),
    ({"command": "/opt/my server/run"}, ["/opt/my server/run"]),
    ({"command": "/opt/other/run --port 3"}, ["/opt/other/run", "--port", "3"]),
    ({"command": "/bin/run --quiet", "args": ["x"]}, ["/bin/run", "--quiet", "x"]),
    ({"command": "/opt/no such/run", "args": ["x"]}, ["/opt/no such/run", "x"]),
    ({"command": {"path": "node", "args": ["index.js"]}}, ["node", "index.js"]),
    ({"source": "custom", "command": {"command": "node", "arguments": ["i.js"], "env": None}}, ["node", "i.js"]),
    ({"transport": {"type": "stdio", "command": "node", "args": ["i.js"]}}, ["node", "i.js"]),
    ({"Command": "node", "ARGS": ["i.js"]}, ["node", "i.js"]),
    ({"cmd": "node", "arguments": ["i.js"]}, ["node", "i.js"]),
    (["node", "i.js"], ["node", "i.js"]),
    ("npx -y pkg", ["npx", "-y", "pkg"]),
    ({"command": "x", "args": [1, 2.0, 2.5, True, False, None, "", 10**21]}, ["x", "1", "2", "2.5", "true", "false", "1e+21"]),
    ({"command": "x", "args": 8080}, ["x", "8080"]),
    ({"command": "x", "url": "", "headers": {}, "cwd": "", "args": None}, ["x"]),
    (
        {"command": "~/bin/x", "args": ["~/data", "~", "~other", "a~/b"]},
        ["/home/me/bin/x", "/home/me/data", "/home/me", "~other", "a~/b"],
    ),
    ({"command": "${userHome}/x", "args": ["${workspaceFolder}/y", "$TOKEN"]}, ["/home/me/x", f"{FOLDER}/y", "t0ken"]),
    ({"command": "x", "args": ["Auth:${KEY}"], "env": {"KEY": "Bearer $TOKEN"}}, ["x", "Auth:Bearer t0ken"]),
    ({"command": "bash", "args": ["-c", "echo $LOCAL"]}, ["bash", "-c", "echo $LOCAL"]),
    ({"command": "x", "url": "http://h/mcp", "type": "stdio"}, ["x"]),
    (
        {"command": "docker", "args": ["run", "-v", "/a:/b", "-p", "1:2", "img"]},
        ["docker", "run", "-v", "/a:/b", "-p", "1:2", "img"],
    ),
    ({"command": "x", "args": ["<", ">", "a<b", "<1>", "--re=<.*>"]}, ["x", "<", ">", "a<b", "<1>", "--re=<.*>"]),
]


@pytest.mark.parametrize(("entry", "command"), PROGRAMS)
def test_a_program_is_understood_in_every_form(entry: Any, command: list[str]) -> None:
    assert table_of(entry)["command"] == command


URLS: list[tuple[Any, str]] = [
    ({"url": "https://h/mcp"}, "auto+https://h/mcp"),
    ({"serverUrl": "https://h/mcp"}, "auto+https://h/mcp"),
    ({"httpUrl": "http://h/mcp"}, "auto+http://h/mcp"),
    ({"server_url": " http://h/mcp\n"}, "auto+http://h/mcp"),
    ({"endpoint": "HTTP://h/MCP"}, "auto+http://h/MCP"),
    ({"type": "remote", "url": "http://h/mcp"}, "auto+http://h/mcp"),
    ({"type": "stdio", "url": "http://h/mcp"}, "auto+http://h/mcp"),
    ("https://h/mcp", "auto+https://h/mcp"),
    *(({"type": kind, "url": "http://h/mcp"}, "http://h/mcp") for kind in ("http", "HTTP", "streamable-http", "streamable_http")),
    *(
        ({key: "streamableHttp", "url": "http://h/x"}, "http://h/x")
        for key in ("type", "transport", "transportType", "transport_type")
    ),
    *(({"type": kind, "url": "http://h/sse"}, "sse+http://h/sse") for kind in ("sse", "SSE", "http+sse".replace("+", "-"))),
    ({"type": "remote", "transport": "sse", "url": "https://h/sse"}, "sse+https://h/sse"),
    ({"sseUrl": "https://h/sse"}, "sse+https://h/sse"),
    ({"transport": {"type": "sse", "url": "https://h/sse"}}, "sse+https://h/sse"),
    ({"type": "ws", "url": "ws://h/mcp"}, "ws://h/mcp"),
    ({"url": "wss://h/mcp"}, "wss://h/mcp"),
    ({"transport": "WebSocket", "url": "https://h/mcp"}, "wss://h/mcp"),
    ({"type": "http", "url": "http://h/mcp?a=b,c#part"}, "http://h/mcp?a=b,c"),
    ({"type": "http", "url": "http://${HOST}/${PATH_:-mcp}"}, "http://h.example/mcp"),
    ({"type": "http", "command": "x", "url": "http://h/mcp"}, "http://h/mcp"),
]


@pytest.mark.parametrize(("entry", "replica"), URLS)
def test_an_address_is_understood_in_every_form(entry: Any, replica: str) -> None:
    assert table_of(entry)["replicas"] == [replica]


@pytest.mark.parametrize(
    "env",
    [
        {"A": 1, "B": True, "C": None, "D": "", "E": "$TOKEN", "// why": "x"},
        ["A=1", "B = true", "E=${TOKEN}", None],
        [{"name": "A", "value": 1}, {"key": "B", "value": "true"}, {"name": "C", "value": None}, {"name": "E", "value": "t0ken"}],
    ],
)
@pytest.mark.parametrize("key", ["env", "environment"])
def test_an_environment_is_understood_in_every_form(env: Any, key: str) -> None:
    assert table_of({"command": "x", key: env})["env"] == {"A": "1", "B": "true", "E": "t0ken"}


@pytest.mark.parametrize(
    "entry",
    [
        {"headers": {"Authorization": "Bearer $TOKEN", "X-N": 1, "X-Off": ""}},
        {"headers": ["Authorization: Bearer ${TOKEN}", "X-N:1"]},
        {"http_headers": [{"name": "Authorization", "value": "Bearer t0ken\n"}, {"name": "X-N", "value": 1}]},
        {"requestOptions": {"headers": {"Authorization": "Bearer ${TOKEN}", "X-N": "1"}}},
    ],
)
def test_headers_are_understood_in_every_form(entry: dict[str, Any]) -> None:
    assert table_of({"url": "http://h/", **entry})["headers"] == {"Authorization": "Bearer t0ken", "X-N": "1"}


def test_headers_that_the_gateway_sets_itself_are_left_to_it() -> None:
    server = read({"url": "http://h/", "headers": {"Content-Type": "application/json", "ACCEPT": "x", "X": "1", "x": "2"}})
    assert server is not None
    assert server.table["headers"] == {"x": "2"}
    assert server.warnings == ("mcpServers.a: headers that the gateway sets itself: Content-Type, ACCEPT",)


def test_a_file_of_environment_variables_is_read_below_those_of_the_entry() -> None:
    table = table_of({"command": "x", "envFile": "${workspaceFolder}/.env", "env": {"A": "own"}})
    assert table["env"] == {"A": "own", "B": "two words", "C": "x", "D": "plain", "E": "a=b"}
    assert table_of({"command": "x", "envFile": ".env"})["env"]["A"] == "1"
    missing = read({"command": "x", "envFile": "none.env"})
    assert missing is not None
    assert missing.warnings == ("mcpServers.a: envFile: a file that cannot be read was passed over",)


@pytest.mark.parametrize(
    ("entry", "is_served"),
    [
        ({"disabled": True}, False),
        ({"disabled": "true"}, False),
        ({"disabled": 1}, False),
        ({"_disabled": True}, False),
        ({"enabled": False}, False),
        ({"Enabled": "no"}, False),
        ({"isActive": False}, False),
        ({"disabled": False}, True),
        ({"disabled": None, "enabled": True}, True),
        ({"_enabled": False, "//disabled": True}, True),
    ],
)
def test_what_is_switched_off_is_not_there(entry: dict[str, Any], is_served: bool) -> None:
    assert (read({"command": "x", **entry}) is not None) is is_served


@pytest.mark.parametrize("entry", [None, False, "", {"disabled": True}, {"disabled": True, "command": 3, "url": "<x y>"}])
def test_an_entry_of_nothing_is_not_there_and_one_that_is_off_is_not_judged(entry: Any) -> None:
    assert read(entry) is None


def test_keys_that_nobody_knows_are_named_and_passed_over() -> None:
    known = {
        "description": "d",
        "timeout": 3,
        "autoApprove": [],
        "alwaysAllow": [],
        "trust": True,
        "_note": 1,
        "// why": 2,
        "icon": "i",
    }
    server = read({"command": "x", **known})
    assert server is not None
    assert server.warnings == ()
    server = read({"command": "x", "arg": ["y"], "oauth": {}, "new key": 1, "headers": {"A": "hunter2"}})
    assert server is not None
    assert server.table == {"command": ["x"]}
    assert server.warnings == (
        "mcpServers.a: unknown keys, passed over: arg (did you mean args?), oauth, 'new key'",
        "mcpServers.a: headers: passed over, a program that is started has no headers",
    )


@pytest.mark.parametrize(
    ("entry", "tools"),
    [
        ({"disabledTools": ["x", "y", "x"]}, {"deny": ["x", "y"]}),
        ({"disabled_tools": "x"}, {"deny": ["x"]}),
        ({"excludeTools": ["x"], "includeTools": ["a", "b"]}, {"allow": ["a", "b"], "deny": ["x"]}),
        ({"tools": ["a", {"name": "b"}, None]}, {"allow": ["a", "b"]}),
        ({"tools": ["*"]}, {}),
        ({"tools": []}, {}),
        ({"tools": {"include": ["a*"], "exclude": ["x"]}}, {"allow": ["a*"], "deny": ["x"]}),
        ({"tools": {"allowed": ["a"], "denied": "not a list"}}, {"allow": ["a"]}),
        ({"tools": {"a": True, "x": False, "y": {"enabled": False}, "z": {"disabled": True}}}, {"deny": ["x", "y", "z"]}),
        ({"tools": {"a": {"description": "what it does"}}}, {}),
    ],
)
def test_which_tools_are_served_is_understood_in_every_form(entry: dict[str, Any], tools: dict[str, list[str]]) -> None:
    for server in ({"command": "x"}, {"url": "http://h/"}):
        assert table_of({**server, **entry}).get("tools", {}) == tools


WRONG: list[tuple[Any, str, str]] = [
    (3, "", "an integer"),
    (True, "", "a boolean"),
    ({}, "", "neither of them"),
    ({"args": ["x"]}, "", "neither of them"),
    ({"command": "x", "url": "http://h/"}, "", "command and url"),
    ({"source": "extension", "settings": {}}, "", "an extension of Zed, which brings its own program"),
    ({"command": 3.5, "args": [{}]}, "args[0]", "a table"),
    ({"command": []}, "command", "an empty array"),
    ({"command": {"args": []}}, "command.path", "nothing"),
    ({"command": "x 'y"}, "command", "a command line that cannot be taken apart (no closing quotation)"),
    ({"command": "x", "args": {"a": 1}}, "args", "a table"),
    ({"command": "x", "args": [["y"]]}, "args[0]", "an array"),
    ({"command": "x", "env": "A=b"}, "env", "a string"),
    ({"command": "x", "env": ["A"]}, "env[0]", "a string"),
    ({"command": "x", "env": {"A": {}}}, "env.A", "a table"),
    ({"command": "x", "cwd": 3}, "cwd", "an integer"),
    ({"command": "x", "disabledTools": {"a": 1}}, "disabledTools", "a table"),
    ({"command": "x", "tools": [["a"]]}, "tools[0]", "an array"),
    ({"url": 3}, "url", "an integer"),
    ({"url": "localhost:3000/mcp"}, "url", "an address without a scheme"),
    ({"url": "http://h/", "type": "carrier pigeon"}, "type", "'carrier pigeon'"),
    ({"url": "http://h/", "type": 3}, "type", "3"),
    # variables
    ({"command": "${NONE}/x"}, "command", "${NONE}, which has no value"),
    ({"command": "x", "args": ["a", "$NONE"]}, "args[1]", "$NONE, which has no value"),
    ({"command": ["x", "${NONE}"]}, "command[1]", "${NONE}, which has no value"),
    ({"command": "x", "env": {"A": "${env:NONE}"}}, "env.A", "${env:NONE}, which has no value"),
    ({"command": "x", "cwd": "${NONE}"}, "cwd", "${NONE}, which has no value"),
    ({"url": "http://${NONE}/"}, "url", "${NONE}, which has no value"),
    ({"serverUrl": "http://h/", "headers": {"X": "${input:key}"}}, "headers.X", "${input:key}, which has no value"),
    # Windows
    ({"command": "cmd", "args": ["/c", "npx", "x"]}, "command", "'cmd', a program of Windows"),
    ({"command": "C:\\W\\cmd.exe", "args": ["/C", "npx"]}, "command", "'C:\\\\W\\\\cmd.exe', a program of Windows"),
    ({"command": "powershell.exe", "args": ["-Command", "x"]}, "command", "'powershell.exe', a program of Windows"),
    ({"command": "npx.cmd"}, "command", "'npx.cmd', a program of Windows"),
    ({"command": "C:\\Program Files\\node\\server"}, "command", "a path of Windows"),
    ({"command": "x", "args": ["C:\\Users\\me\\server.js"]}, "args[0]", "a path of Windows"),
    ({"command": "x", "args": ["--root=d:/data"]}, "args[0]", "a path of Windows"),
    ({"command": "x", "args": ["\\\\host\\share"]}, "args[0]", "a path of Windows"),
    ({"command": "x", "cwd": "C:/Users/me"}, "cwd", "a path of Windows"),
    ({"command": "x", "args": ["%APPDATA%/x"]}, "args[0]", "%APPDATA%, a variable of Windows"),
    # to be filled in
    ({"url": "https://<your-host>/mcp"}, "url", "<your-host>, which is to be filled in"),
    ({"command": "x", "args": ["--key", "<API KEY>"]}, "args[1]", "<API KEY>, which is to be filled in"),
    ({"command": "x", "env": {"K": "<YOUR_TOKEN>"}}, "env.K", "<YOUR_TOKEN>, which is to be filled in"),
    ({"url": "http://h/", "headers": {"X": "Bearer <token>"}}, "headers.X", "<token>, which is to be filled in"),
]  # fmt: skip


@pytest.mark.parametrize(("entry", "key", "found"), WRONG)
def test_what_cannot_be_understood_is_told_with_its_place(entry: Any, key: str, found: str) -> None:
    server = read(entry)
    assert server is not None
    assert (server.problems[0].key, server.problems[0].found) == (key, found)
    assert server.table == {}


def test_what_to_write_instead_of_a_program_of_windows_is_said() -> None:
    server = read({"command": "cmd", "args": ["/c", "npx", "-y", "x"]})
    assert server is not None
    assert server.problems[0].allowed == "the program itself, without it: 'npx'"


def test_all_problems_of_a_server_are_told_and_no_secret_is() -> None:
    server = read(
        {"command": "npx.cmd", "args": ["C:\\x", {}], "env": {"A": ["hunter2"], "B": "hunter2 ${NONE}"}, "cwd": "$NONE"}
    )
    assert server is not None
    assert {problem.key for problem in server.problems} == {"command", "args[0]", "args[1]", "env.A", "env.B", "cwd"}
    assert "hunter2" not in str(server)


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (True, "true"),
        (0, "0"),
        (-3, "-3"),
        (1.0, "1"),
        (0.1, "0.1"),
        (1e21, "1e+21"),
        (10**20, "1" + "0" * 20),
        (10**400, "Infinity"),
    ],
)
def test_a_value_is_spelled_as_javascript_does(value: Any, word: str) -> None:
    assert word_of(value) == word


KEYS = st.sampled_from(
    [
        "command",
        "args",
        "env",
        "cwd",
        "url",
        "type",
        "transport",
        "headers",
        "disabled",
        "enabled",
        "envFile",
        "path",
        "name",
        "value",
    ]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        ["http://h/", "C:\\x", "${A}", "$A", "'", "stdio", "sse", "~", "a=b", "x y", "\ud800", ".env", f"{FOLDER}/.env"]
    )
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@hypothesis_settings(max_examples=300, deadline=None)
@given(entry=VALUES | st.dictionaries(KEYS, VALUES, max_size=6))
def test_any_value_is_a_server_or_told(entry: Any) -> None:
    server = read(entry)
    if server is not None:
        assert bool(server.table) is not bool(server.problems)
        assert all(text.isprintable() for text in server.warnings)
        assert all(str(problem).isprintable() for problem in server.problems)
