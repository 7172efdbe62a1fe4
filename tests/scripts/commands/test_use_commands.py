"""What a gateway serves is listed and called from the shell, with one clear line for whatever goes wrong."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.scripts.command_line import main
from mcp_gateway.scripts.commands.attaching import Refused
from mcp_gateway.scripts.commands.use_commands import list_lines, read_pairs, result_lines
from tests.doubles.gateway_process import GatewayProcess
from tests.doubles.ports import free_port

EVERYTHING = Path(__file__).parents[2] / "doubles" / "everything_server.py"
COMMAND = [sys.executable, str(EVERYTHING), "--transport", "stdio", "--era", "legacy"]
SETTINGS = f"""
[[backends]]
name = "demo"
builtin = "demo"
[[backends]]
name = "all"
command = {json.dumps(COMMAND)}
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    state = tmp_path_factory.mktemp("use") / "state"
    with GatewayProcess(state, "--embedded", cell_factory=None, settings=SETTINGS) as running:
        yield running


def run(gateway: GatewayProcess, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Of an embedded gateway, which has no admin port to name."""
    return subprocess.run(
        [sys.executable, "-m", "mcp_gateway.scripts.command_line", *arguments, "--state-dir", str(gateway.state_dir)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# ---- a gateway that runs


def test_tools_are_listed_for_people_and_for_programs(gateway: GatewayProcess) -> None:
    lines = run(gateway, "tools").stdout.splitlines()
    assert lines[0].split() == ["NAME", "TAKES", "WHAT", "IT", "IS"]
    assert any(line.startswith("demo__echo ") for line in lines)
    assert any(line.startswith("all__add ") for line in lines)
    alone = json.loads(run(gateway, "tools", "--server", "demo", "--json").stdout)
    assert [tool["name"] for tool in alone] == ["echo", "time", "slow", "fail"]
    assert alone[0]["inputSchema"]["type"] == "object"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--as", "ann"], "mcp-gateway: --as asks the policies of a file, and none is named: --config F"),
        (["--group", "dev"], "mcp-gateway: --as asks the policies of a file, and none is named: --config F"),
        (["--config", "policies.toml", "--group", "dev"], "mcp-gateway: --issuer, --group, --scope and --client say something"),
    ],
)
def test_what_somebody_may_use_is_not_told_where_nothing_tells_it(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole list would be believed to be theirs."""
    monkeypatch.chdir(tmp_path)
    Path("policies.toml").write_text('[[policies]]\neffect = "allow"\n')
    assert main(["tools", *words]) == 2
    assert capsys.readouterr().err.startswith(said)


def test_resources_with_their_templates_and_prompts_are_listed(gateway: GatewayProcess) -> None:
    resources = run(gateway, "resources", "--server", "demo").stdout
    assert "demo://readme" in resources
    assert "demo://echo/{message}" in resources
    assert "greet" in run(gateway, "prompts", "--server", "demo").stdout


@pytest.mark.parametrize(
    ("arguments", "stdin", "answer"),
    [
        (["demo__echo", "message=hi"], "", "hi\n"),
        (["demo__echo", "message=5"], "", "5\n"),
        (["demo__echo", "--json", "-"], '{"message": "from a file"}', "from a file\n"),
        (["all__add", "a=2", "b=3"], "", "5\n"),
        (["all__add", "a:=2", "--json", '{"b": 40}'], "", "42\n"),
    ],
)
def test_a_tool_is_called_and_its_answer_printed(gateway: GatewayProcess, arguments: list[str], stdin: str, answer: str) -> None:
    done = run(gateway, "call", *arguments, stdin=stdin)
    assert (done.returncode, done.stdout) == (0, answer), done.stderr


@pytest.mark.parametrize(
    ("arguments", "exit_code", "text"),
    [
        (["call", "demo__ech", "message=x"], 2, "did you mean demo__echo"),
        (["call", "demo__slow", "seconds=x"], 2, "the value must be JSON"),
        (["call", "demo__echo", "message"], 2, "not of the form KEY=VALUE"),
        (["call", "demo__echo", "--json", "[1]"], 2, "a JSON object"),
        (["call", "demo__echo", "--json", "{"], 2, "--json:"),
        (["call", "demo__nothing"], 1, "nothing"),
        (["tools", "--server", "nope"], 1, "no backend 'nope'"),
        (["tools", "--url", "ftp://x"], 2, "no http or https address"),
    ],
)
def test_what_goes_wrong_is_one_line_and_an_exit_code(
    gateway: GatewayProcess, arguments: list[str], exit_code: int, text: str
) -> None:
    done = run(gateway, *arguments)
    assert done.returncode == exit_code
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_tool_that_fails_is_an_exit_code_of_its_own(gateway: GatewayProcess) -> None:
    done = run(gateway, "call", "demo__fail")
    assert done.returncode == 1
    assert "always fails" in done.stdout


def test_the_whole_result_is_json_where_that_is_wanted(gateway: GatewayProcess) -> None:
    result = json.loads(run(gateway, "call", "demo__echo", "message=hi", "--raw").stdout)
    assert result["content"] == [{"type": "text", "text": "hi"}]


def test_a_gateway_is_named_by_its_address_as_well(gateway: GatewayProcess) -> None:
    assert run(gateway, "call", "demo__echo", "message=hi", "--url", f"{gateway.url}/mcp").stdout == "hi\n"
    nobody = run(gateway, "tools", "--url", f"http://127.0.0.1:{free_port()}")
    assert nobody.returncode == 1
    assert "cannot be reached" in nobody.stderr


def test_progress_and_questions_meet_a_person_at_a_terminal(gateway: GatewayProcess) -> None:
    """Without a terminal nobody is asked, and nothing but the answer is printed."""
    assert run(gateway, "call", "all__elicit").returncode == 1
    leader, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "mcp_gateway.scripts.command_line", "call", "all__elicit", "--state-dir", str(gateway.state_dir)],
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
    )
    os.close(terminal)
    try:
        seen = b""
        while b"): " not in seen:  # the prompt of the form's one field
            seen += os.read(leader, 4_096)
        os.write(leader, b"Ada\n")
        answer, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
        os.close(leader)
    assert process.returncode == 0
    assert "Ada" in answer


