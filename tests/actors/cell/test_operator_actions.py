"""What operators have done is done for the whole node, told of with who did it, and said to have failed where it has."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import attrs
import pytest

from mcp_gateway.actors.cell.operator_actions import OperatorActions, SessionEndAsked
from mcp_gateway.actors.storage.pin_file import ChangedTool, PinsUnavailable
from mcp_gateway.transports.downstream.operators.actions import ActionOutcome, OperatorAction
from mcp_gateway.transports.ports.principal import Principal
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from tests.doubles.known_clients import AUTH
from tests.doubles.patience import patience
from tests.doubles.raw_http_client import INITIALIZE, RawClient
from tests.doubles.running_cell import cell_settings, running_cell

OPS = Principal(issuer="https://id.example", subject="ops", fingerprint="o1")


class Cells:
    """Other cells, which know these sessions."""

    def __init__(self, sessions: Mapping[str, str] = {}) -> None:
        self._sessions = sessions
        self.other_cells = ("cell/1", "cell/2", "cell/3")

    def answer_cells(self, kind: type, _: object) -> None:
        assert kind is SessionEndAsked

    async def ask_cell(self, name: str, asked: SessionEndAsked, _: float) -> bool:
        if name == "cell/1":
            raise LookupError(name)
        return self._sessions.get(asked.session) == name


class Port:
    """A cell's port and its sessions, of which it knows none."""

    cell_name = "cell/0"

    def __init__(self, cells: Cells, *, has_auth: bool) -> None:
        self.cells = cells
        self.settings = cell_settings(**({"auth": AUTH} if has_auth else {}))
        self.sessions = self

    def known(self, _: str) -> None:
        return None


class Node:
    """A node that answers so."""

    def __init__(self, answer: Mapping[str, Any] | None = None) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._answer = answer

    async def change(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        self.asked.append((command, arguments))
        if self._answer is None:
            raise TimeoutError
        return dict(self._answer)


@attrs.define
class Pins:
    tools: list[ChangedTool] = attrs.field(factory=list)
    approved: list[tuple[str, str]] = attrs.field(factory=list)
    is_broken: bool = False

    def changed(self) -> list[ChangedTool]:
        if self.is_broken:
            raise PinsUnavailable("disk I/O error")
        return self.tools

    def approve(self, backend: str, tool: str) -> None:
        self.approved.append((backend, tool))


NOTES: list[tuple[Any, ...]] = []


def done(
    command: str, node: Node, pins: Pins | None = None, cells: Cells | None = None, *, has_auth: bool = True, **words: str
) -> ActionOutcome:
    NOTES.clear()

    async def run() -> ActionOutcome:
        port: Any = Port(cells or Cells(), has_auth=has_auth)
        link: Any = node
        actions = OperatorActions(port, link, pins or Pins(), lambda *note: NOTES.append(note))
        outcome = await actions.carry_out(OperatorAction(command, words), OPS, "192.0.2.1")
        await asyncio.sleep(0)  # for what is not waited for
        return outcome

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("command", "words", "asked"),
    [
        ("drain", {"name": "files"}, ("drain", {"name": "files", "replica": ""})),
        ("undrain", {"name": "files", "replica": "http://a"}, ("undrain", {"name": "files", "replica": "http://a"})),
        ("restart", {"child": "cell/1/router"}, ("restart", {"child": "cell/1/router"})),
        ("restart", {"child": "cell/0"}, ("restart", {"child": "cell/0"})),
        ("log-level", {"level": "debug"}, ("log-level", {"level": "debug"})),
        ("revoke", {"subject": "ann"}, ("revoke", {"subject": "ann", "undo": False})),
        ("reinstate", {"subject": "ann"}, ("revoke", {"subject": "ann", "undo": True})),
    ],
)
def test_the_node_is_asked_and_the_trail_says_who_did_what(command: str, words: dict[str, str], asked: tuple[Any, ...]) -> None:
    node = Node({"ok": True})
    outcome = done(command, node, **words)
    assert (outcome.is_done, node.asked) == (True, [asked])
    assert [(OPS, command, " ".join(words.values()), "done", outcome.text, "192.0.2.1")] == NOTES


@pytest.mark.parametrize(
    ("answer", "text"), [({"error": "no such child"}, "no such child"), ({"refused": ["line 1", "line 2"]}, "line 1; line 2")]
)
def test_what_the_node_does_not_do_has_failed_with_its_reason(answer: dict[str, Any], text: str) -> None:
    outcome = done("restart", Node(answer), child="cell/9")
    assert (outcome.is_done, outcome.text) == (False, text)
    assert [(OPS, "restart", "cell/9", "failed", text, "192.0.2.1")] == NOTES


def test_a_node_that_does_not_answer_is_told_of_as_well() -> None:
    with pytest.raises(Refused) as refused:
        done("drain", Node(None), name="files")
    assert refused.value.reason == "upstream_timeout"
    assert [note[3] for note in NOTES] == ["upstream_timeout"]


def test_its_own_cell_is_not_waited_for_since_that_waits_for_this_request() -> None:
    assert done("restart", Node(None), child="cell/0").is_done


def test_where_nobody_logs_in_nobody_has_access_to_lose() -> None:
    node = Node({"ok": True})
    assert not done("revoke", node, subject="ann", has_auth=False).is_done
    assert node.asked == []


def test_a_tool_is_approved_that_has_changed_and_no_other() -> None:
    pins = Pins([ChangedTool("files", "read", ("description",))])
    assert not done("approve", Node(), pins, backend="files", tool="write").is_done
    assert done("approve", Node(), pins, backend="files", tool="read").is_done
    assert pins.approved == [("files", "read")]
    broken = done("approve", Node(), Pins(is_broken=True), backend="files", tool="read")
    assert (broken.is_done, "disk I/O error" in broken.text) == (False, True)


def test_a_session_ends_in_whichever_cell_knows_it() -> None:
    cells = Cells({"a": "cell/3"})
    assert done("end-session", Node(), cells=cells, session="a").is_done
    assert not done("end-session", Node(), cells=cells, session="b").is_done


def test_a_session_of_this_cell_is_over_when_it_is_said_to_be() -> None:
    async def run() -> None:
        async with running_cell(cell_settings()) as cell, RawClient(cell) as client, patience():
            shown = {"Content_Type": "application/json", "Accept": "application/json, text/event-stream"}
            opened = await client.ask("POST", "/mcp", INITIALIZE, **shown)
            session = {"Mcp_Session_Id": opened.headers["mcp-session-id"], "MCP_Protocol_Version": "2025-11-25"}
            port, link = cell.cell._port, cell.link
            (key,) = (row["session"] for row in (await cell.cell.command("sessions", {}))["clients"])
            outcome = await OperatorActions(port, link, Pins(), None).carry_out(
                OperatorAction("end-session", {"session": key}), None, "127.0.0.1"
            )
            assert outcome.is_done
            ping = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
            assert (await client.ask("POST", "/mcp", ping, **shown, **session)).reason == "session_not_found"

    asyncio.run(run())
