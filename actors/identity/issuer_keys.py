"""The keys of one issuer, from a file or by discovery: fetched once for all who wait, kept while the issuer is away."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Final

from mcp_gateway.config.identity_settings import IssuerSettings
from mcp_gateway.transports.identity.discovery import MetadataUnusable, metadata_urls, read_metadata
from mcp_gateway.transports.identity.jwks import KeptKeys, KeysUnusable, SigningKey, read_keys
from mcp_gateway.transports.outbound.guarded_fetch import FetchFailed, FetchRules, fetch
from mcp_gateway.transports.ports.loop_tasks import SharedTasks, retrieve
from mcp_gateway.transports.telemetry.log_budget import LogBudget

from .issuer_away import IssuerAwayError

_logger = logging.getLogger(__name__)
_MOST_BYTES: Final = 262_144


class IssuerKeys:
    """On the event loop."""

    def __init__(self, issuer: IssuerSettings) -> None:
        self._issuer = issuer
        self._rules = FetchRules(allow_private=issuer.allow_private, max_bytes=_MOST_BYTES)
        self._kept = KeptKeys()
        self._fetching: SharedTasks[None, None] = SharedTasks()
        self._log_budget = LogBudget(lines=1, period_s=60.0)

    async def current(self) -> tuple[SigningKey, ...]:
        """The keys as they are known; waits where there are none yet, and asks in passing where they are old.

        Raises: IssuerAwayError.
        """
        if not self._kept.keys:
            await self._refresh()
        elif self._kept.wants_refresh(time.monotonic()) or None in self._fetching:
            refreshing = asyncio.ensure_future(self._refresh())
            refreshing.add_done_callback(retrieve)
        return self._kept.keys

    async def newer(self) -> tuple[SigningKey, ...]:
        """The keys after another look, for a token of an unknown one; as they are, where the last look was just now.

        Raises: IssuerAwayError.
        """
        if self._kept.may_refresh(time.monotonic()) or None in self._fetching:
            await self._refresh()
        return self._kept.keys

    def close(self) -> None:
        self._fetching.cancel()

    async def _refresh(self) -> None:
        await self._fetching.join(None, self._fetch)

    async def _fetch(self) -> None:
        now_s = time.monotonic()
        if not self._kept.may_refresh(now_s):
            raise IssuerAwayError("the keys of its issuer could not be had just now")
        self._kept.asked(now_s)
        try:
            document = await (self._from_file() if self._issuer.jwks_file else self._from_issuer())
            self._kept.given(read_keys(document), time.monotonic())
        except (FetchFailed, MetadataUnusable, KeysUnusable, OSError) as error:
            text = error.strerror or type(error).__name__ if isinstance(error, OSError) else str(error)
            if self._log_budget.take(now_s) is not None:
                _logger.warning("the keys of %s: %s", self._issuer.issuer, text, extra={"actor": "identity"})
            raise IssuerAwayError(f"the keys of its issuer cannot be had: {text}") from error

    async def _from_file(self) -> bytes:
        def read() -> bytes:
            with Path(self._issuer.jwks_file).expanduser().open("rb") as file:
                return file.read(_MOST_BYTES)

        return await asyncio.to_thread(read)

    async def _from_issuer(self) -> bytes:
        issuer = self._issuer.issuer
        for url in metadata_urls(issuer):
            fetched = await fetch(url, rules=self._rules)
            if fetched.status == 200:
                break
        else:
            raise MetadataUnusable("it has no metadata")
        jwks = await fetch(read_metadata(fetched.body, issuer).jwks_uri, rules=self._rules)
        if jwks.status != 200:
            raise KeysUnusable(f"it answers with status {jwks.status}")
        return jwks.body
