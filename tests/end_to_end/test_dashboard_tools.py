"""Tools are tried from the dashboard: a form from the schema, the call as a client makes it, and words for what goes wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import StartGateway
from tests.end_to_end.running_gateway import RunningGateway
from tests.node.browser import Browser, start_browser

pytestmark = pytest.mark.node_js

BACKENDS = [{"name": "demo", "prefix": "", "builtin": "demo"}]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with start_browser() as browser:
        yield browser


@pytest.fixture(scope="module", params=["embedded", "node"])
def gateway(request: pytest.FixtureRequest, start_gateway: StartGateway) -> Iterator[RunningGateway]:
    with start_gateway(request.param, BACKENDS) as gateway:
        yield gateway


def choose(browser: Browser, tool: str) -> None:
    browser.evaluate(f"document.getElementById('tool').value = '{tool}', showForm()")


@pytest.fixture
def page(gateway: RunningGateway, browser: Browser) -> Browser:
    """The page with the list of tools open."""
    browser.open(f"{gateway.url}/metrics/dashboard")
    browser.wait_for("#link", "live")
    browser.click("#load-tools")
    browser.wait_for("#tool-said", "4 tools")
    return browser


def test_a_tool_is_called_with_the_arguments_of_its_form(page: Browser) -> None:
    choose(page, "echo")
    assert "Returns the message" in page.text("#tool-description")
    page.fill("#argument-message", "grüß dich\u202e")
    page.click("#call")
    page.wait_for("#tool-said", "Answered in")
    assert "grüß dich" in page.text("#tool-answer")
    assert page.problems() == []


def test_progress_is_shown_and_a_call_can_be_cancelled(page: Browser) -> None:
    choose(page, "slow")
    page.fill("#argument-seconds", "20")
    page.fill("#argument-steps", "100")
    page.click("#call")
    page.wait_for("#tool-said", " of ")
    assert page.evaluate("document.getElementById('call').disabled") is True
    page.click("#cancel")
    page.wait_for("#tool-said", "Cancelled.")
    assert page.evaluate("document.getElementById('call').disabled") is False


def test_a_tool_that_fails_and_a_refusal_are_told_apart(page: Browser) -> None:
    choose(page, "fail")
    page.fill("#argument-message", "no luck")
    page.click("#call")
    page.wait_for("#tool-said", "The tool says that it failed")
    assert "no luck" in page.text("#tool-answer")
    page.evaluate("trying.tools.get('fail').name = 'gone', 0")
    page.click("#call")
    page.wait_for("#tool-said", "Refused")
    assert "gone" in page.text("#tool-answer")


def test_what_is_no_json_is_not_sent(page: Browser) -> None:
    page.evaluate("trying.tools.get('echo').inputSchema.properties.message = {type: 'object'}, 0")
    choose(page, "echo")
    page.fill("#argument-message", "{half")
    page.click("#call")
    assert page.evaluate("document.getElementById('argument-message').validationMessage") == "This is not JSON."
    assert page.text("#tool-said") == "4 tools"


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_everybody_can_use_it(gateway: RunningGateway, browser: Browser, width: int, scheme: str) -> None:
    browser.open(f"{gateway.url}/metrics/dashboard", width=width, scheme=scheme)
    browser.wait_for("#link", "live")
    browser.click("#load-tools")
    browser.wait_for("#tool-said", "4 tools")
    browser.evaluate("showAnswer('what a tool says '.repeat(200), true)")
    assert [found for found in browser.axe() if found["impact"] in ("serious", "critical")] == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width


def test_where_the_gateway_asks_who_is_there_a_key_is_sent_and_kept_to_the_page(page: Browser) -> None:
    page.evaluate(
        """fetch = (ask => (url, how) => url === '/mcp' && how.headers.Authorization !== 'Bearer right'
            ? Promise.resolve(new Response('{"jsonrpc": "2.0", "id": null, "error": {}}', {status: 401}))
            : ask(url, how))(fetch), 0"""
    )
    page.click("#load-tools")
    page.wait_for("#tool-said", "The gateway asks who you are.")
    assert page.evaluate("document.activeElement.id") == "token"
    page.fill("#token", "right")
    page.evaluate("document.getElementById('token-field').requestSubmit()")
    page.wait_for("#tool-said", "4 tools")
    assert page.evaluate("JSON.stringify([localStorage.length, sessionStorage.length, document.cookie])") == '[0,0,""]'
