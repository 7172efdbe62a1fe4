"""What stands at the root, for a browser and for a program."""

from __future__ import annotations

import asyncio
import json
import re

from tests.doubles.known_clients import AUTH, KnownClients, bearer
from tests.doubles.raw_http_client import RawClient, on_cell
from tests.doubles.running_cell import RunningCell, cell_settings, running_cell

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def test_a_program_reads_addresses_that_are_served() -> None:
    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            answer = await client.ask("GET", "/")
            assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
            found = json.loads(answer.body)
            assert found["name"] == "mcp-gateway"
            for address in found["addresses"]:
                scheme, path = re.fullmatch(rf"(\w+)://127\.0\.0\.1:{client.port}(/.*)", address["url"]).groups()  # type: ignore[union-attr]
                assert scheme == ("ws" if address["what"] == "WebSocket" else "http")
                assert (await client.ask("PUT", path)).status == 405, path  # served, though not by this method
            assert (await client.ask("POST", "/")).headers["allow"] == "GET"
            assert (await client.ask("HEAD", "/")).status == 200

    on_cell(body)


def test_behind_a_trusted_proxy_the_addresses_are_those_that_its_clients_write() -> None:
    async def body(cell: RunningCell) -> None:
        told = {"X_Forwarded_Proto": "https", "X_Forwarded_Host": "tools.example", "X_Forwarded_Prefix": "/ai"}
        gateway = cell.settings.gateway
        async with RawClient(cell) as client:
            plain = await client.ask("GET", "/", **told)
            page = await client.ask("GET", "/", Origin="https://tools.example", **told)
            rebound = await client.ask("GET", "/", Host="tools.example:4000", **told)
        if gateway.trusted_proxies and not gateway.allowed_hosts:
            assert (plain.status, plain.reason) == (403, "origin_forbidden")  # a name that somebody may have bound to the proxy
        else:
            is_told = json.loads(plain.body)["addresses"][0]["url"] == "https://tools.example/ai/mcp"
            assert is_told is bool(gateway.trusted_proxies)
        assert page.status == (200 if gateway.trusted_proxies and gateway.allowed_hosts else 403)
        assert rebound.status == 403

    on_cell(body, gateway={"trusted_proxies": ["127.0.0.0/8"], "allowed_hosts": ["tools.example:443"]})
    on_cell(body, gateway={"trusted_proxies": ["127.0.0.0/8"]})
    on_cell(body)


def test_a_browser_gets_a_page_that_needs_nothing_else_and_believes_no_name() -> None:
    backend = {"name": "demo", "builtin": "demo", "title": "<script>alert('1')</script> & {more}"}

    async def run() -> None:
        async with running_cell(cell_settings((backend,))) as cell, RawClient(cell) as client:
            answer = await client.ask("GET", "/", Accept=BROWSER)
            page = answer.body.decode()
            assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
            assert f"http://127.0.0.1:{client.port}/mcp/servers/demo" in page
            assert "&lt;script&gt;alert(&#x27;1&#x27;)&lt;/script&gt; &amp; {more}" in page
            assert "<script" not in page
            assert re.findall(r'(?:src|href)="([^"]*)"', page) == ["data:,"]
            assert "default-src 'none'" in answer.headers["content-security-policy"]

    asyncio.run(run())


def test_a_client_reads_the_addresses_of_what_it_may_use_alone() -> None:
    async def body() -> None:
        policies = [{"effect": "allow", "subjects": ["ada"], "backends": ["files"]}]
        backends = [{"name": name, "builtin": "demo"} for name in ("files", "payroll")]
        servers = [{"name": "little", "include": ["files/read_*"]}, {"name": "wages", "include": ["payroll/*"]}]
        settings = cell_settings(backends, auth=AUTH, policies=policies, servers=servers)
        async with running_cell(settings, authenticator=KnownClients()) as cell:
            async with RawClient(cell) as client:
                shown = [(await client.ask("GET", "/", **bearer(name))).body for name in ("ada", "bob")]
        assert [(b"/servers/files" in each, b"payroll" in each) for each in shown] == [(True, False), (False, False)]
        assert [(b"/servers/little" in each, b"wages" in each) for each in shown] == [(True, False), (False, False)]

    asyncio.run(body())
