"""Asks one issuer about opaque tokens."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Final

from mcp_gateway.config.identity_settings import IssuerSettings
from mcp_gateway.transports.identity.claims import Audience
from mcp_gateway.transports.identity.introspection import (
    IntrospectionUnusable,
    introspection_form,
    introspection_headers,
    principal_of_answer,
)
from mcp_gateway.transports.outbound.guarded_fetch import FetchFailed, FetchRules, fetch
from mcp_gateway.transports.ports.principal import Principal
from mcp_gateway.transports.telemetry.log_budget import LogBudget

from .issuer_away import IssuerAwayError

_logger = logging.getLogger(__name__)

MOST_AT_ONCE: Final = 32
"""Tokens that one issuer is asked about at the same time, by each cell: anybody can make up tokens."""

_QUEUE_S: Final = 3.0
"""How long one may wait for its turn: made-up ones are answered in moments, and the others shall not be refused for them."""

_LONGEST_SECRET: Final = 10_000


class IssuerIntrospection:
    """On the event loop."""

    def __init__(self, issuer: IssuerSettings) -> None:
        self._issuer = issuer
        self._rules = FetchRules(allow_private=issuer.allow_private)
        self._turns = asyncio.Semaphore(MOST_AT_ONCE)
        self._log_budget = LogBudget(lines=1, period_s=60.0)

    async def principal_of(self, token: bytes, audience: Audience) -> Principal:
        """Whom the token stands for.

        Raises: CredentialRejected; IssuerAwayError.
        """
        try:
            async with asyncio.timeout(_QUEUE_S):
                await self._turns.acquire()
        except TimeoutError:
            raise IssuerAwayError("its issuer is being asked about too many tokens") from None
        try:
            headers = introspection_headers(self._issuer, await asyncio.to_thread(self._secret))
            form = introspection_form(token)
            fetched = await fetch(self._issuer.introspection_url, rules=self._rules, method="POST", headers=headers, form=form)
            return principal_of_answer(fetched.status, fetched.body, token, self._issuer, audience, time.time())
        except (FetchFailed, IntrospectionUnusable, OSError) as error:
            text = error.strerror or type(error).__name__ if isinstance(error, OSError) else str(error)
            if self._log_budget.take(time.monotonic()) is not None:
                _logger.warning("introspection at %s: %s", self._issuer.issuer, text, extra={"actor": "identity"})
            raise IssuerAwayError(f"its issuer cannot be asked: {text}") from error
        finally:
            self._turns.release()

    def _secret(self) -> str:
        """Read anew each time, so that it can be changed without a restart."""
        if not self._issuer.client_secret_file:
            return ""
        with Path(self._issuer.client_secret_file).expanduser().open(encoding="utf-8", errors="replace") as file:
            return file.read(_LONGEST_SECRET).strip()
