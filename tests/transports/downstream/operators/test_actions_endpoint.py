"""Who has something done from the dashboard: operators, from this gateway's own pages, with a proof; nobody else's page can."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcp_gateway.transports.downstream.operators.actions import LARGEST_BODY
from mcp_gateway.transports.downstream.operators.actions_endpoint import ACTIONS_PATH, PROOF_HEADER
from mcp_gateway.transports.downstream.operators.login_page import LOGIN_PATH
from mcp_gateway.transports.downstream.server.operator_cookies import COOKIE
from tests.doubles.known_clients import KnownClients, bearer, on_guarded_cell
from tests.doubles.raw_http_client import Answer, RawClient, on_cell
from tests.doubles.running_cell import RunningCell

DRAIN = json.dumps({"command": "drain", "name": "demo"}).encode()


def own_origin(client: RawClient) -> dict[str, str]:
    return {"Origin": f"http://127.0.0.1:{client.port}", "Sec-Fetch-Site": "same-origin"}


async def cookie_of(client: RawClient) -> dict[str, str]:
    answer = await client.ask("POST", LOGIN_PATH, b"credential=ops", Content_Type="application/x-www-form-urlencoded")
    return {"Cookie": answer.headers["set-cookie"].partition(";")[0]}


async def proof_of(client: RawClient, **headers: str) -> dict[str, str]:
    answer = await client.ask("GET", ACTIONS_PATH, **headers)
    assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
    return {PROOF_HEADER: json.loads(answer.body)["proof"]}


async def drained(client: RawClient, **headers: str) -> Answer:
    return await client.ask("POST", ACTIONS_PATH, DRAIN, **headers)


def is_draining(cell: RunningCell) -> bool:
    assert cell.link.settings is not None
    return cell.link.settings.backends[0].draining


def test_an_operators_page_acts_with_its_cookie_and_the_proof_of_that_cookie() -> None:
    async def body(cell: RunningCell, _: KnownClients) -> None:
        async with RawClient(cell) as client:
            cookie, others_cookie = await cookie_of(client), await cookie_of(client)
            proof, page = await proof_of(client, **cookie), own_origin(client)
            for wrong, reason in (
                ({**page, **proof}, "unauthorized"),
                ({**page, **cookie}, "forbidden"),
                ({**page, **cookie, PROOF_HEADER: "forged"}, "forbidden"),
                ({**page, **others_cookie, **proof}, "forbidden"),
                ({**cookie, **proof}, "origin_forbidden"),
                ({**cookie, **proof, "Origin": "https://evil.example"}, "origin_forbidden"),
                ({**cookie, **proof, "Origin": "null"}, "origin_forbidden"),
                ({**cookie, **proof, "Origin": "http://localhost:3000"}, "origin_forbidden"),
                ({**cookie, **proof, **page, "Sec-Fetch-Site": "same-site"}, "origin_forbidden"),
                ({**cookie, **proof, **page, "Host": "evil.example"}, "origin_forbidden"),
            ):
                refused = await drained(client, **wrong)
                assert (refused.status, refused.reason) == (401 if reason == "unauthorized" else 403, reason), wrong
            assert not is_draining(cell)
            done = await drained(client, **page, **cookie, **proof)
            assert (done.status, json.loads(done.body)) == (200, {"ok": True, "text": "demo takes nothing new now"})
            assert is_draining(cell)

    on_guarded_cell(body)


def test_a_token_of_an_operator_needs_no_proof_and_one_of_somebody_else_is_not_enough() -> None:
    async def body(cell: RunningCell, _: KnownClients) -> None:
        async with RawClient(cell) as client:
            assert (await drained(client, **bearer("ada"))).reason == "insufficient_scope"
            assert (await client.ask("GET", ACTIONS_PATH, **bearer("ada"))).reason == "insufficient_scope"
            assert (await drained(client, **bearer("ops"), Origin="https://evil.example")).reason == "origin_forbidden"
            assert not is_draining(cell)
            assert (await drained(client, **bearer("ops"))).status == 200
            assert is_draining(cell)

    on_guarded_cell(body)


def test_the_cookie_alone_still_does_nothing_elsewhere() -> None:
    async def body(cell: RunningCell, _: KnownClients) -> None:
        async with RawClient(cell) as client:
            cookie = await cookie_of(client)
            proof = await proof_of(client, **cookie)
            answer = await client.ask("POST", "/metrics", b"{}", **cookie, **proof, **own_origin(client))
            assert answer.reason == "unauthorized"
            assert COOKIE in cookie["Cookie"]

    on_guarded_cell(body)


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer anything"}])
def test_where_nobody_logs_in_it_takes_a_page_of_this_machine_and_its_proof(headers: dict[str, str]) -> None:
    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            page = own_origin(client)
            for wrong in (page, {**page, **headers}, headers):
                assert (await drained(client, **wrong)).status == 403, wrong
            elsewhere = {"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site"}
            assert (await client.ask("GET", ACTIONS_PATH, **elsewhere)).reason == "origin_forbidden"
            proof = await proof_of(client)
            through_a_proxy = {**page, **proof, "X-Forwarded-For": "192.0.2.7"}
            assert (await drained(client, **through_a_proxy)).reason == "forbidden"
            assert not is_draining(cell)
            assert (await drained(client, **page, **proof)).status == 200
            assert is_draining(cell)

    on_cell(body)


def test_what_cannot_be_done_and_what_is_no_action_are_told_apart() -> None:
    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            shown: dict[str, Any] = {**own_origin(client), **await proof_of(client)}
            unknown = json.dumps({"command": "drain", "name": "nobody"}).encode()
            refused = await client.ask("POST", ACTIONS_PATH, unknown, **shown)
            assert (refused.status, refused.reason, refused.headers["cache-control"]) == (409, "invalid_params", "no-store")
            assert "nobody" in json.loads(refused.body)["error"]["message"]
            assert (await client.ask("POST", ACTIONS_PATH, b"{}", **shown)).reason == "invalid_params"
            too_large = await client.ask("POST", ACTIONS_PATH, b" " * (LARGEST_BODY + 1), **shown)
            assert too_large.reason == "too_large"
            assert (await client.ask("DELETE", ACTIONS_PATH, **shown)).status == 405

    on_cell(body, gateway={"max_message_bytes": 100_000})
