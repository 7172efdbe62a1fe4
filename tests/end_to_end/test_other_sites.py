"""What a page of another site gets of the gateway in a real browser, and what its people get by its links."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.conftest import StartGateway
from tests.end_to_end.running_gateway import RunningGateway, wait_until
from tests.node.browser import Browser

pytestmark = pytest.mark.node_js

DEMO = [{"name": "demo", "prefix": "", "builtin": "demo"}]
STREAMS = ["/mcp/sse/events/all", "/mcp/sse/connect", "/mcp", "/metrics", "/metrics/dashboard/state"]

EMBED = """(() => {
  const put = (kind, source) => document.body.append(Object.assign(document.createElement(kind), { src: source }));
  for (const path of %r) put("img", "%s" + path + "?img");
  put("iframe", "%s/metrics/dashboard?frame");
})()"""
OPEN_SOCKET = """new Promise(done => {
  const socket = new WebSocket("%s/mcp/ws", "mcp");
  socket.onopen = () => done("open");
  socket.onerror = () => done("refused");
})"""
OPEN_EVENTS = """new Promise(done => {
  const events = new EventSource("%s/mcp/sse/events/all");
  events.onopen = () => done("open");
  events.onerror = () => done("refused");
})"""


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"<!doctype html><title>a page</title><body><a id=link href='#'>the dashboard</a></body>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def serving_pages() -> Iterator[int]:
    """Serve a page at every name that leads here; gives the port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def gateway(start_gateway: StartGateway) -> Iterator[RunningGateway]:
    with start_gateway("embedded", DEMO) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def pages() -> Iterator[int]:
    with serving_pages() as port:
        yield port


def embed(browser: Browser, url: str) -> dict[str, int]:
    """Put the gateway's streams into the page as images, and its dashboard into a frame; the statuses by path."""
    browser.evaluate(EMBED % (STREAMS, url, url))
    wanted = [*(f"{url}{path}?img" for path in STREAMS), f"{url}/metrics/dashboard?frame"]

    def are_answered() -> bool:
        return set(wanted) <= browser.answered().keys()

    wait_until(are_answered, 20, "answers to what is embedded")
    return {address: browser.answered()[address] for address in wanted}


def test_a_page_of_another_site_opens_no_stream_and_frames_nothing(gateway: RunningGateway, pages: int, browser: Browser) -> None:
    browser.open(f"http://evil.localhost:{pages}/")
    assert set(embed(browser, gateway.url).values()) == {403}
    assert browser.evaluate(OPEN_SOCKET % gateway.url.replace("http", "ws")) == "refused"
    assert browser.evaluate(OPEN_EVENTS % gateway.url) == "refused"


def test_a_page_of_another_port_of_this_machine_connects_by_its_origin_and_embeds_nothing(
    gateway: RunningGateway, pages: int, browser: Browser
) -> None:
    """Contract: localhost is an allowed origin. The site is the same where the name is: ports make no difference to it."""
    for name in ("127.0.0.1", "localhost"):
        browser.open(f"http://{name}:{pages}/")
        assert set(embed(browser, gateway.url).values()) == {403}
        assert browser.evaluate(OPEN_SOCKET % gateway.url.replace("http", "ws")) == "open"
        assert browser.evaluate(OPEN_EVENTS % gateway.url) == "open"


def test_a_link_of_another_site_leads_to_a_dashboard_that_works(gateway: RunningGateway, pages: int, browser: Browser) -> None:
    browser.open(f"http://evil.localhost:{pages}/")
    browser.evaluate(f"document.getElementById('link').href = '{gateway.url}/metrics/dashboard'")
    browser.click("#link")
    browser.wait_for("#link", "live")
    browser.open(f"{gateway.url}/")
    browser.wait_for("h1", "mcp-gateway")
