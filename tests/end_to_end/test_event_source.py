"""The seed document's EventSource example in a real browser, as it stands there, through restarts of the gateway."""

from __future__ import annotations

import json
import signal
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.gateway_process import GatewayProcess, wait_until
from tests.doubles.ports import free_port
from tests.node.browser import Browser

pytestmark = pytest.mark.node_js

EXAMPLE = """
// Client-side JavaScript
const eventSource = new EventSource('/mcp/sse/events/all');

eventSource.onmessage = (event) => {
  const data = JSON.parse(event.data);
  console.log('Received:', data);
};

eventSource.addEventListener('vsm_event', (event) => {
  const vsmData = JSON.parse(event.data);
  console.log('VSM Event:', vsmData);
});
"""
RECORD = """
console.log = (text, data) => (window.told ??= []).push([text, data]);
"""
BACKEND = '[[backends]]\nname = "demo"\nprefix = ""\nbuiltin = "demo"\n'


class Gateway:
    """A gateway that can be ended and started again on the same port."""

    def __init__(self, directory: Path, form: str) -> None:
        self._directory = directory
        self._form = form
        self._port = free_port()
        self._next_number = 0
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> GatewayProcess:
        cells = 2 if self._form == "two cells" else 1
        settings = f"[gateway]\ncells = {cells}\ndrain_timeout = 1.0\n{BACKEND}"
        arguments = ["--port", str(self._port), *(["--embedded"] if self._form == "embedded" else [])]
        return GatewayProcess(
            self._directory / "state", *arguments, cell_factory="publishing_cell:make_cell", settings=settings
        ).__enter__()

    def publish(self, count: int) -> None:
        for _ in range(count):
            path = f"/publish?topic=client.numbers&n={self._next_number}"
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                assert json.load(answer)["id"] > 0
            self._next_number += 1


def paste(browser: Browser, script: str) -> None:
    """Run a script as part of the page."""
    element = f"Object.assign(document.createElement('script'), {{textContent: {json.dumps(script)}}})"
    browser.evaluate(f"document.documentElement.append({element})")


def told(browser: Browser, text: str) -> list[Any]:
    return [data for each, data in browser.evaluate("window.told ?? []") if each == text]


def numbers(browser: Browser) -> list[int]:
    events = told(browser, "VSM Event:")
    return [event["payload"]["n"] for event in events if event["event_type"] == "client.numbers"]


@pytest.mark.parametrize("form", ["embedded", "node", "two cells"])
def test_the_example_of_the_seed_reads_on_by_itself_when_the_gateway_is_started_again(
    form: str, tmp_path: Path, browser: Browser
) -> None:
    gateway = Gateway(tmp_path, form)
    running = gateway.start()
    try:
        # 1. Copy and paste.
        browser.open(f"{gateway.url}/health/live")
        browser.evaluate(RECORD)
        paste(browser, EXAMPLE)
        wait_until(lambda: browser.evaluate("eventSource.readyState") == 1, 10, "it is open")
        gateway.publish(10)
        wait_until(lambda: numbers(browser) == list(range(10)), 10, "ten events are told")

        # 2. An orderly restart and a violent one; more is published before the browser is back.
        for number in (signal.SIGTERM, signal.SIGKILL):
            running.end(number)
            running.__exit__()
            running = gateway.start()
            gateway.publish(10)
        gateway.publish(10)
        wait_until(lambda: len(numbers(browser)) >= 40, 15, "the browser has come back and read everything")

        # 3. Every event once, in order; nothing that has no name.
        assert numbers(browser) == list(range(40))
        assert told(browser, "Received:") == []
        assert browser.evaluate("eventSource.readyState") == 1
        topics = {event["event_type"] for event in told(browser, "VSM Event:")}
        assert "mcp.transport.started" in topics  # of the gateways that were started meanwhile
        assert all(set(event) == {"event_type", "payload", "timestamp"} for event in told(browser, "VSM Event:"))
    finally:
        running.__exit__()


def test_a_page_can_ask_for_the_past_in_the_address(tmp_path: Path, browser: Browser) -> None:
    gateway = Gateway(tmp_path, "embedded")
    running = gateway.start()
    try:
        gateway.publish(5)
        browser.open(f"{gateway.url}/health/live")
        browser.evaluate(RECORD)
        paste(browser, EXAMPLE.replace("events/all", "events/client.*?lastEventId=0"))
        wait_until(lambda: len(numbers(browser)) >= 5, 10, "the past is told")
        gateway.publish(5)
        wait_until(lambda: len(numbers(browser)) >= 10, 10, "the present is told")
        running.end()
        running.__exit__()
        running = gateway.start()
        gateway.publish(5)
        wait_until(lambda: len(numbers(browser)) >= 15, 15, "the browser has come back")
        assert numbers(browser) == list(range(15))  # the address still asks for all of the past; the browser's own header wins
    finally:
        running.__exit__()


def test_heartbeats_reach_who_asks_for_them(tmp_path: Path, browser: Browser) -> None:
    settings = f"[transports.http_sse]\nheartbeat_interval = 0.2\n{BACKEND}"
    with GatewayProcess(tmp_path / "state", "--embedded", cell_factory=None, settings=settings) as gateway:
        browser.open(f"{gateway.url}/health/live")
        browser.evaluate("window.beats = 0; source = new EventSource('/mcp/sse/events/vsm.*')")
        browser.evaluate("source.addEventListener('heartbeat', () => window.beats += 1), null")
        wait_until(lambda: browser.evaluate("window.beats") >= 3, 10, "heartbeats are told")
