"""`mcp-gateway events` as a user meets it: lines as they happen, from the past on request, through restarts."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mcp_gateway.scripts.commands import event_follower
from mcp_gateway.scripts.commands.event_follower import human_line, json_line
from mcp_gateway.scripts.commands.gateway_address import GatewayAddress, NothingToFollow
from mcp_gateway.transports.protocol.framing.sse import ServerSentEvent
from tests.doubles.gateway_process import GatewayProcess, run_command, wait_until
from tests.doubles.ports import free_port

BACKEND = '[[backends]]\nname = "demo"\nprefix = ""\nbuiltin = "demo"\n'


def event(data: dict[str, Any], name: str = "vsm_event") -> ServerSentEvent:
    return ServerSentEvent(json.dumps(data).encode(), name, "42")


# ---- lines (pure)


def test_a_program_gets_one_object_a_line() -> None:
    line = json_line(event({"event_type": "a.b", "payload": {"n": 1, "text": "a\nb ü"}, "timestamp": 7}))
    assert json.loads(line) == {"id": 42, "event_type": "a.b", "payload": {"n": 1, "text": "a\nb ü"}, "timestamp": 7}
    assert "\n" not in line
    gap = {"first_id": 3, "last_id": 42, "count": 40}
    assert json.loads(json_line(event(gap, "gap"))) == {"gap": gap}


def test_a_person_gets_time_id_topic_and_payload() -> None:
    payload = {"child": "cell/0/router", "reason": "it crashed", "n": 1, "more": {"a": [1]}, "none": None, "empty": ""}
    line = human_line(event({"event_type": "mcp.x", "payload": payload, "timestamp": 1_700_000_000_007}))
    assert re.fullmatch(
        r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.007      42  mcp\.x  child=cell/0/router reason="it crashed" n=1 more=\{"a": \[1\]\}'
        r' none=null empty=""',
        line,
    )
    assert human_line(event({"event_type": "a", "payload": {}, "timestamp": 0})).endswith("  a")
    assert human_line(event({"first_id": 3, "last_id": 9}, "gap")) == "events 3 to 9 are no longer kept"


def test_no_payload_breaks_a_line() -> None:
    payload = {"a": 'x" b=2', "b": "\x1b[2J\n\u2028"}
    line = human_line(event({"event_type": "a", "payload": payload, "timestamp": 0}))
    assert line.endswith(r'a="x\" b=2" b="\u001b[2J\n\u2028"')


def test_neither_a_key_nor_a_topic_reaches_the_terminal_of_who_follows() -> None:
    payload = {"\x1b[2J": 1, "a b=": {"\u202e\x9b": "\x7f"}, "c": "\u200bx"}
    moving = event({"event_type": "client.\x1b]0;x\x07", "payload": payload, "timestamp": 0})
    assert human_line(moving).endswith(r'client.\x1b]0;x\x07  "\u001b[2J"=1 "a b="={"\u202e\u009b": "\u007f"} c="\u200bx"')
    assert json_line(moving).isprintable()
    assert json.loads(json_line(moving))["payload"] == payload


# ---- gateways that go and come


def test_a_topic_that_was_quiet_for_long_is_followed_through_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Away is the time since the stream has ended, not since its last event."""
    now_s = 0.0
    tries = 0

    def stream(gateway: GatewayAddress, topic: str, last_id: str | None) -> Iterator[ServerSentEvent]:
        nonlocal now_s, tries
        tries += 1
        if tries == 2 or tries > 3:
            raise ConnectionRefusedError("refused")
        yield ServerSentEvent(b"{}", "connected", None)
        if tries == 1:
            now_s += 3600
            raise ConnectionResetError("reset")
        yield event({"event_type": "a", "payload": {}, "timestamp": 0})

    def sleep(delay_s: float) -> None:
        nonlocal now_s
        now_s += delay_s

    monkeypatch.setattr(event_follower, "_stream", stream)
    monkeypatch.setattr(event_follower, "time", SimpleNamespace(monotonic=lambda: now_s, sleep=sleep))
    followed = event_follower.follow(GatewayAddress("http://gateway"), "a", None)
    assert next(followed).event_id == "42"
    with pytest.raises(NothingToFollow, match=re.escape("the gateway on http://gateway has ended (refused)")):
        next(followed)
    assert 5 < now_s - 3600 < 7


# ---- the command