def test_a_backend_that_gives_no_list_is_named_beside_it(tmp_path: Path) -> None:
    settings = f'{SETTINGS}[[backends]]\nname = "away"\nreplicas = ["http://127.0.0.1:{free_port()}/mcp"]\n'
    with GatewayProcess(tmp_path / "state", "--embedded", cell_factory=None, settings=settings) as partial:
        done = run(partial, "tools", "--json")
        assert (done.returncode, "demo__echo" in done.stdout) == (0, True)
        assert done.stderr.startswith("mcp-gateway: backend 'away' gives no list now: ")
        assert json.loads(done.stdout)


def test_a_tool_that_a_search_stands_in_for_is_called_by_its_name(tmp_path: Path) -> None:
    """Its schema is known as that of any other: values are read by it, and a name that nothing has is told."""
    with GatewayProcess(
        tmp_path / "state", "--embedded", cell_factory=None, settings=f"{SETTINGS}[search]\nabove = 1\n"
    ) as searched:
        assert run(searched, "tools").stdout.splitlines()[1].startswith("search_tools ")
        assert run(searched, "call", "all__add", "a=2", "b=3").stdout == "5\n"
        nothing = run(searched, "call", "demo__nothing", "a=2")
        assert (nothing.returncode, "there is no tool" in nothing.stderr) == (2, True)


# ---- tables of cases


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "string"}, "5", "5"),
        ({"type": "integer"}, "5", 5),
        ({"type": "number"}, "2.5", 2.5),
        ({"type": "boolean"}, "true", True),
        ({"type": "array"}, "[1, 2]", [1, 2]),
        ({"type": "object"}, '{"a": 1}', {"a": 1}),
        ({"type": ["integer", "null"]}, "null", None),
        ({"type": ["string", "null"]}, "null", "null"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "7", 7),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "7", "7"),
        ({}, "5", "5"),
        (None, "a=b", "a=b"),
    ],
)
def test_a_value_is_read_as_its_schema_says(schema: Any, text: str, value: object) -> None:
    tools = [{"name": "t", "inputSchema": {"type": "object", "properties": {"it": schema}}}]
    assert read_pairs("t", [f"it={text}"], tools) == {"it": value}


@pytest.mark.parametrize("pair", ["it", "=5", ":=5", ""])
def test_a_pair_without_a_name_or_a_sign_is_refused(pair: str) -> None:
    with pytest.raises(Refused):
        read_pairs("t", [pair], [{"name": "t"}])


def test_an_answer_without_text_is_told_in_a_word() -> None:
    content = [
        {"type": "image", "mimeType": "image/png", "data": "AAAA"},
        {"type": "resource_link", "uri": "file:///x"},
        {"type": "resource", "resource": {"uri": "file:///y", "text": "inside"}},
    ]
    assert result_lines({"content": content}) == ["[image image/png, 3 bytes]", "[file:///x]", "inside"]
    assert result_lines({"content": [], "structuredContent": {"a": 1}}) == ['{\n  "a": 1\n}']


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)
FIELDS = st.dictionaries(
    st.sampled_from(["name", "inputSchema", "arguments", "title", "description", "uri", "content", "type", "resource"]), JSON
)


@given(item=FIELDS)
def test_whatever_a_server_lists_or_answers_has_a_line(item: dict[str, Any]) -> None:
    for listed in ("tools", "resources", "prompts"):
        assert len(list_lines(listed, [item])) == 2
    assert all(isinstance(line, str) for line in result_lines({"content": [item]}))
