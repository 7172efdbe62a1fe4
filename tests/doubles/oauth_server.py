"""An MCP server that wants OAuth, and its authorization server, in one HTTP server on the test's loop."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from aiohttp import ClientSession, ClientTimeout, CookieJar, web

from tests.doubles.ports import free_port


class OauthServer:
    """Takes tokens that it has issued for its own resource, and tells what it saw.

    scopes_needed: of every request; scopes_offered: in its metadata. user: who consents next.
    tokens:     {access token: (user, scopes)} of those that hold. refreshes: {refresh token: (user, scopes)}.
    calls:      (method, user) of each MCP request that had a good token. seen_authorizations: what came in that header.
    requests:   {path of the authorization server: how often it was asked}; forms: what the token endpoint was asked.
    metadata:   what replaces members of the authorization server's document; answer_extra: of the redirect's query.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.issuer = url
        self.mcp_url = f"{url}/mcp"
        self.scopes_needed = ("read",)
        self.scopes_offered = ("read",)
        self.user = "ann"
        self.tokens: dict[str, tuple[str, tuple[str, ...]]] = {}
        self.refreshes: dict[str, tuple[str, tuple[str, ...]]] = {}
        self.calls: list[tuple[str, str]] = []
        self.seen_authorizations: list[str] = []
        self.seen_referrers: list[str] = []
        self.requests: dict[str, int] = {}
        self.forms: list[dict[str, str]] = []
        self.metadata: dict[str, Any] = {}
        self.resource_metadata: dict[str, Any] = {}
        self.answer_extra: dict[str, str] = {}
        self.expires_in = 3600
        self.sessions: set[str] = set()
        self._answers: list[asyncio.Queue[str]] = []  # of each event stream
        self._sockets: list[web.WebSocketResponse] = []
        self._codes: dict[str, dict[str, str]] = {}

    def routes(self) -> list[web.RouteDef]:
        well_known = "/.well-known"
        return [
            web.get(f"{well_known}/oauth-protected-resource/mcp", self._resource),
            web.get(f"{well_known}/oauth-authorization-server", self._server),
            web.post("/register", self._register),
            web.get("/authorize", self._authorize),
            web.post("/token", self._token),
            web.route("*", "/mcp", self._mcp),
            web.get("/sse", self._sse),
            web.post("/post", self._posted),
            web.get("/ws", self._socket),
            web.get("/v1/pets", self._pets),
        ]

    def count(self, path: str) -> int:
        return self.requests.get(path, 0)

    def revoke(self) -> None:
        """Nothing that was issued holds any more."""
        self.tokens.clear()
        self.refreshes.clear()

    async def close_sockets(self) -> None:
        while self._sockets:
            await self._sockets.pop().close()

    # ---- the authorization server

    def _noted(self, request: web.Request) -> None:
        self.requests[request.path] = self.count(request.path) + 1
        self.seen_referrers.append(request.headers.get("Referer", ""))

    async def _resource(self, request: web.Request) -> web.Response:
        self._noted(request)
        document = {"resource": self.mcp_url, "authorization_servers": [self.issuer], "scopes_supported": [*self.scopes_offered]}
        return web.json_response({**document, **self.resource_metadata})

    async def _server(self, request: web.Request) -> web.Response:
        self._noted(request)
        document = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "registration_endpoint": f"{self.url}/register",
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["none", "client_secret_basic"],
            "authorization_response_iss_parameter_supported": True,
        }
        return web.json_response({**document, **self.metadata})

    async def _register(self, request: web.Request) -> web.Response:
        self._noted(request)
        return web.json_response({**await request.json(), "client_id": f"client-{self.count('/register')}"}, status=201)

    async def _authorize(self, request: web.Request) -> web.Response:
        """Whoever comes here is logged in, and agrees."""
        self._noted(request)
        asked = dict(request.query)
        code = secrets.token_urlsafe(16)
        self._codes[code] = {**asked, "user": self.user}
        answer = {"code": code, "state": asked["state"], "iss": self.issuer, **self.answer_extra}
        raise web.HTTPFound(f"{asked['redirect_uri']}?{urlencode({k: v for k, v in answer.items() if v})}")

    async def _token(self, request: web.Request) -> web.Response:
        self._noted(request)
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.forms.append(form)
        assert form["resource"] == self.mcp_url
        kind = form["grant_type"]
        if kind == "authorization_code":
            asked = self._codes.pop(form["code"], None)
            verifier = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
            if asked is None or asked["code_challenge"] != verifier or asked["redirect_uri"] != form["redirect_uri"]:
                return web.json_response({"error": "invalid_grant"}, status=400)
            return self._issued(asked["user"], tuple(asked.get("scope", "").split()))
        if kind == "refresh_token":
            held = self.refreshes.pop(form["refresh_token"], None)  # each once
            return web.json_response({"error": "invalid_grant"}, status=400) if held is None else self._issued(*held)
        if kind == "client_credentials":
            return self._issued("the gateway", tuple(form.get("scope", "").split()))
        return self._issued(f"on behalf of {form['subject_token']}", tuple(form.get("scope", "").split()))

    def _issued(self, user: str, scopes: tuple[str, ...]) -> web.Response:
        access, refresh = f"at-{secrets.token_urlsafe(8)}", f"rt-{secrets.token_urlsafe(8)}"
        self.tokens[access] = self.refreshes[refresh] = (user, scopes)
        answer = {"access_token": access, "token_type": "Bearer", "expires_in": self.expires_in, "scope": " ".join(scopes)}
        return web.json_response({**answer, "refresh_token": refresh})

    # ---- the MCP server

    def _let_in(self, request: web.Request) -> str | web.Response:
        """Whose token the request shows, or what it lacks."""
        shown = request.headers.get("Authorization", "")
        self.seen_authorizations.append(shown)
        told = f'resource_metadata="{self.url}/.well-known/oauth-protected-resource/mcp"'
        held = self.tokens.get(shown.removeprefix("Bearer "))
        if held is None:
            return web.Response(status=401, headers={"WWW-Authenticate": f"Bearer {told}"})
        user, scopes = held
        if not set(self.scopes_needed) <= set(scopes):
            lacking = f'Bearer error="insufficient_scope", scope="{" ".join(self.scopes_needed)}", {told}'
            return web.Response(status=403, headers={"WWW-Authenticate": lacking})
        return user

    async def _mcp(self, request: web.Request) -> web.Response:
        user = self._let_in(request)
        if isinstance(user, web.Response):
            return user
        if request.method != "POST":
            return web.Response(status=405)
        message = await request.json()
        if "id" not in message:
            return web.Response(status=202)
        method = message["method"]
        self.calls.append((method, user))
        if method != "initialize" and request.headers.get("Mcp-Session-Id") not in self.sessions:
            return web.Response(status=404)
        headers = {}
        if method == "initialize":
            headers["Mcp-Session-Id"] = session_id = secrets.token_urlsafe(8)
            self.sessions.add(session_id)
        answer = {"jsonrpc": "2.0", "id": message["id"], "result": self._result(method, user)}
        return web.json_response(answer, headers=headers)

    async def _sse(self, request: web.Request) -> web.StreamResponse:
        user = self._let_in(request)
        if isinstance(user, web.Response):
            return user
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        await stream.write(f"event: endpoint\ndata: /post?stream={len(self._answers)}\n\n".encode())
        self._answers.append(answers := asyncio.Queue())
        while True:
            await stream.write(f"data: {await answers.get()}\n\n".encode())

    async def _posted(self, request: web.Request) -> web.Response:
        user = self._let_in(request)
        if isinstance(user, web.Response):
            return user
        if (answer := self._answer(await request.json(), user)) is not None:
            self._answers[int(request.query["stream"])].put_nowait(answer)
        return web.Response(status=202)

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        user = self._let_in(request)
        if isinstance(user, web.Response):
            return user
        socket = web.WebSocketResponse(protocols=("mcp",))
        await socket.prepare(request)
        self._sockets.append(socket)
        async for frame in socket:
            if (answer := self._answer(json.loads(frame.data), user)) is not None:
                await socket.send_str(answer)
        return socket

    async def _pets(self, request: web.Request) -> web.Response:
        """An HTTP API beside the MCP server, for holders of the same tokens."""
        user = self._let_in(request)
        return user if isinstance(user, web.Response) else web.json_response([{"id": 1, "name": user}])

    def _answer(self, message: dict[str, Any], user: str) -> str | None:
        """To a message on a connection, which is a session of its own."""
        if "id" not in message:
            return None
        self.calls.append((message["method"], user))
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
        if message["method"] == "server/discover":
            return json.dumps({**answer, "error": {"code": -32601, "message": "unknown"}})
        return json.dumps({**answer, "result": self._result(message["method"], user)})

    def _result(self, method: str, user: str) -> dict[str, Any]:
        if method == "initialize":
            info = {"name": "files", "version": "1"}
            return {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}
        if method == "tools/list":
            return {"tools": [{"name": "whoami", "inputSchema": {"type": "object"}}]}
        return {"content": [{"type": "text", "text": user}]} if method == "tools/call" else {}


