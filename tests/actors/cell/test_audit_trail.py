"""The audit trail of a cell: what an entry says and never says, and what becomes of entries while the disk takes nothing."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

from mcp_gateway.actors.cell import audit_trail
from mcp_gateway.actors.cell.audit_trail import KNOWN_A_MINUTE, MOST_WAITING, NOBODIES_A_MINUTE, AuditTrail
from mcp_gateway.actors.storage.audit_file import FILE_NAME, AuditFile
from mcp_gateway.transports.policy.policies import Action, Decision
from mcp_gateway.transports.ports.edge_port import Exchange
from mcp_gateway.transports.ports.principal import Principal
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.telemetry import metrics

ANN = Principal(issuer="https://id.example", subject="ann", client="cli", fingerprint="f")
SECRET = "s3cret"
CALL = Exchange(
    exchange_id=7,
    transport="websocket",
    revision="2026-07-28",
    endpoint="",
    kind=RequestKind.REQUEST,
    message=Request(b"1", "tools/call", b'{"name":"a","arguments":{"password":"s3cret"}}'),
    target="tools/call/a",
    hash_keys={"ip": "192.0.2.1"},
    headers={"traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "authorization": SECRET},
    principal=ANN,
    deadline_s=1.0,
)
ACTION = Action(method="tools/call", backend="b", kind="tool", name="a", params=b'{"password":"s3cret"}')


class FailingFile:
    """As `AuditFile`; takes nothing while `is_full`."""

    def __init__(self, error: Exception | None = None) -> None:
        self.is_full = True
        self.entries: list[Mapping[str, Any]] = []
        self.tries = 0
        self._error = error or OSError(28, "No space left on device")

    def append(self, entries: Sequence[Mapping[str, Any]], now_s: float) -> int:
        self.tries += 1
        if self.is_full:
            raise self._error
        self.entries += entries
        return 0


async def until(holds: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < give_up_s
        await asyncio.sleep(0.01)


def counted(outcome: str) -> float:
    return float(metrics.audit_entries_total.labels(outcome)._value.get())


def written(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / FILE_NAME).read_text().splitlines()]


def test_an_entry_says_who_what_and_by_which_rule_and_no_argument(tmp_path: Path) -> None:
    async def run() -> None:
        trail = AuditTrail(AuditFile(tmp_path, 1e9, 10**9, print), "cell/0")
        trail.note(ANN, ACTION, Decision(True, 2), CALL)
        trail.note(None, Action(method="topics/follow", kind="topic", name="all"), Decision(False), None)
        trail.note(ANN, ACTION, Decision(False, 1, ("write",)), CALL)
        uri = f"http://u:{SECRET}@host/p?token={SECRET}#{SECRET}"
        trail.note(ANN, Action(method="resources/read", kind="resource", name=uri), Decision(True, 0), None)
        trail.note(ANN, Action(method="tools/call", kind="tool", name="x" * 5_000), Decision(True, 0), None)
        await trail.close()

    asyncio.run(run())
    entries = written(tmp_path)
    assert SECRET not in json.dumps(entries)
    first, second, third, fourth, fifth = entries
    assert abs(first.pop("time_ms") - time.time() * 1000) < 60_000
    assert first.pop("previous") == "0" * 64
    assert first == {
        "number": 1,
        "cell": "cell/0",
        "issuer": "https://id.example",
        "subject": "ann",
        "client": "cli",
        "method": "tools/call",
        "name": "a",
        "backend": "b",
        "outcome": "allowed",
        "rule": "policies[2]",
        "request_id": "cell/0#7",
        "transport": "websocket",
        "address": "192.0.2.1",
        "trace_id": "1" * 32,
    }
    assert (second["outcome"], second["rule"], second["subject"], second["name"]) == ("denied", "default", "", "all")
    assert (third["outcome"], third["rule"]) == ("insufficient_scope", "policies[1]")
    assert fourth["name"] == "http://…@host/p"
    assert len(fifth["name"]) == 1_000


def test_who_is_not_let_in_is_noted_now_and_then_with_how_many_were_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever tries without end must neither fill the disk nor push out what was noted before."""
    now_s = 1_000.0
    monkeypatch.setattr("mcp_gateway.actors.cell.audit_trail.time.monotonic", lambda: now_s)
    refused = Refused("unauthorized", f"because {'x' * 5_000}")

    async def run() -> None:
        nonlocal now_s
        trail = AuditTrail(AuditFile(tmp_path, 1e9, 10**9, print), "cell/0")
        for _ in range(5_000):
            trail.note_log_in(None, "bearer", "192.0.2.1", "/mcp", refused)
        for _ in range(100):
            trail.note_log_in(ANN, "bearer", "192.0.2.2", "/mcp", refused)
        now_s += 60
        trail.note_log_in(None, "nothing", "192.0.2.3", "/mcp/ws", Refused("unauthorized", "log in"))
        trail.note_log_in(ANN, "bearer", "192.0.2.4", "/metrics", Refused("insufficient_scope", "for operators"))
        await trail.close()

    asyncio.run(run())
    entries = written(tmp_path)
    of_nobody = [entry for entry in entries if not entry["subject"]]
    of_ann = [entry for entry in entries if entry["subject"] == "ann"]
    assert (len(of_nobody), len(of_ann)) == (NOBODIES_A_MINUTE + 1, KNOWN_A_MINUTE + 1)
    assert [entry.get("left_out") for entry in (of_nobody[0], of_nobody[-1])] == [None, 5_000 - NOBODIES_A_MINUTE]
    assert (of_ann[-1]["left_out"], of_ann[-1]["outcome"]) == (100 - KNOWN_A_MINUTE, "insufficient_scope")
    first = of_nobody[0]
    assert {name: first[name] for name in ("method", "name", "outcome", "shown", "address", "issuer")} == {
        "method": "log in",
        "name": "/mcp",
        "outcome": "unauthorized",
        "shown": "bearer",
        "address": "192.0.2.1",
        "issuer": "",
    }
    assert len(first["rule"]) == 1_000


