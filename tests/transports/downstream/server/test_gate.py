"""Who is let in: found out before any endpoint sees a request, over every transport alike."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest

from mcp_gateway.actors.cell import audit_trail
from mcp_gateway.actors.storage.audit_file import FILE_NAME
from mcp_gateway.transports.downstream.server import gate as gate_module
from mcp_gateway.transports.ports.authenticator import Credential, CredentialKind
from mcp_gateway.transports.ports.principal import Principal
from mcp_gateway.transports.telemetry import metrics
from tests.doubles.known_clients import ADA, AUTH, ISSUER, KnownClients, bearer, on_guarded_cell
from tests.doubles.patience import until
from tests.doubles.raw_http_client import INITIALIZE, Answer, RawClient
from tests.doubles.running_cell import RunningCell, cell_settings

UPGRADE = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec_WebSocket_Version": "13", "Sec_WebSocket_Key": "A" * 22 + "=="}
CLIENTS = ["/mcp", "/mcp/servers/demo", "/mcp/sse/connect", "/sse", "/mcp/sse/events/client.a", "/mcp/ws", "/mcp/websocket", "/"]
OPERATORS = ["/metrics", "/health/history", "/metrics/dashboard", "/metrics/dashboard/state", "/metrics/dashboard/charts.js"]


@pytest.mark.parametrize("path", [*CLIENTS, *OPERATORS])
def test_who_says_nothing_of_itself_is_told_where_to_log_in(path: str) -> None:
    async def body(cell: RunningCell, _: KnownClients) -> None:
        async with RawClient(cell) as client:
            for headers in ({}, UPGRADE, {"Authorization": "Basic YTpi"}, {"X_Forwarded_User": "ada"}):
                answer = await client.ask("GET", path, **headers)
                assert (answer.status, answer.reason) == (401, "unauthorized")
                said = answer.headers["www-authenticate"]
                assert said.startswith(f'Bearer resource_metadata="http://127.0.0.1:{client.port}/.well-known/oauth-protected')
                assert "error" not in said
                assert f'scope="{"mcp-gateway:operate" if path in OPERATORS else "files:read files:write"}"' in said
        assert not any(cell.cell._server.connection_counts().values())

    on_guarded_cell(body, auth={"user_header": "X-Forwarded-User"}, gateway={"trusted_proxies": ["192.0.2.1"]})


@pytest.mark.parametrize("path", [*CLIENTS, *OPERATORS])
def test_a_token_that_nobody_knows_is_told_so(path: str) -> None:
    async def body(cell: RunningCell, _: KnownClients) -> None:
        async with RawClient(cell) as client:
            for headers in (bearer("forged"), {**bearer("forged"), **UPGRADE}):
                answer = await client.ask("GET", path, **headers)
                assert (answer.status, answer.reason) == (401, "unauthorized")
                assert 'error="invalid_token"' in answer.headers["www-authenticate"]

    on_guarded_cell(body)


def test_a_refusal_has_the_id_of_its_request() -> None:
    async def body(cell: RunningCell, _: KnownClients) -> None:
        async with RawClient(cell) as client:
            for headers in ({}, bearer("forged")):
                answer = await client.ask("POST", "/mcp", INITIALIZE, **headers)
                assert (answer.status, json.loads(answer.body)["id"]) == (401, 1)

    on_guarded_cell(body)


def test_a_token_in_the_address_is_refused_with_a_challenge() -> None:
    async def body(cell: RunningCell, _: KnownClients) -> None:
        async with RawClient(cell) as client:
            answer = await client.ask("POST", "/mcp?access_token=ada", INITIALIZE, **bearer("ada"))
            assert (answer.status, answer.reason) == (400, "invalid_request")
            assert 'error="invalid_request"' in answer.headers["www-authenticate"]

    on_guarded_cell(body)


def test_what_a_load_balancer_asks_is_answered_to_everybody_and_what_is_wrong_to_operators() -> None:
    async def body(cell: RunningCell, _: KnownClients) -> None:
        async with RawClient(cell) as client:
            assert (await client.ask("GET", "/health/live", **bearer("forged"))).status == 200
            assert (await client.ask("GET", "/health/ready")).status == 200
            for headers in ({}, bearer("ada")):
                assert json.loads((await client.ask("GET", "/health", **headers)).body).keys() == {"status"}
            assert "components" in json.loads((await client.ask("GET", "/health", **bearer("ops"))).body)

    on_guarded_cell(body)


@pytest.mark.parametrize("path", OPERATORS)
def test_what_operators_look_at_wants_their_scope(path: str) -> None:
    async def body(cell: RunningCell, _: KnownClients) -> None:
        async with RawClient(cell) as client:
            answer = await client.ask("GET", path, **bearer("bob"))
            assert (answer.status, answer.reason) == (403, "insufficient_scope")
            assert json.loads(answer.body)["error"]["data"]["scopes"] == ["mcp-gateway:operate"]
            said = answer.headers["www-authenticate"]
            assert 'error="insufficient_scope"' in said
            assert 'scope="mcp-gateway:operate files:read"' in said, "with what Bob has, which he would lose otherwise"
            assert (await client.ask("GET", path, **bearer("ops"))).status == 200

    on_guarded_cell(body)


def test_everybody_who_is_known_is_an_operator_where_no_scope_makes_one() -> None:
    async def body(cell: RunningCell, _: KnownClients) -> None:
        async with RawClient(cell) as client:
            assert (await client.ask("GET", "/metrics", **bearer("ada"))).status == 200
            assert (await client.ask("GET", "/metrics")).status == 401

    on_guarded_cell(body, auth={"operator_scope": ""})


def test_where_it_is_optional_nobody_in_particular_is_served_and_a_wrong_token_is_not() -> None:
    async def body(cell: RunningCell, _: KnownClients) -> None:
        async with RawClient(cell) as client:
            assert (await client.ask("POST", "/mcp", INITIALIZE)).status == 200
            assert (await client.ask("POST", "/mcp", INITIALIZE, **bearer("ada"))).status == 200
            assert (await client.ask("POST", "/mcp", INITIALIZE, **bearer("forged"))).status == 401
            assert (await client.ask("GET", "/metrics")).status == 401

    on_guarded_cell(body, auth={"mode": "optional"})


def test_a_preflight_is_answered_and_a_page_may_read_the_challenge() -> None:
    """A browser sends no credential with it. Source: WHATWG Fetch, "CORS-preflight fetch"."""

    async def body(cell: RunningCell, _: KnownClients) -> None:
        page = {"Origin": "http://localhost:3000"}
        async with RawClient(cell) as client:
            answer = await client.ask("OPTIONS", "/mcp", Access_Control_Request_Headers="authorization", **page)
            assert answer.status == 204
            assert "authorization" in answer.headers["access-control-allow-headers"].lower()
            answer = await client.ask("POST", "/mcp", INITIALIZE, **page)
            assert answer.status == 401
            assert "WWW-Authenticate" in answer.headers["access-control-expose-headers"]

    on_guarded_cell(body)


def test_a_client_is_asked_about_once_and_remembered() -> None:
    async def body(cell: RunningCell, clients: KnownClients) -> None:
        async with RawClient(cell) as client:
            for _ in range(3):
                assert (await client.ask("POST", "/mcp", INITIALIZE, **bearer("ada"))).status == 200
        assert clients.asked == [Credential(kind=CredentialKind.BEARER, value="ada")]

    on_guarded_cell(body)


def test_a_user_is_who_the_trusted_proxy_says() -> None:
    async def body(cell: RunningCell, clients: KnownClients) -> None:
        clients.tokens["carol"] = Principal(issuer="proxy", subject="carol")
        async with RawClient(cell) as client:
            answer = await client.ask("POST", "/mcp", INITIALIZE, X_User="carol", X_Groups="a,b")
            assert answer.status == 200
        assert clients.asked == [Credential(kind=CredentialKind.PROXY, value="carol", groups=("a", "b"))]

    proxied = {"user_header": "X-User", "groups_header": "x-groups"}
    on_guarded_cell(body, auth=proxied, gateway={"trusted_proxies": ["127.0.0.1"]})


def test_a_principal_has_its_own_share_wherever_it_comes_from() -> None:
    """Programs behind one address are told apart; one that comes from many addresses has no more."""

    async def body(cell: RunningCell, _: KnownClients) -> None:
        async with AsyncExitStack() as stack:
            for number in range(4):
                client = await stack.enter_async_context(RawClient(cell, f"127.0.0.{number + 1}"))
                answer = await client.ask("GET", "/mcp/sse/events/client.a", **bearer("ada"))
                assert answer.status == 200
            client = await stack.enter_async_context(RawClient(cell, "127.0.0.9"))
            refused = await client.ask("GET", "/mcp/sse/events/client.a", **bearer("ada-later"))
            assert (refused.status, refused.reason) == (503, "too_many_connections")
            assert (await client.ask("GET", "/mcp/sse/events/client.a", **bearer("bob"))).status == 200

    on_guarded_cell(body, transports={"http_sse": {"max_connections": 16}})


def test_settings_that_are_read_anew_hold_at_once() -> None:
    async def body(cell: RunningCell, _: KnownClients) -> None:
        async with RawClient(cell) as client:
            assert (await client.ask("GET", "/metrics", **bearer("bob"))).status == 403
            assert cell.settings.auth is not None
            auth = attrs.evolve(cell.settings.auth, operator_scope="files:read")
            cell.cell.apply_settings(attrs.evolve(cell.settings, auth=auth))
            assert (await client.ask("GET", "/metrics", **bearer("bob"))).status == 200
            cell.cell.apply_settings(attrs.evolve(cell.settings, auth=None))
            assert (await client.ask("GET", "/metrics")).status == 401, "whether there is a gate is decided at the start"

    on_guarded_cell(body)


# ---- waiting for whoever knows


def test_a_client_that_leaves_while_it_is_found_out_about_is_forgotten() -> None:
    async def body(cell: RunningCell, clients: KnownClients) -> None:
        clients.is_answering.clear()
        async with RawClient(cell) as client:
            client.start("POST", "/mcp", len(INITIALIZE), **bearer("ada"))
            client.writer.write(INITIALIZE)
            await until(lambda: clients.asked)
        gate = cell.cell._server.gate
        assert gate is not None
        await until(lambda: len(gate._left) == 1)
        clients.is_answering.set()
        await until(lambda: gate._waiting.held == 0 and not gate._tasks and not gate._left)
        assert not cell.cell._port.waiting
        assert len(cell.cell._port.sessions) == 0

    on_guarded_cell(body)


def test_a_client_that_leaves_as_it_becomes_known_is_not_served() -> None:
    """Nobody would tell its handler that it has gone."""

    class Leaving(KnownClients):
        async def authenticate(self, credential: Credential) -> Principal:
            found = await super().authenticate(credential)
            asyncio.get_running_loop().call_soon(lambda: gone[-1]())  # after the answer, before who waits for it goes on
            return found

    async def run() -> None:
        settings = cell_settings(auth=AUTH)
        gate = gate_module.Gate(settings, Leaving(), None, lambda _: False, lambda _, work: work())
        incoming: Any = SimpleNamespace(
            headers={"Authorization": "Bearer ada"}, query="", peer="", remote_ip="", body=b"", on_client_gone=gone.append
        )
        gate.admit(incoming, gate_module.Access.CLIENTS, False, served.append)
        await gate._tasks.wait()
        await asyncio.sleep(0)
        assert (served, gate._waiting.held, gate._left) == ([], 0, set())

    gone: list[Any] = []
    served: list[Any] = []
    asyncio.run(run())


def test_no_more_of_an_address_wait_at_once_than_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "_MOST_WAITING", 16)

    async def body(cell: RunningCell, clients: KnownClients) -> None:
        clients.is_answering.clear()
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(asked(cell)) for _ in range(4)]
            await until(lambda: len(clients.asked) == 4)
            assert (await asked(cell)).reason == "too_many_connections"
            clients.is_answering.set()
        assert [each.result().status for each in waiting] == [200] * 4
        assert (await asked(cell)).status == 200

    async def asked(cell: RunningCell) -> Answer:
        async with RawClient(cell) as client:
            return await client.ask("POST", "/mcp", INITIALIZE, **bearer("ada"))

    on_guarded_cell(body)


def test_who_leaves_at_once_has_no_more_found_out_than_who_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attack: made-up tokens over connections that are closed at once, while an issuer is slow: what was begun goes on."""
    monkeypatch.setattr(gate_module, "_MOST_WAITING", 16)

    async def body(cell: RunningCell, clients: KnownClients) -> None:
        clients.is_answering.clear()
        gate = cell.cell._server.gate
        assert gate is not None
        for count in range(1, 5):
            async with RawClient(cell) as client:
                client.start("POST", "/mcp", len(INITIALIZE), **bearer("ada"))
                client.writer.write(INITIALIZE)
                await until(lambda: len(clients.asked) == count)  # noqa: B023
            await until(lambda: len(gate._left) == count)  # noqa: B023
        async with RawClient(cell) as client:
            assert (await client.ask("POST", "/mcp", INITIALIZE, **bearer("ada"))).reason == "too_many_connections"
        clients.is_answering.set()
        await until(lambda: gate._waiting.held == 0)

    on_guarded_cell(body)