@asynccontextmanager
async def oauth_server() -> AsyncIterator[OauthServer]:
    """One for the length of the `async with` block."""
    port = free_port()
    server = OauthServer(f"http://127.0.0.1:{port}")
    app = web.Application()
    app.add_routes(server.routes())
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield server
    finally:
        await runner.cleanup()


class Browser:
    """A user's browser: cookies, redirects, and the button of the gateway's page."""

    def __init__(self) -> None:
        self._session = ClientSession(cookie_jar=CookieJar(unsafe=True), timeout=ClientTimeout(20))

    async def close(self) -> None:
        await self._session.close()

    async def get(self, url: str, **headers: str) -> tuple[int, str]:
        async with self._session.get(url, headers=headers) as answer:
            return answer.status, await answer.text()

    async def status_of(self, verb: str, url: str) -> int:
        async with self._session.request(verb, url) as answer:
            return answer.status

    async def press(self, url: str, page: str, *, follows: bool = True) -> tuple[int, str, str]:
        """(status, text, address that it is sent to) of the button on a page that is shown for this URL."""
        form = {name: page.partition(f'name="{name}" value="')[2].partition('"')[0] for name in ("link", "proof")}
        async with self._session.post(url.partition("?")[0], data=form, allow_redirects=follows) as answer:
            return answer.status, await answer.text(), answer.headers.get("Location", "")

    async def consent(self, url: str) -> tuple[int, str]:
        """Open the link, read the page, go on, log in, come back."""
        status, page = await self.get(url)
        assert status == 200, page
        status, page, _ = await self.press(url, page)
        return status, page