def test_entries_are_written_without_being_asked_for(tmp_path: Path) -> None:
    async def run() -> None:
        trail = AuditTrail(AuditFile(tmp_path, 1e9, 10**9, print), "cell/0")
        for count in (1, 3):
            for _ in range(count):
                trail.note(ANN, ACTION, Decision(True), CALL)
            give_up_s = time.monotonic() + 10
            while not (tmp_path / FILE_NAME).exists() or len(written(tmp_path)) not in (1, 4):
                assert time.monotonic() < give_up_s
                await asyncio.sleep(0.01)
        await trail.close()
        trail.note(ANN, ACTION, Decision(True), CALL)

    asyncio.run(run())
    assert len(written(tmp_path)) == 4


def test_while_the_disk_takes_nothing_entries_wait_and_what_is_lost_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_trail, "_AGAIN_S", 0.05)
    file = FailingFile()

    async def run() -> None:
        trail = AuditTrail(file, "cell/0")  # type: ignore[arg-type]
        for _ in range(MOST_WAITING + 5):
            trail.note(ANN, ACTION, Decision(True), None)
        await asyncio.sleep(0.2)
        file.is_full = False
        give_up_s = time.monotonic() + 20
        while len(file.entries) < MOST_WAITING + 1:
            assert time.monotonic() < give_up_s
            await asyncio.sleep(0.01)
        await trail.close()

    asyncio.run(run())
    assert sum(entry["outcome"] == "allowed" for entry in file.entries) == MOST_WAITING
    assert [entry["count"] for entry in file.entries if entry["outcome"] == "lost"] == [5]


def test_an_entry_that_cannot_be_written_is_counted_and_those_beside_it_and_after_it_are_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = attrs.evolve(ANN, subject="\ud800")

    async def run() -> None:
        trail = AuditTrail(AuditFile(tmp_path, 1e9, 10**9, print), "cell/0")
        for principal in (ANN, broken, ANN):
            trail.note(principal, ACTION, Decision(True), CALL)
        await until(lambda: (tmp_path / FILE_NAME).exists() and len(written(tmp_path)) == 3)
        trail.note(ANN, ACTION, Decision(True), CALL)
        await until(lambda: len(written(tmp_path)) == 4)
        trail.note(broken, ACTION, Decision(True), CALL)
        await trail.close()

    lost_before = counted("lost")
    asyncio.run(run())
    outcomes = [(entry["outcome"], entry.get("count")) for entry in written(tmp_path)]
    assert outcomes == [("allowed", None), ("allowed", None), ("lost", 1), ("allowed", None), ("lost", 1)]
    assert counted("lost") - lost_before == 2
    assert "lacks entries" in caplog.text


def test_after_a_defect_the_trail_goes_on_and_says_how_much_it_has_lost(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(audit_trail, "_AGAIN_S", 0.02)
    file = FailingFile(ZeroDivisionError("a defect"))

    async def run() -> None:
        trail = AuditTrail(file, "cell/0")  # type: ignore[arg-type]
        for _ in range(3):
            trail.note(ANN, ACTION, Decision(True), None)
        await until(lambda: file.tries > 2)
        file.is_full = False
        await until(lambda: bool(file.entries))
        trail.note(ANN, ACTION, Decision(True), None)
        await trail.close()

    asyncio.run(run())
    assert [(entry["outcome"], entry.get("count")) for entry in file.entries] == [("lost", 3), ("allowed", None)]
    assert caplog.text.count("a defect") == 1


def test_while_a_defect_lasts_a_trail_can_be_closed() -> None:
    async def run() -> None:
        trail = AuditTrail(FailingFile(ZeroDivisionError("a defect")), "cell/0")  # type: ignore[arg-type]
        trail.note(ANN, ACTION, Decision(True), None)
        await asyncio.wait_for(trail.close(), 20)

    asyncio.run(run())


def test_what_an_operator_does_is_noted_with_its_outcome_and_no_password(tmp_path: Path) -> None:
    async def run() -> None:
        trail = AuditTrail(AuditFile(tmp_path, 1e9, 10**9, print), "cell/0")
        trail.note_action(ANN, "drain", f"files http://u:{SECRET}@host/mcp", "done", "it takes nothing new", "192.0.2.1")
        await trail.close()

    asyncio.run(run())
    (entry,) = written(tmp_path)
    assert SECRET not in json.dumps(entry)
    named = ("subject", "method", "name", "outcome", "rule", "address")
    assert tuple(entry[name] for name in named) == (
        *("ann", "operate/drain", "files http://…@host/mcp", "done", "it takes nothing new", "192.0.2.1"),
    )
