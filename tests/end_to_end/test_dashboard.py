"""The dashboard in a real browser, on a real gateway: live, lost and found, filtered, dark, on a phone, and after a day."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import StartGateway
from tests.end_to_end.raw_http import ask_modern, tool_call
from tests.end_to_end.running_gateway import RunningGateway, wait_until
from tests.node.browser import Browser, start_browser

pytestmark = pytest.mark.node_js

BACKENDS = [{"name": "demo", "builtin": "demo"}, {"name": "gone", "replicas": ["http://127.0.0.1:9/mcp"]}]
NOTES_A_LOSS = """
void (window.noted = new Promise(resolve => {
    const lost = document.getElementById('lost');
    new MutationObserver(() => {
        if (!lost.hidden) resolve([lost.textContent, document.getElementById('link').textContent]);
    }).observe(lost, { attributes: true });
    setInterval(refresh, 50);
}))
"""
"""What the page says when the gateway is lost, however soon it is found again; it asks all the time, so that it finds out."""
SYSTEMS = ["Operations", "Coordination", "Control", "Audit", "Intelligence", "Policy"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with start_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def gateway(start_gateway: StartGateway) -> Iterator[RunningGateway]:
    with start_gateway("two cells", BACKENDS, gateway={"health_check_interval": 0.5}, expects_errors=True) as gateway:
        yield gateway


def page_of(gateway: RunningGateway) -> str:
    return f"{gateway.url}/metrics/dashboard"


def cell_pid(gateway: RunningGateway, name: str) -> int:
    """The process that calls itself by this name."""
    for each in gateway.processes():
        with contextlib.suppress(psutil.NoSuchProcess):  # also of a zombie
            if each.cmdline()[:1] == [f"mcp-gateway: {name}"]:
                return each.pid
    raise AssertionError(f"there is no {name}")


def test_the_page_shows_the_node_and_asks_nobody_else(gateway: RunningGateway, browser: Browser) -> None:
    browser.open(page_of(gateway))
    browser.wait_for("#verdict", "Failing")  # of two backends, one is not there
    browser.wait_for("#aches", "connections/gone")
    for name in SYSTEMS:
        browser.wait_for("#systems", name)
    browser.wait_for("#backends", "http://127.0.0.1:9/mcp")
    browser.wait_for("#tree", "cell/1/health-monitor")
    browser.wait_for("#link", "live")
    browser.wait_for("#signals", "connections/gone")
    assert browser.problems() == []
    assert {url.startswith((gateway.url, "data:")) for url in browser.requested()} == {True}


def test_what_clients_do_and_what_happens_inside_appear_by_themselves(gateway: RunningGateway, browser: Browser) -> None:
    browser.open(page_of(gateway))
    browser.wait_for("#link", "live")

    # 1. Traffic, for as long as it takes: the page shows what is now, and may look away while a burst passes.
    def is_seen() -> bool:
        for _ in range(30):
            assert ask_modern(gateway.endpoint("demo"), tool_call("echo", {"message": "hi"})).status == 200
        return not browser.text("#systems article dd").startswith("0.0/s")

    try:
        wait_until(is_seen, 10, "requests per second")
    except AssertionError:
        with urllib.request.urlopen(f"{gateway.url}/metrics/dashboard/state", timeout=10) as state:
            print(f"page: {browser.text('#link')}, {browser.text('#facts')}\nstate: {state.read()!r}\nlog: {gateway.log}")
        raise
    # 2. A process dies.
    os.kill(cell_pid(gateway, "cell/1"), signal.SIGKILL)
    browser.wait_for("#events", "mcp.supervisor.restarted")
    browser.wait_for("#aches", "restarts")
    browser.wait_for("#tree .restarted", "1")
    assert browser.problems() == [] or all("net::ERR" in problem for problem in browser.problems())


def test_calls_can_be_looked_through_and_one_followed_into_the_log(gateway: RunningGateway, browser: Browser) -> None:
    browser.open(page_of(gateway))
    browser.wait_for("#link", "live")
    refused = ask_modern(gateway.endpoint("gone"), tool_call("lost", {}))
    assert ask_modern(gateway.endpoint("demo"), tool_call("echo", {"message": "hi"})).status == 200
    browser.wait_for_all(("#calls", "lost"), ("#calls", "echo"), ("#calls", "127.0.0.1"))
    name = refused.message["error"]["data"]["request_id"]
    browser.fill("#call-filter", "LOST")
    assert " of " in browser.text("#calls-shown")
    assert "echo" not in browser.text("#calls")
    browser.click("#calls .follow")
    browser.wait_for("#followed", f"mcp-gateway logs --request '{name}'")
    assert name in gateway.log
    browser.fill("#call-filter", "nothing has this in it")
    browser.wait_for("#no-calls", "No call matches the filter.")


def test_events_can_be_filtered_and_held(gateway: RunningGateway, browser: Browser) -> None:
    browser.open(page_of(gateway))
    browser.wait_for("#events", "mcp.transport.registered")
    browser.fill("#filter", "REPLICA.ejected")
    browser.wait_for("#events", "mcp.replica.ejected")
    topics = browser.evaluate("[...document.querySelectorAll('#events td:nth-child(2)')].map(cell => cell.textContent)")
    assert set(topics) == {"mcp.replica.ejected"}
    assert " of " in browser.text("#shown")
    browser.fill("#filter", "nothing has this in it")
    browser.wait_for("#no-events", "No event matches the filter.")
    browser.fill("#filter", "")
    browser.click("#pause")
    shown = browser.evaluate("document.querySelectorAll('#events tr').length")
    browser.evaluate("takeEvent(1e9, {event_type: 'client.test', payload: {}, timestamp: Date.now()}); showEvents()")
    assert browser.evaluate("document.querySelectorAll('#events tr').length") == shown
    browser.click("#pause")
    browser.wait_for("#events", "client.test")


def test_the_page_says_that_it_has_lost_the_gateway_and_catches_up_when_it_is_back(
    start_gateway: StartGateway, browser: Browser
) -> None:
    with start_gateway("node", BACKENDS[:1], expects_errors=True) as gateway:
        browser.open(page_of(gateway))
        browser.wait_for("#verdict", "Viable")
        # 1. The cell hangs, and is killed by its supervisor: another one may be there a moment later.
        browser.evaluate(NOTES_A_LOSS)
        os.kill(cell_pid(gateway, "cell/0"), signal.SIGSTOP)
        lost, link = browser.evaluate("noted")
        assert lost.startswith("The gateway has not answered since")
        assert link == "lost"
        # 2. Another one takes its place, and the page has what happened meanwhile.
        browser.wait_for("#link", "live again after", 30)
        browser.wait_for("#events", "mcp.supervisor.restarted")
        browser.wait_for("#tree", "cell/0/edge")
        assert browser.evaluate("document.getElementById('lost').hidden") is True
        # 3. The stream is live again as well.
        psutil.Process(cell_pid(gateway, "event-log")).kill()
        browser.wait_for("#events", "event-log", 20)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")])
def test_everybody_can_read_it(gateway: RunningGateway, browser: Browser, width: int, scheme: str) -> None:
    """axe-core has nothing serious to say, nothing is cut off, and dark is dark."""
    browser.open(page_of(gateway), width=width, scheme=scheme)
    browser.wait_for("#aches", "connections/gone")
    browser.wait_for("#events", "mcp.")
    assert [found for found in browser.axe() if found["impact"] in ("serious", "critical")] == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    brightness = browser.evaluate("Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])")
    assert (brightness < 60) is (scheme == "dark")


def test_the_keyboard_reaches_everything_that_can_be_used(gateway: RunningGateway, browser: Browser) -> None:
    browser.open(page_of(gateway))
    browser.wait_for("#events", "mcp.")
    reached = []
    for _ in range(12):
        browser.press("Tab")
        reached.append(browser.evaluate("document.activeElement.id || document.activeElement.className"))
    assert reached[0] == "skip"
    assert {"filter", "pause", "tail", "call-filter", "load-tools"} <= set(reached)


def test_a_day_on_the_wall_costs_no_more_memory_than_an_hour(gateway: RunningGateway, browser: Browser) -> None:
    """A day in fast motion: a snapshot for every five minutes, fifty events for each."""
    browser.open(page_of(gateway))
    browser.wait_for("#aches", "connections/gone")
    browser.evaluate("clearTimeout(view.timer), view.isFetching = true, stream.close(), 0")
    hours = """async hours => {
        for (let step = 0; step < hours * 12; step += 1) {
            const state = structuredClone(view.state);
            state.at = view.state.at + step * 300000;
            for (let count = 0; count < 50; count += 1) {
                view.fast = (view.fast || 1000000) + 1;
                const topic = count % 2 ? 'vsm.algedonic.pain' : 'mcp.replica.ejected';
                const payload = { source: `errors/b${view.fast % 7}`, intensity: 0.5, reason: 'in fast motion', since: state.at };
                takeEvent(view.fast, { event_type: topic, payload, timestamp: state.at });
            }
            show(state);
        }
        return document.getElementsByTagName('*').length;
    }"""
    elements_after_an_hour = browser.evaluate(f"({hours})(1)")
    bytes_after_an_hour = browser.heap_bytes()
    elements_after_a_day = browser.evaluate(f"({hours})(23)")
    assert elements_after_a_day <= elements_after_an_hour * 1.1
    assert browser.heap_bytes() <= bytes_after_an_hour * 1.25


def test_the_page_is_protected_and_cached_by_its_content(gateway: RunningGateway) -> None:
    with urllib.request.urlopen(page_of(gateway)) as answer:
        policy, tag = answer.headers["Content-Security-Policy"], answer.headers["ETag"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    again = urllib.request.Request(page_of(gateway), headers={"If-None-Match": tag})
    with pytest.raises(urllib.error.HTTPError) as found:
        urllib.request.urlopen(again)
    assert found.value.code == 304


def test_every_file_of_the_page_is_in_the_package() -> None:
    folder = Path(__file__).parents[2] / "transports" / "downstream" / "operators" / "dashboard"
    page = (folder / "index.html").read_text()
    assert {f"/metrics/dashboard/{path.name}" in page for path in folder.iterdir() if path.name != "index.html"} == {True}
    assert "http:" not in page
    assert "https:" not in page


def test_an_operator_logs_in_and_out_with_a_browser(browser: Browser, start_gateway: StartGateway) -> None:
    key = "key-of-an-operator-0123456789"
    keys = [{"name": "ops", "hash": f"sha256:{hashlib.sha256(key.encode()).hexdigest()}", "scopes": ["mcp-gateway:operate"]}]
    with start_gateway("two cells", BACKENDS[:1], auth={"api_keys": keys}) as gateway:
        # 1. Whoever is not known is led to the form, and a wrong key back to it.
        browser.open(page_of(gateway))
        browser.wait_for("h1", "Log in")
        browser.fill("input[name=credential]", "a-wrong-key")
        browser.click("form button")
        browser.wait_for("[role=alert]", "This did not work")
        # 2. The right one leads to the dashboard, which lives; no script can read what it was let in by.
        browser.fill("input[name=credential]", key)
        browser.click("form button")
        browser.wait_for("#link", "live")
        browser.wait_for("#tree", "cell/1/health-monitor")
        assert browser.evaluate("document.cookie") == ""
        # 3. And out again.
        browser.open(f"{gateway.url}/metrics/login")
        browser.click("form:last-of-type button")
        browser.wait_for("h1", "Log in")
        browser.open(page_of(gateway))
        browser.wait_for("h1", "Log in")
