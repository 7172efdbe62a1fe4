"""A scripted incident on a real gateway: signals, events, alerts, health and the dashboard tell it in order."""

from __future__ import annotations

import json
import os
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.doubles.alert_receiver import SECRET, start_alert_receiver
from tests.doubles.gateway_process import wait_until
from tests.doubles.recording_backend import RecordingBackend, start_recording_backend
from tests.end_to_end.raw_http import ask_modern, tool_call
from tests.end_to_end.running_gateway import RunningGateway
from tests.node.browser import start_browser

pytestmark = [pytest.mark.node_js, pytest.mark.timeout(300)]  # its phases may take as long together

PHASE_S = 30.0


def state(gateway: RunningGateway) -> dict[str, Any]:
    with urllib.request.urlopen(f"{gateway.url}/metrics/dashboard/state", timeout=5) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def signals(gateway: RunningGateway) -> list[tuple[str, str]]:
    """(kind, source) of the algedonic timeline, in its order."""
    return [(each["kind"], each["source"]) for each in state(gateway)["viability"]["timeline"]]


@contextmanager
def clients(gateway: RunningGateway, count: int) -> Iterator[None]:
    """So many clients call one after the other, until the block ends; what they are answered is their business."""
    stop = threading.Event()

    def call() -> None:
        while not stop.is_set():
            for backend, tool in (("files", "work"), ("demo", "echo")):
                try:
                    ask_modern(gateway.endpoint(backend), tool_call(tool, {"message": "hi"}))
                except OSError:
                    time.sleep(0.05)  # the cell that served it has just been killed

    threads = [threading.Thread(target=call) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)


