"""What an issuer reads that says that somebody has been logged out."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from mcp_gateway.transports.downstream.server import logout_endpoint
from mcp_gateway.transports.downstream.server.logout_endpoint import LOGOUT_PATH
from tests.doubles.raw_http_client import PING, Answer, RawClient, on_cell
from tests.doubles.running_cell import RunningCell
from tests.doubles.tokens import ISSUER, PUBLIC_URL, IssuerKey, jwks, logout_claims

KEY = IssuerKey.make("k")
JSON = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


def on_cell_of(tmp_path: Path, body: Callable[[RunningCell], Awaitable[None]], **issuer: Any) -> None:
    (tmp_path / "keys.json").write_bytes(jwks(KEY))
    table = {"issuer": ISSUER, "jwks_file": str(tmp_path / "keys.json"), "logout_audience": "gateway", **issuer}
    on_cell(body, auth={"issuers": [table]}, gateway={"public_url": PUBLIC_URL, "max_message_bytes": 65_536})


def logout_token(**claims: Any) -> str:
    return KEY.token({**logout_claims(time.time()), **claims}, {"typ": "logout+jwt"})


async def said(client: RawClient, *tokens: str, field: str = "logout_token") -> Answer:
    form = urlencode([(field, token) for token in tokens]).encode()
    return await client.ask("POST", LOGOUT_PATH, form, Content_Type="application/x-www-form-urlencoded")


async def ping(client: RawClient, token: str) -> int:
    return (await client.ask("POST", "/mcp", PING, Authorization=f"Bearer {token}", **JSON)).status


def test_whoever_is_logged_out_is_nobody_when_the_issuer_reads_so_and_logs_in_again(tmp_path: Path) -> None:
    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            now_s = time.time()
            alice, later, bob = (KEY.token(claims) for claims in ({}, {"iat": now_s + 5}, {"sub": "bob"}))
            assert 401 not in [await ping(client, token) for token in (alice, bob)]
            answer = await said(client, logout_token())
            assert (answer.status, answer.body, answer.headers["cache-control"]) == (200, b"", "no-store")
            assert await ping(client, alice) == 401
            assert 401 not in [await ping(client, token) for token in (later, bob)]
            again = await said(client, logout_token())
            assert again.status == 400
            assert json.loads(again.body)["error"] == "invalid_request"
            assert "used before" in json.loads(again.body)["error_description"]

    on_cell_of(tmp_path, body)


def test_what_is_no_logout_token_of_an_issuer_logs_nobody_out(tmp_path: Path) -> None:
    """Source: OpenID Connect Back-Channel Logout 1.0, section 2.8."""

    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            access, forged = KEY.token(), IssuerKey.make("k").token(logout_claims(time.time()), {"typ": "logout+jwt"})
            assert await ping(client, access) != 401
            for tokens in ([], [access], [forged], [logout_token(), logout_token()], ["x"], ["é"], ["a.b.c"], ["x" * 20_000]):
                answer = await said(client, *tokens)
                assert (answer.status, json.loads(answer.body)["error"]) == (400, "invalid_request"), tokens
            assert (await said(client, logout_token(), field="token")).status == 400
            assert (await client.ask("GET", f"{LOGOUT_PATH}?logout_token={logout_token()}")).status == 405
            assert await ping(client, access) != 401

    on_cell_of(tmp_path, body)


def test_it_is_not_there_where_no_issuer_is_to_log_anybody_out(tmp_path: Path) -> None:
    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            assert (await said(client, logout_token())).status == 404

    on_cell_of(tmp_path, body, logout_audience="")


def test_a_token_that_is_older_than_logouts_are_known_for_is_not_taken(tmp_path: Path) -> None:
    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            now_s = time.time()
            assert await ping(client, KEY.token({"iat": now_s - 86_000})) != 401
            assert await ping(client, KEY.token({"iat": now_s - 87_000})) == 401
            assert await ping(client, KEY.token({"iat": None})) == 401

    on_cell_of(tmp_path, body)


def test_only_so_many_tokens_are_looked_at_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logout_endpoint, "MOST_AT_ONCE", 1)

    async def body(cell: RunningCell) -> None:
        begun, waits = asyncio.Event(), asyncio.Event()

        async def hold(*_: object) -> dict[str, Any]:
            begun.set()
            await waits.wait()
            return {"ok": True}

        monkeypatch.setattr(cell.link, "change", hold)
        async with RawClient(cell) as first, RawClient(cell) as second:
            waiting = asyncio.ensure_future(said(first, logout_token()))
            await begun.wait()
            refused = await said(second, logout_token())
            assert (refused.status, refused.reason) == (503, "too_many_connections")
            waits.set()
            assert (await waiting).status == 200
            assert (await said(second, logout_token(jti="other"))).status == 200

    on_cell_of(tmp_path, body)


@pytest.mark.parametrize(("answer", "status"), [({"error": "disk"}, 502), (TimeoutError(), 504), (RuntimeError("defect"), 500)])
def test_an_issuer_is_not_told_that_what_did_not_work_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Any, status: int
) -> None:
    async def body(cell: RunningCell) -> None:
        async def change(*_: object) -> dict[str, Any]:
            if isinstance(answer, Exception):
                raise answer
            return dict(answer)

        monkeypatch.setattr(cell.link, "change", change)
        async with RawClient(cell) as client:
            assert (await said(client, logout_token())).status == status

    on_cell_of(tmp_path, body)