class Following:
    """`mcp-gateway events` as it runs. lines: what it has printed so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))

    def numbers(self) -> list[int]:
        events = [json.loads(line) for line in self.lines]
        return [event["payload"]["n"] for event in events if event.get("event_type") == "client.numbers"]

    def end(self) -> tuple[int, str]:
        """Its exit code and its standard error, once it has ended."""
        exit_code = self._process.wait(20)
        self._reader.join(5)
        assert self._process.stderr is not None
        return exit_code, self._process.stderr.read()

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)


@contextmanager
def follow(gateway: GatewayProcess, *arguments: str) -> Iterator[Following]:
    command = [sys.executable, "-m", "mcp_gateway.scripts.command_line", "events", "--state-dir", str(gateway.state_dir)]
    process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield Following(process)
    finally:
        process.kill()
        process.wait(5)
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()


def publish(gateway: GatewayProcess, *numbers: int) -> None:
    for number in numbers:
        with urllib.request.urlopen(f"{gateway.url}/publish?topic=client.numbers&n={number}", timeout=5) as answer:
            assert json.load(answer)["id"] > 0


@contextmanager
def running(directory: Path, *arguments: str) -> Iterator[GatewayProcess]:
    settings = f"[gateway]\ndrain_timeout = 1.0\n{BACKEND}"
    with GatewayProcess(directory / "state", *arguments, cell_factory="publishing_cell:make_cell", settings=settings) as gateway:
        yield gateway


@pytest.mark.parametrize("form", ["node", "embedded"])
def test_events_are_shown_as_they_happen_and_from_the_past(form: str, tmp_path: Path) -> None:
    with running(tmp_path, *(["--embedded"] if form == "embedded" else [])) as gateway:
        publish(gateway, 1, 2)
        with follow(gateway, "client.*", "--since", "0", "--json") as following, follow(gateway) as human:
            wait_until(lambda: following.numbers() == [1, 2], 10, "the past")

            def is_shown() -> bool:  # among whatever else the gateway tells
                publish(gateway, 3)
                return any(re.search(r"\d+  client\.numbers  n=3 key=", line) for line in human.lines)

            wait_until(is_shown, 10, "the present")
            wait_until(lambda: following.numbers()[-1] == 3, 10, "the present")
            for each in (following, human):
                each.interrupt()
                assert each.end() == (130, "")


def test_it_reads_on_when_the_gateway_is_started_again_and_ends_when_it_stays_away(tmp_path: Path) -> None:
    port = str(free_port())
    with running(tmp_path, "--port", port) as gateway:
        publish(gateway, 1)
        with follow(gateway, "client.*", "--since", "0", "--json") as following:
            wait_until(lambda: following.numbers() == [1], 10, "the first")
            gateway.end()
            gateway.__exit__()
            with running(tmp_path, "--port", port) as again:
                publish(again, 2)
                wait_until(lambda: following.numbers() == [1, 2], 10, "the second")
            exit_code, errors = following.end()
            assert exit_code == 1
            assert re.fullmatch(rf"mcp-gateway: the gateway on http://127\.0\.0\.1:{port} has ended \(.*\)\n", errors)


def test_where_nothing_runs_it_says_so(tmp_path: Path) -> None:
    done = run_command("events", "--state-dir", str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"mcp-gateway: no gateway runs with state_dir {tmp_path}\n"
    done = run_command("events", "--state-dir", "")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


@pytest.mark.parametrize("arguments", [["A"], ["vsm*"], ["all", "--since", "x"], ["all", "--since", "-1"]])
def test_what_cannot_be_followed_is_refused(arguments: list[str], tmp_path: Path) -> None:
    done = run_command("events", *arguments, "--state-dir", str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr


def test_of_several_gateways_the_admin_port_names_one(tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path) as first, running(tmp_path, "--admin-port", str(port)) as second:
        done = run_command("events", "--state-dir", str(tmp_path / "state"))
        assert done.returncode == 1
        assert f"{first.url} (--admin-port {first.admin_port})" in done.stderr
        assert second.url in done.stderr
        with follow(first, "--admin-port", str(first.admin_port), "--json") as following:
            wait_until(lambda: bool(publish(first, 7)) or 7 in following.numbers(), 10, "its events")
        config = tmp_path / "second.toml"
        config.write_text(f"[actor_system]\nadmin_port = {port}\n")
        with follow(second, "--config", str(config), "--json") as following:
            wait_until(lambda: bool(publish(second, 8)) or 8 in following.numbers(), 10, "those of the one that the file names")