def test_an_incident_is_told_in_order_wherever_one_looks(start_gateway: StartGateway, tmp_path: Path) -> None:
    backend = RecordingBackend()
    with start_alert_receiver() as receiver, start_browser() as browser:
        options: dict[str, Any] = {
            "gateway": {"health_check_interval": 0.4, "pool_size": 4, "max_overflow": 0, "checkout_timeout": 0.3},
            "alerts": {"webhook_url": receiver.url, "webhook_secret": SECRET, "topics": ["vsm.algedonic.*", "mcp.health.*"]},
            "expects_errors": True,
        }
        with start_recording_backend(backend):
            pass  # it has a port of its own from here on
        backends = [{"name": "files", "replicas": [backend.url], "prefix": "files__"}, {"name": "demo", "builtin": "demo"}]
        with start_gateway("two cells", backends, **options) as gateway:
            story: list[tuple[str, str]] = []

            def wait_for_signal(kind: str, source: str) -> None:
                """One that comes from now on, or that has just come: whatever was felt before is over."""
                story.append((kind, source))
                wait_until(lambda: last_kind(source) == kind, PHASE_S, f"{kind} {source}")

            def last_kind(source: str) -> str:
                return next((kind for kind, each in reversed(signals(gateway)) if each == source), "")

            with start_recording_backend(backend):
                browser.open(f"{gateway.url}/metrics/dashboard", height=1540)
                # 1. All is well for long enough to know what is usual.
                wait_until(lambda: gateway.health()["status"] == "healthy", 10, "healthy")
                with clients(gateway, 2):
                    browser.wait_for("#verdict", "Viable")
                    enough = usual_is_known(gateway)
                    wait_until(enough, PHASE_S, "the usual latency is known")
                    # 2. The server becomes slow.
                    backend.delay_s = 0.6
                    wait_for_signal("pain", "latency/files")
                    browser.wait_for("#aches", "latency/files")
                    # 3. More clients come than there are connections.
                    with clients(gateway, 16):
                        wait_for_signal("pain", "saturation/files")
                    backend.delay_s = 0.0
                # Where the machine is slow as well, the server may have missed its probes: the story goes on when that is over.
                wait_until(lambda: last_kind("connections/files") in ("", "pleasure"), PHASE_S, "the server is reached again")
            # 4. The server is gone.
            with clients(gateway, 2):
                wait_for_signal("pain", "connections/files")
                replica = f"files/{backend.url}"

                def is_down() -> Any:
                    """In a cell that says why: the reason is that of its last probe, which a busy machine may have held up."""
                    found = component(gateway, replica, "unhealthy")
                    return found if found and "connect" in found["reason"].lower() else None

                down = wait_until(is_down, PHASE_S, "the replica is unhealthy")
                assert down["since"].endswith("Z")
                browser.wait_for("#backends", "unhealthy")
            with start_recording_backend(backend):
                # 5. It is back.
                wait_for_signal("pleasure", "connections/files")
                wait_until(lambda: component(gateway, replica, "healthy"), PHASE_S, "the replica is healthy")
                assert gateway.restart_count() == 0, gateway.log
                # 6. A cell is killed.
                assert gateway.admin("kill", "cell/1")[0] == 0
                wait_for_signal("pain", "restarts")
                browser.wait_for("#tree .restarted", "1")
                browser.wait_for("#events", "mcp.supervisor.restarted")
                browser.wait_for("#link", "live")
                picture = Path(os.environ.get("MCP_GATEWAY_SCREENSHOT", tmp_path / "dashboard.png"))
                with clients(gateway, 2):
                    time.sleep(float(os.environ.get("MCP_GATEWAY_SCREENSHOT_AFTER_S", "0")))
                    browser.screenshot(picture, full=False)
                assert picture.stat().st_size > 20_000
                # The timeline still says it, in its order, also that of a cell that has just come back.
                wait_until(lambda: in_order(story, signals(gateway)), PHASE_S, "the whole timeline")
                # What the events say.
                topics = [event["event_type"] for event in events(gateway)]
                assert in_order(
                    ["mcp.pool.exhausted", "mcp.replica.ejected", "mcp.replica.restored", "mcp.supervisor.restarted"], topics
                )
                # What the alerts say, and nobody else has said it in the gateway's name.
                wait_until(lambda: in_order(story, alerted(receiver.alerts)), 10, "all alerts")
                assert receiver.forged == 0
                assert {"mcp.health.failed", "mcp.health.recovered"} <= {each["type"] for each in receiver.alerts}
                # What the metrics say.
                assert gateway.metric_sum("mcp_gateway_algedonic_signals_total", kind="pain", source="latency/files") >= 1
                assert gateway.metric_sum("mcp_gateway_restarts_total", child="cell/1") == 1
                assert gateway.metric_sum("mcp_gateway_alerts_total", sink="webhook", outcome="delivered") >= len(story)


def usual_is_known(gateway: RunningGateway) -> Callable[[], bool]:
    def check() -> bool:
        measured = state(gateway)["viability"]["backends"]["files"]
        return measured["usual_p95_s"] is not None and len(measured["series"]["p95_s"]) >= 5

    return check


def component(gateway: RunningGateway, name: str, status: str) -> dict[str, str] | None:
    """What the judging cell says of a component, once it has this status."""
    for _ in range(8):  # each question reaches one cell or the other
        found: dict[str, str] = gateway.health()["components"].get(name, {})
        if found.get("status") != status:
            return None
    return found


def events(gateway: RunningGateway) -> list[dict[str, Any]]:
    """Every event that the log still has, by the gateway's own stream."""
    stream = urllib.request.Request(f"{gateway.url}/mcp/sse/events/mcp.*", headers={"Last-Event-ID": "0"})
    found: list[dict[str, Any]] = []
    last_id = max(event["id"] for event in state(gateway)["events"] if event["event_type"].startswith("mcp."))
    with urllib.request.urlopen(stream, timeout=10) as answer:
        event_id = 0
        for line in answer:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name == "id":
                event_id = int(value)
            elif name == "data" and "event_type" in value:
                found.append(json.loads(value))
                if event_id >= last_id:
                    break
    return found


def alerted(alerts: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(each["type"].rpartition(".")[2], each["data"].get("source", "")) for each in alerts]


def in_order(wanted: list[Any], found: list[Any]) -> bool:
    """Whether the wanted ones are among those found, in this order."""
    rest = iter(found)
    return all(each in rest for each in wanted)