def test_a_client_does_not_wait_for_ever_for_whoever_should_know_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "_PATIENCE_S", 0.05)

    async def body(cell: RunningCell, clients: KnownClients) -> None:
        clients.is_answering.clear()
        async with RawClient(cell) as client:
            answer = await client.ask("POST", "/mcp", INITIALIZE, **bearer("ada"))
            assert (answer.status, answer.reason, json.loads(answer.body)["id"]) == (504, "upstream_timeout", 1)

    on_guarded_cell(body)


def test_an_upgrade_is_answered_once_its_client_is_known() -> None:
    async def body(cell: RunningCell, clients: KnownClients) -> None:
        for path in ("/mcp/ws", "/mcp/websocket"):
            clients.is_answering.clear()
            async with RawClient(cell) as client:
                client.start("GET", path, 0, **UPGRADE, **bearer("ada" if path == "/mcp/ws" else "ada-later"))
                await until(lambda: clients.asked)
                clients.is_answering.set()
                assert (await client.answer()).status == 101
            clients.asked.clear()

    on_guarded_cell(body)


def test_the_exchange_knows_who_asks() -> None:
    async def body(cell: RunningCell, _: KnownClients) -> None:
        opened = []
        port = cell.cell._port
        open_exchange = port.open

        def recorded(exchange, sink):  # type: ignore[no-untyped-def]
            opened.append(exchange)
            open_exchange(exchange, sink)

        port.open = recorded  # type: ignore[method-assign]
        async with RawClient(cell) as client:
            await client.ask("POST", "/mcp?user_id=bob", INITIALIZE, **bearer("ada"))
        assert opened[0].principal == ADA
        assert opened[0].hash_keys["user"] == opened[0].hash_keys["principal"] == f"{ISSUER} ada"

    on_guarded_cell(body)