@asynccontextmanager
async def a_browser() -> AsyncIterator[Browser]:
    browser = Browser()
    try:
        yield browser
    finally:
        await browser.close()


class LegacyClient:
    """A client of 2025-11-25 that takes addresses for its user, by raw requests. token: of the gateway's own issuer."""

    def __init__(self, url: str, token: str = "", capabilities: Any = None) -> None:
        self._url = url
        self.headers = {
            "Accept": "application/json, text/event-stream",
            **({"Authorization": f"Bearer {token}"} if token else {}),
        }
        self._capabilities = {"elicitation": {"url": {}}} if capabilities is None else capabilities
        self._session = ClientSession(timeout=ClientTimeout(20))
        self.status = 0

    async def open(self) -> dict[str, Any]:
        info = {"name": "c", "version": "1"}
        asked = {"protocolVersion": "2025-11-25", "capabilities": self._capabilities, "clientInfo": info}
        answer = await self.ask("initialize", asked)
        await self._post({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return answer

    async def ask(self, method: str, params: Any = None) -> dict[str, Any]:
        return await self._post({"jsonrpc": "2.0", "id": 7, "method": method, "params": params or {}})

    async def call(self, name: str = "whoami") -> dict[str, Any]:
        return await self.ask("tools/call", {"name": name, "arguments": {}})

    async def _post(self, message: Any) -> dict[str, Any]:
        async with self._session.post(self._url, json=message, headers=self.headers) as answer:
            self.status = answer.status
            if (session_id := answer.headers.get("Mcp-Session-Id")) is not None:
                self.headers |= {"Mcp-Session-Id": session_id, "MCP-Protocol-Version": "2025-11-25"}
            text = await answer.text()
        if text.startswith(("event:", "data:", "id:", ":")):
            text = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")][-1]
        return dict(json.loads(text)) if text else {}

    async def close(self) -> None:
        await self._session.close()


class ModernClient:
    """A client of 2026-07-28 that takes addresses for its user."""

    def __init__(self, url: str, token: str) -> None:
        self._wire = LegacyClient(url, token)

    async def ask(self, method: str, params: Any = None) -> dict[str, Any]:
        named = {"Mcp-Name": params["name"]} if params and "name" in params else {}
        self._wire.headers |= {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": method, **named}
        meta = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "c", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"url": {}}},
        }
        return await self._wire.ask(method, {**(params or {}), "_meta": meta})

    async def call(self, **more: Any) -> dict[str, Any]:
        return await self.ask("tools/call", {"name": "whoami", "arguments": {}, **more})

    async def close(self) -> None:
        await self._wire.close()


def consent_url(answer: dict[str, Any]) -> str:
    """The address in the error that asks a client of 2025-11-25."""
    assert answer["error"]["code"] == -32042, answer
    (asked,) = answer["error"]["data"]["elicitations"]
    assert asked["mode"] == "url"
    assert asked["elicitationId"]
    return str(asked["url"])


def text_of(answer: dict[str, Any]) -> str:
    assert "result" in answer, answer
    return str(answer["result"]["content"][0]["text"])


def query_of(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
