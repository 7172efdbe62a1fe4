"""An operator's browser logs in and out; nobody else's does, and the cookie opens no more than reading."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from mcp_gateway.transports.downstream.operators.login_page import LOGIN_PATH
from mcp_gateway.transports.downstream.server.operator_cookies import COOKIE
from tests.doubles.known_clients import OPERATOR, KnownClients, on_guarded_cell
from tests.doubles.raw_http_client import INITIALIZE, Answer, RawClient, on_cell
from tests.doubles.running_cell import RunningCell

PERSON = {"Accept": "text/html,*/*;q=0.8"}
FORM = {"Content_Type": "application/x-www-form-urlencoded"}


async def sent(client: RawClient, **fields: str) -> Answer:
    return await client.ask("POST", LOGIN_PATH, urlencode(fields).encode(), **FORM)


async def logged_in(client: RawClient) -> dict[str, str]:
    answer = await sent(client, credential=" ops ")
    assert (answer.status, answer.headers["location"]) == (303, "dashboard")
    cookie, _, attributes = answer.headers["set-cookie"].partition("; ")
    assert attributes == "Path=/metrics; HttpOnly; SameSite=Strict"
    assert "ops" not in cookie.removeprefix(COOKIE)
    return {"Cookie": cookie}


def test_a_person_is_led_to_the_form_and_back_and_reads_what_operators_read() -> None:
    async def body(cell: RunningCell, clients: KnownClients) -> None:
        async with RawClient(cell) as client:
            for shown in ({}, {"Authorization": "Bearer ada"}, {"Cookie": f"{COOKIE}=forged"}):
                led = await client.ask("GET", "/metrics/dashboard", **PERSON, **shown)
                assert (led.status, led.headers["location"]) == (303, f"http://127.0.0.1:{client.port}{LOGIN_PATH}")
            form = await client.ask("GET", LOGIN_PATH)
            assert form.status == 200
            assert "form-action 'self'" in form.headers["content-security-policy"]
            cookie = await logged_in(client)
            for path in ("/metrics/dashboard", "/metrics/dashboard/state", "/metrics"):
                answer = await client.ask("GET", path, **cookie)
                assert answer.status == 200, path
                assert answer.headers["cache-control"] in ("no-store", "no-cache"), "and no proxy keeps it for others"
            left = await sent(client, out="1")
            assert (left.status, left.headers["set-cookie"].partition(";")[0]) == (303, f"{COOKIE}=")
            clients.end(OPERATOR)
            assert (await client.ask("GET", "/metrics", **cookie)).status == 401, "who is revoked is so here as well"

    on_guarded_cell(body)


@pytest.mark.parametrize(("credential", "status"), [("", 400), ("a b", 400), ("forged", 401), ("ada", 403), ("x\r\ny", 400)])
def test_who_is_no_operator_reads_why_and_has_no_cookie(credential: str, status: int) -> None:
    async def body(cell: RunningCell, _: KnownClients) -> None:
        async with RawClient(cell) as client:
            answer = await sent(client, credential=credential)
            assert answer.status == status
            assert "set-cookie" not in answer.headers
            assert answer.headers["content-type"].startswith("text/html")
            assert b"This did not work" in answer.body
            assert (await client.ask("PUT", LOGIN_PATH)).status == 405

    on_guarded_cell(body)


def test_the_cookie_is_for_reading_operators_pages_and_nothing_else() -> None:
    """A page of another site could have it sent, where browsers do not know SameSite."""

    async def body(cell: RunningCell, _: KnownClients) -> None:
        async with RawClient(cell) as client:
            cookie = await logged_in(client)
            for verb, path in (
                ("POST", "/mcp"),
                ("GET", "/mcp/sse/connect"),
                ("POST", "/mcp/ticket"),
                ("POST", "/metrics"),
                ("GET", "/"),
            ):
                answer = await client.ask(verb, path, INITIALIZE if verb == "POST" else b"", **cookie)
                assert answer.status == 401, path
            for origin in ("https://evil.example", "null"):
                answer = await client.ask("POST", LOGIN_PATH, b"credential=ops", Origin=origin, **FORM)
                assert answer.status == 403, origin
                assert "set-cookie" not in answer.headers

    on_guarded_cell(body)


def test_where_nobody_is_known_there_is_no_login() -> None:
    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            assert (await client.ask("GET", LOGIN_PATH)).status == 404
            assert (await client.ask("GET", "/metrics/dashboard", **PERSON)).status == 200

    on_cell(body)
