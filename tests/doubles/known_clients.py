"""Who knows the clients, played by the test: tokens it has given out, what becomes of them, and a cell that asks it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from mcp_gateway.transports.ports.authenticator import Credential, LogInRefused
from mcp_gateway.transports.ports.principal import Principal
from tests.doubles.patience import patience
from tests.doubles.running_cell import RunningCell, cell_settings, running_cell

OPERATE = "mcp-gateway:operate"
ISSUER = "https://id.example"
ADA = Principal(issuer=ISSUER, subject="ada", client="editor", fingerprint="a1")
BOB = Principal(issuer=ISSUER, subject="bob", scopes=frozenset({"files:read"}), fingerprint="b1")
OPERATOR = Principal(issuer=ISSUER, subject="ops", scopes=frozenset({OPERATE}), fingerprint="o1")
TOKENS = {"ada": ADA, "ada-later": ADA, "bob": BOB, "ops": OPERATOR}
AUTH: Mapping[str, Any] = {"issuers": [{"issuer": ISSUER, "audience": ["gateway"]}], "scopes": ["files:read", "files:write"]}


class KnownClients:
    """Implements `Authenticator`. tokens: {credential's value: whose it is}; asked: values that nobody remembered; refused: those
    who have no access, whatever they show.

    is_answering: whether whoever is asked answers, or lets the client wait.
    """

    def __init__(self, tokens: Mapping[str, Principal] = TOKENS) -> None:
        self.tokens = dict(tokens)
        self.refused: dict[str, Principal] = {}
        self.asked: list[Credential] = []
        self.is_answering = asyncio.Event()
        self.is_answering.set()
        self._remembered: dict[Credential, Principal] = {}
        self._on_end: list[tuple[Principal, Callable[[], None]]] = []

    def known(self, credential: Credential) -> Principal | None:
        return self._remembered.get(credential)

    async def authenticate(self, credential: Credential) -> Principal:
        self.asked.append(credential)
        await self.is_answering.wait()
        principal = self.tokens.get(credential.value)
        if principal is None:
            raise LogInRefused('the token is "none" of ours', self.refused.get(credential.value))
        self._remembered[credential] = principal
        return principal

    def on_end(self, principal: Principal, callback: Callable[[], None]) -> Callable[[], None]:
        entry = (principal, callback)
        self._on_end.append(entry)
        return lambda: self._on_end.remove(entry) if entry in self._on_end else None

    # ---- for the test

    def end(self, principal: Principal) -> None:
        """What this principal has shown holds no more."""
        self.tokens = {token: each for token, each in self.tokens.items() if each != principal}
        self._remembered = {shown: each for shown, each in self._remembered.items() if each != principal}
        ended = [entry for entry in self._on_end if entry[0] == principal]
        self._on_end = [entry for entry in self._on_end if entry[0] != principal]
        for _, callback in ended:
            callback()

    @property
    def watched_count(self) -> int:
        """Those who want to be told of an end."""
        return len(self._on_end)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def on_guarded_cell(body: Callable[[RunningCell, KnownClients], Awaitable[None]], **tables: Any) -> None:
    """Run the test on a cell that wants to know its clients. tables: of the configuration file, by name."""
    settings = cell_settings(**{**tables, "auth": {**AUTH, **tables.get("auth", {})}})

    async def run() -> None:
        clients = KnownClients()
        async with running_cell(settings, authenticator=clients) as cell, patience():
            await body(cell, clients)

    asyncio.run(run())