def test_who_is_not_let_in_is_counted_and_noted_by_what_it_showed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Handshakes, tickets and pages of operators as well; of whom somebody knows, with who it is."""
    monkeypatch.setattr(audit_trail, "NOBODIES_A_MINUTE", 100)
    shown = [
        ("GET", "/mcp", {}, "nothing", "unauthorized", ""),
        ("GET", "/mcp/ws", {**UPGRADE, **bearer("forged")}, "bearer", "unauthorized", ""),
        ("GET", "/mcp/websocket?ticket=forged", UPGRADE, "ticket", "unauthorized", ""),
        ("GET", "/metrics", bearer("ada"), "bearer", "insufficient_scope", "ada"),
        ("GET", "/mcp", bearer("mallory"), "bearer", "unauthorized", "mallory"),
        ("GET", "/mcp?access_token=ada", {}, "nothing", "invalid_request", None),
    ]

    def counts() -> list[float]:
        return [metrics.logins_refused_total.labels(how, reason)._value.get() for _, _, _, how, reason, _ in shown]

    before = counts()

    async def body(cell: RunningCell, clients: KnownClients) -> None:
        clients.refused["mallory"] = Principal(issuer=ISSUER, subject="mallory")
        async with RawClient(cell) as client:
            for verb, path, headers, _, reason, _ in shown:
                answer = await client.ask(verb, path, **headers)
                assert answer.reason == reason, path

    on_guarded_cell(body, gateway={"state_dir": str(tmp_path)})
    grown = [now - then for now, then in zip(counts(), before, strict=True)]
    assert grown == [1, 2, 1, 1, 2, 1], "each once, two of them alike"
    entries = [json.loads(line) for line in (tmp_path / FILE_NAME).read_text().splitlines()]
    assert [(entry["shown"], entry["outcome"], entry["subject"]) for entry in entries] == [
        (how, reason, subject) for _, _, _, how, reason, subject in shown if subject is not None
    ]
    assert [entry["name"] for entry in entries] == ["/mcp", "/mcp/ws", "/mcp/websocket", "/metrics", "/mcp"]
