"""Files of other programs, served by real processes: what a client finds behind them, what operators are told, and `import`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mcp_gateway.config.loader import load_settings
from tests.doubles.gateway_process import GatewayProcess, run_command, wait_until
from tests.doubles.ports import free_port
from tests.end_to_end.raw_http import ask, ask_modern, open_session, request, tool_call

SERVER = str(Path(__file__).parents[1] / "doubles" / "telling_server.py")
TOKEN = {"GATEWAY_TEST_TOKEN": "t0ken", "INPUT_KEY": "k3y"}


@pytest.fixture(scope="module")
def http_port() -> Iterator[int]:
    port = free_port()
    with subprocess.Popen([sys.executable, SERVER, "--http", str(port)]) as server:
        yield port
        server.kill()


def files_of(folder: Path, port: int) -> list[str]:
    """One file with comments in a project, and one for all projects in UTF-16."""
    project = folder / "project"
    (project / ".vscode").mkdir(parents=True)
    (project / ".vscode" / "mcp.json").write_text(
        f"""// ours
        {{
          "inputs": [{{"id": "key", "type": "promptString"}}],
          "servers": {{
            "Local Files": {{
              "command": "{sys.executable} {SERVER}",
              "args": ["${{workspaceFolder}}/data", 3000, "${{GATEWAY_TEST_TOKEN}}", "${{GATEWAY_TEST_NONE:-default}}"],
              "env": {{"KEY": "${{input:key}}", "EMPTY": ""}},
            }},
            "@me/web": {{"type": "http", "url": "http://127.0.0.1:{port}/mcp", "headers": {{"X-Key": "${{input:key}}"}}}},
            "off": {{"command": "x", "disabled": true}},
          }},
        }}"""
    )
    shared = {
        "mcpServers": {
            "plain": {"url": f"http://127.0.0.1:{port}/mcp", "disabledTools": ["o*"]},
            "old": {"url": f"http://127.0.0.1:{port}/sse", "headers": {"X-Key": "$GATEWAY_TEST_TOKEN"}},
            "bad": {"command": "cmd", "args": ["/c", "npx"], "nonsense": 1},
        }
    }
    (folder / "shared.json").write_text(json.dumps(shared), encoding="utf-16")
    return ["--mcp-json", str(project), "--mcp-json", str(folder / "shared.json")]


NAMES = {"local-files": "Local Files", "me-web": "@me/web", "plain": "plain", "old": "old"}


def where(gateway: GatewayProcess, backend: str, session: dict[str, str]) -> dict[str, Any]:
    answer = ask(f"{gateway.url}/mcp", tool_call(f"{backend}__where", {}), session).message
    facts: dict[str, Any] = json.loads(answer["result"]["content"][0]["text"])
    return facts


def what_is_served(gateway: GatewayProcess, project: Path) -> dict[str, Any]:
    """{backend: what its tool tells}, with the checks that hold however the gateway learnt of its servers."""
    session = open_session(f"{gateway.url}/mcp")
    listed = ask(f"{gateway.url}/mcp", request("tools/list"), session).message["result"]["tools"]
    tools = {f"{name}__{tool}" for name in NAMES for tool in ("where", "other")} - {"plain__other"}
    assert {tool["name"] for tool in listed} == tools
    served = {name: where(gateway, name, session) for name in NAMES}
    assert served["local-files"]["argv"] == [f"{project}/data", "3000", "t0ken", "default"]
    assert served["local-files"]["cwd"] == str(project)
    assert served["local-files"]["env"]["KEY"] == "k3y"
    assert served["me-web"]["headers"]["X-Key"] == "k3y"
    assert served["plain"]["path"] == "/mcp"
    refusals = [
        ask(f"{gateway.url}/mcp", tool_call("plain__other", {}), session),
        ask(f"{gateway.url}/mcp/servers/plain", tool_call("other", {}), open_session(f"{gateway.url}/mcp/servers/plain")),
        ask_modern(f"{gateway.url}/mcp", tool_call("plain__other", {})),
        ask_modern(f"{gateway.url}/mcp/servers/plain", tool_call("other", {})),
    ]
    assert [(answer.status, answer.message["error"]["code"], answer.reason) for answer in refusals] == [
        (400, -32602, "invalid_params")
    ] * 4
    alone = ask_modern(f"{gateway.url}/mcp/servers/plain", request("tools/list")).message["result"]["tools"]
    assert [tool["name"] for tool in alone] == ["where"]
    assert (served["old"]["path"], served["old"]["headers"]["X-Key"]) == ("/sse", "t0ken")
    return served


@pytest.mark.parametrize("form", ["node", "two cells", "embedded"])
def test_what_people_have_written_down_is_served_and_what_not_is_told(tmp_path: Path, http_port: int, form: str) -> None:
    files = files_of(tmp_path, http_port)
    more = ["--embedded"] if form == "embedded" else []
    settings = f"[gateway]\ncells = {2 if form == 'two cells' else 1}\n"
    with GatewayProcess(tmp_path / "state", *files, *more, cell_factory=None, settings=settings, env=TOKEN) as running:
        wait_until(lambda: what_is_served(running, tmp_path / "project"), 15, "everything is served")
        health = wait_until(lambda: running.get("/health"), 5, "it tells how it does")
        assert health["status"] == "degraded"
        component = health["components"]["bad/left-out"]
        assert component["status"] == "degraded"
        assert f"{tmp_path}/shared.json: mcpServers.bad.command: found 'cmd', a program of Windows" in component["reason"]
        assert "server 'bad' is left out" in running.errors
        assert "unknown keys, passed over: nonsense" in running.errors
        page = running.get("/metrics/dashboard/state")
        assert {each["name"]: each["title"] for each in page["node"]["backends"]} == NAMES
        if form == "embedded":  # `status` finds no port there
            return
        status = running.status()
        assert {each["name"]: each["title"] for each in status["backends"]} == NAMES
        assert [(each["name"], each["title"]) for each in status["left_out"]] == [("bad", "bad")]
        table = running.command("status").stdout
        assert "@me/web" in table
        assert "left out: bad: " in table


def test_a_reload_takes_in_a_server_that_was_mended(tmp_path: Path, http_port: int) -> None:
    file = tmp_path / "servers.json"
    file.write_text(json.dumps({"mcpServers": {"a": {"command": "npx.cmd"}}}))
    with GatewayProcess(tmp_path / "state", "--mcp-json", str(file), cell_factory=None, settings=None) as running:
        assert wait_until(lambda: running.get("/health"), 5, "it tells how it does")["status"] == "degraded"
        file.write_text(json.dumps({"mcpServers": {"a": {"url": f"http://127.0.0.1:{http_port}/mcp"}}}))
        reloaded = running.command("reload")
        assert (reloaded.returncode, reloaded.stdout, reloaded.stderr) == (0, "a added\n", "")
        assert wait_until(lambda: running.get("/health")["status"] == "healthy", 10, "nothing is left out any more")
        file.write_text(json.dumps({"mcpServers": {"a": {"url": "x"}}}))
        reloaded = running.command("reload")
        assert (reloaded.returncode, reloaded.stdout) == (0, "a removed\n")
        assert "server 'a' is left out" in reloaded.stderr
        assert running.status()["left_out"][0]["name"] == "a"


def test_what_import_writes_is_served_the_same(tmp_path: Path, http_port: int) -> None:
    files = [option for option in files_of(tmp_path, http_port) if option != "--mcp-json"]
    written = tmp_path / "elsewhere" / "gateway.toml"
    written.parent.mkdir()
    done = run_command("import", *files, "--output", str(written), env=TOKEN)
    assert (done.returncode, done.stdout) == (0, "")
    assert "server 'bad' is left out: " in done.stderr
    assert written.stat().st_mode & 0o777 == 0o600
    assert "# left out: bad\n#   " in written.read_text()
    assert run_command("import", *files, env=TOKEN).stdout == written.read_text()
    assert {backend.name: backend.title or backend.name for backend in load_settings(written).backends} == NAMES
    assert run_command("check-config", str(written)).returncode == 0
    with GatewayProcess(tmp_path / "state", cell_factory=None, settings=written.read_text()) as running:
        wait_until(lambda: what_is_served(running, tmp_path / "project"), 15, "everything is served")
        assert {each["name"]: each["title"] for each in running.status()["backends"]} == NAMES


def test_check_config_tells_every_problem_of_such_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    servers = {"one": {"command": "npx.cmd"}, "two": {"url": "https://<host>/"}, "three": {"command": "x", "odd": 1}}
    file.write_text(json.dumps({"mcpServers": servers}))
    done = run_command("check-config", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    assert [line.split(": ")[1] for line in done.stderr.splitlines()] == [
        f"{file}",
        "mcpServers.one.command",
        "mcpServers.two.url",
    ]
    assert done.stderr.startswith(f"warning: {file}: mcpServers.three: unknown keys, passed over: odd\n")
    del servers["one"], servers["two"]
    file.write_text(json.dumps({"mcpServers": servers}))
    done = run_command("check-config", str(file))
    assert (done.returncode, done.stdout) == (0, f"{file}: valid (1 backend)\n")


@pytest.mark.parametrize("command", [["serve", "--mcp-json"], ["check-config"], ["import"]])
@pytest.mark.parametrize("content", ["", "{}", '{"theme": "dark"}'])
def test_a_file_without_servers_is_refused_with_what_was_looked_for(tmp_path: Path, command: list[str], content: str) -> None:
    file = tmp_path / "mcp.json"
    file.write_text(content)
    done = run_command(*command, str(file))
    assert (done.returncode, done.stdout) == (2, "")
    assert "mcpServers, servers, mcp.servers, mcp, context_servers, mcp_servers" in done.stderr
    assert len(done.stderr.splitlines()) == 1
