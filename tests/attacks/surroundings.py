"""Gateways to attack: with what is behind each of them, and with an ordinary client beside."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from tests.attacks import privileges
from tests.attacks.attack import PHOENIX, TALKING
from tests.attacks.hostile_upstream import SECRET, EndlessLists, HostileUpstream, LoudLists
from tests.attacks.place import Place, place
from tests.doubles.scripted_upstreams import SilentUpstream
from tests.doubles.sdk_server import start_sdk_server
from tests.doubles.tokens import ISSUER, PUBLIC_URL, IssuerKey, jwks
from tests.end_to_end.running_gateway import Form, closed_port, start_gateway
from tests.node.browser import Browser, start_browser

ADA, EVE, OPERATOR = "key-of-ada-0123456789", "key-of-eve-0123456789", "key-of-ops-0123456789"
KEYS: Final = (("ada", ADA, []), ("eve", EVE, []), ("ops", OPERATOR, ["mcp-gateway:operate"]))
"""(name, API key, scopes) of those who are known where clients are."""

_DEMO: Final = {"name": "demo", "builtin": "demo"}
_ODD: Final = str(Path(__file__).parents[1] / "doubles" / "odd_stdio_server.py")
KEPT_EVENTS: Final = 500
"""Of the gateway's own, and of its clients'."""
API_KEY: Final = "key-of-ci"
_KEYS: Final = {"ec": "ES256", "rsa": "RS256", "other": "ES256"}
_TIMES: Final = {"header_timeout": 5.0, "request_timeout": 10.0}
_BEHIND_A_PROXY: Final = {"trusted_proxies": ["192.0.2.1"]}  # which is none of those who attack


@contextmanager
def among_hostile_clients(directory: Path, form: Form) -> Iterator[Place]:
    """The demo server, and one that asks its clients."""
    with start_sdk_server(name="asks", era="legacy") as asks:
        with _place(directory, form, [_DEMO, {"name": "asks", "replicas": [asks.url]}], {}) as found:
            yield found


@contextmanager
def among_ruled_clients(directory: Path, form: Form) -> Iterator[Place]:
    """Two demo servers, of one of which policies allow little."""
    backends = [_DEMO, {"name": "vault", "builtin": "demo"}]
    with _place(directory, form, backends, {}, policies=privileges.POLICIES) as found:
        yield found


@contextmanager
def among_hostile_servers(directory: Path, form: Form) -> Iterator[Place]:
    """The demo server among those that mean harm; but for one their circuits stay closed: every call meets its server."""
    with ExitStack() as stack:
        inside = stack.enter_context(SilentUpstream())
        evil = stack.enter_context(HostileUpstream(elsewhere=inside.url))
        lists = stack.enter_context(EndlessLists())
        loud = stack.enter_context(LoudLists())
        closed = stack.enter_context(closed_port())
        backends: list[dict[str, Any]] = [
            _DEMO,
            {"name": "evil", "replicas": [f"{evil.url}?key={SECRET}"], "headers": {"Authorization": SECRET}},
            {"name": "lists", "replicas": [lists.url]},
            {"name": "loud", "replicas": [loud.url], "tools": {"names": "as_is"}},
            {"name": "away", "replicas": [f"http://127.0.0.1:{closed}/mcp?key={SECRET}"], "headers": {"Authorization": SECRET}},
            {"name": "hangs", "builtin": "demo"},
        ]
        for habit in ("dies", "noisy", "chatty"):
            command = [sys.executable, _ODD, habit]
            backends.append({"name": habit, "command": command, "env": {"TOKEN": SECRET}})
        for each in backends[1:]:
            each["request_timeout"] = 3.0
        names = [str(each["name"]) for each in backends if each["name"] != "hangs"]
        routes = [{"pattern": f"tools/call/{name}__*", "backend": name, "failure_threshold": 1000} for name in names]
        routes.append({"pattern": "tools/call/hangs__*", "backend": "hangs"})
        servers = {"evil": evil, "inside": inside, "lists": lists}
        with _place(directory, form, backends, servers, routes=routes) as found:
            yield found


@contextmanager
def among_forgers(directory: Path, form: Form) -> Iterator[Place]:
    """The demo server, at a gateway that believes two issuers and one API key, and serves who shows nothing as nobody."""
    keys = {name: IssuerKey.make(name, algorithm) for name, algorithm in _KEYS.items()}
    issuers = {ISSUER: ("ec", "rsa"), "https://other.example": ("other",)}
    tables = []
    for number, (issuer, names) in enumerate(issuers.items()):
        path = directory / f"keys-{number}.json"
        path.write_bytes(jwks(*(keys[name] for name in names)))
        tables.append({"issuer": issuer, "jwks_file": str(path), "logout_audience": "gateway"})
    operator = {"name": "ci", "hash": f"sha256:{hashlib.sha256(API_KEY.encode()).hexdigest()}", "scopes": ["mcp-gateway:operate"]}
    revoked = keys["ec"].token({"sub": "mallory", "exp": 2**40})
    auth = {"mode": "optional", "issuers": tables, "api_keys": [operator], "denied_subjects": ["mallory"]}
    servers: dict[str, Any] = {**keys, "revoked": revoked}
    with _place(directory, form, [_DEMO], servers, credential=API_KEY, auth=auth, public_url=PUBLIC_URL) as found:
        yield found


@contextmanager
def among_known_clients(directory: Path, form: Form) -> Iterator[Place]:
    """The demo server, one that asks its clients, and clients with keys; who has none is nobody in particular."""
    keys = [
        {"name": name, "hash": f"sha256:{hashlib.sha256(key.encode()).hexdigest()}", "scopes": scopes}
        for name, key, scopes in KEYS
    ]
    auth = {"mode": "optional", "user_header": "X-Forwarded-User", "api_keys": keys}
    with start_sdk_server(name="asks", era="legacy") as asks:
        backends = [_DEMO, {"name": "asks", "replicas": [asks.url]}]
        (directory / "gateway").mkdir()
        with start_gateway(directory / "gateway", form, backends, gateway={**_TIMES, **_BEHIND_A_PROXY}, auth=auth) as gateway:
            gateway.credential = OPERATOR
            talking = [each for each in TALKING if each != PHOENIX]  # whose channel of everything is for operators
            with place(gateway, directory, transports=talking) as found:
                yield found


@contextmanager
def _place(
    directory: Path,
    form: Form,
    backends: list[dict[str, Any]],
    servers: dict[str, Any],
    *,
    credential: str = "",
    public_url: str = "",
    **tables: Any,
) -> Iterator[Place]:
    """credential: with which the gateway's own pages are looked at."""
    (directory / "gateway").mkdir()
    transports = {"http_sse": {"retention_events": KEPT_EVENTS}}
    settings = {**_TIMES, "public_url": public_url}
    with start_gateway(directory / "gateway", form, backends, gateway=settings, transports=transports, **tables) as gateway:
        gateway.credential = credential
        with place(gateway, directory, servers) as found:
            yield found


@contextmanager
def before_spectators(directory: Path, form: Form, browser: Browser | None = None) -> Iterator[Place]:
    """The demo server, and a browser that may look at the dashboard. browser: one that runs already."""
    with ExitStack() as stack:
        shown = browser or stack.enter_context(start_browser())
        yield stack.enter_context(_place(directory, form, [_DEMO], {"browser": shown}))
