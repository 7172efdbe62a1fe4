"""A few servers and clients of other projects, the ones that differ most and install soonest; `-m slow` tries all of them."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.end_to_end.running_gateway import is_continuous_integration
from tests.field import table as table_module
from tests.field.clients import TRANSPORTS, Client, known_clients
from tests.field.installing import HERE, InstallFailed
from tests.field.run import Findings, known_failures, run_field, spoken_revision
from tests.field.servers import STEPS, Place, Server, known_servers
from tests.field.table import markdown

PLACE = Place(Path("/folder"), "http://127.0.0.1:1/")


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    clients = [client for client in known_clients() if client.in_ci]
    try:
        return run_field(tmp_path_factory.mktemp("field"), "embedded", clients, lambda server: server.in_ci)
    except (InstallFailed, subprocess.SubprocessError) as problem:
        if is_continuous_integration():
            raise
        pytest.skip(f"it cannot be installed: {problem}")


@pytest.mark.node_js
@pytest.mark.timeout(300)
def test_servers_work_behind_the_gateway_and_come_back_after_sigkill(findings: Findings) -> None:
    assert {server.name for server in findings.servers} == {"everything", "broken"}
    for server, outcomes in findings.servers.items():
        assert outcomes.keys() == {"legacy", "2026-07-28"}
        for steps in outcomes.values():
            assert not any(steps.values()), f"{server.name}: {steps}"
            assert steps.keys() == ({"refused"} if server.is_broken else set(STEPS))


@pytest.mark.node_js
@pytest.mark.timeout(300)
def test_clients_list_and_call_with_nothing_but_the_address(findings: Findings) -> None:
    assert {client.name: why for client, why in findings.clients.items() if why} == {}
    assert {client.name: revision for client, revision in findings.revisions.items()} == {
        "Python SDK 1.6.0 at /mcp/sse/connect": "2024-11-05",
        "Python SDK 1.12.4 at /mcp": "2025-06-18",
        "`@ai-sdk/mcp` 2.0.99 at /mcp": "2026-07-28",
        "`@ai-sdk/mcp` 2.0.99 at /mcp/sse/connect": "2025-11-25",
    }


@pytest.mark.node_js
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_all_of_the_field_works_but_for_what_is_listed(tmp_path: Path) -> None:
    found = run_field(tmp_path, "embedded", known_clients()).failures()
    assert {what: why for what, why in found.items() if what not in known_failures()} == {}, "new failures"
    assert known_failures().keys() - found.keys() == set(), "failures that have gone: take them off the list"


def test_each_version_is_pinned_and_shown() -> None:
    for client in known_clients():
        for requirement in (*client.python, *client.node):
            assert re.search(r"(==|@)\d+\.\d+\.\d+$|<", requirement), requirement
        version = re.split("==|@", (client.node or client.python)[0])[-1]
        assert version in client.title, client.title
        assert client.path in TRANSPORTS
    for server in known_servers(PLACE):
        version = re.search(r"(?:==|@)([\d.]+)", " ".join(server.command))
        assert version, server.command
        assert server.is_broken or version[1] in server.title
    assert all("==" in each for each in tomllib.loads((HERE / "tools.toml").read_text())["requirements"])


def test_every_known_failure_has_a_reason_and_something_that_it_is_about() -> None:
    names = {client.name for client in known_clients()} | {server.name for server in known_servers(PLACE)}
    for what, reason in known_failures().items():
        assert reason.endswith(".")
        assert len(reason) > 40
        assert what.partition(", 20")[0].removesuffix(", legacy") in names


def test_placeholders_are_filled_however_deep() -> None:
    value = {"a": ["{folder}/x", {"b": "{page}{page}"}], "c": 1, "d": True}
    assert PLACE.filled(value) == {"a": ["/folder/x", {"b": PLACE.page * 2}], "c": 1, "d": True}


def test_the_table_shows_what_failed_and_why_where_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    fine = Server(name="a", title="A 1", command=["npx", "a"], tool="t")
    broken = Server(name="b", title="B 1", command=["uvx", "b"], is_broken=True)
    client, listed = Client(title="C 1", path="/mcp"), Client(title="D 1", path="/mcp/sse/connect")
    monkeypatch.setattr(table_module, "known_failures", lambda: {listed.name: "It wants what nobody has."})
    findings = Findings(
        {
            fine: {"legacy": {"list": "", "call": ""}, "2026-07-28": {"list": "", "call": "boom"}},
            broken: {"legacy": {"refused": ""}},
        },
        {client: "", listed: "exit code 1"},
        {client: "2025-06-18", listed: ""},
    )
    table = markdown(findings).splitlines()
    assert "| A 1 | `npx` | yes | **no** | - | - | - | - |" in table
    assert "| B 1 | `uvx` | told why | - | - | - | - | - |" in table
    assert "| C 1 | `/mcp` | Streamable HTTP, 2025-06-18 | yes |" in table
    assert f"| {listed.title} | `{listed.path}` | - | **no** |" in table
    assert table[-2:] == ["* a, 2026-07-28: call: **not explained: boom**", f"* {listed.name}: It wants what nobody has."]


def test_the_revision_is_that_of_the_last_call() -> None:
    lines = ['{"target": "tools/call/a", "revision": "2024-11-05"}', "no JSON", '{"target": "stream", "revision": "x"}']
    assert (spoken_revision("\n".join(lines)), spoken_revision("")) == ("2024-11-05", "")
