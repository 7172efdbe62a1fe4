"""An HTTP API behind its description: read once, from a file or an address, and asked over kept-alive connections."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Final

from mcp_gateway.config.backend_settings import BackendSettings
from mcp_gateway.transports.outbound.guarded_fetch import FetchFailed, FetchRules, fetch
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.loop_tasks import SharedTasks
from mcp_gateway.transports.ports.strategies import ReplicaTarget
from mcp_gateway.transports.ports.upstream_port import (
    ConnectionToken,
    CredentialRefused,
    ShowToken,
    UpstreamConversation,
    UpstreamError,
    ask_showing,
    refuses_credential,
    shows_no_token,
)
from mcp_gateway.transports.protocol.eras.server_era import ServerEra
from mcp_gateway.transports.upstream.adapted.adapted_conversation import AdaptedConversation, Report, ToolOutcome
from mcp_gateway.transports.upstream.http.client_tls import ClientTls
from mcp_gateway.transports.upstream.http.failure_text import FailureLog
from mcp_gateway.transports.upstream.http.http1_client import CannotConnect, Http1Client
from mcp_gateway.transports.upstream.http.server_connection import Answer, ExchangeCut
from mcp_gateway.transports.upstream.http.server_words import ServerWords

from .api_description import Description, DescriptionRefused, read_description, read_document
from .api_requests import ApiRequest, request_of
from .api_results import outcome_of

LARGEST_DESCRIPTION_BYTES: Final = 16_777_216
"""GitHub's, one of the largest there are, has 12 MB."""
_FETCH_S: Final = 30.0
_LEFT_OUT_TOLD: Final = 5
_REPEATABLE: Final = frozenset({"GET"})

_logger = logging.getLogger(__name__)


class OpenApiUpstream:
    """Registry strategy for backends with `openapi`."""

    name = "openapi_upstream"
    schemes = frozenset({"openapi"})

    def __init__(self, token_of: ConnectionToken = shows_no_token) -> None:
        self._token_of = token_of

    def connect(self, target: ReplicaTarget, era: ServerEra | None = None) -> UpstreamConversation:
        backend = target.backend
        return AdaptedConversation(OpenApiSource(backend, target.max_message_bytes, self._token_of(backend)))


class OpenApiSource:
    """The operations of one API. Implements `ToolSource`. What its description says holds until the backend changes or ends.

    show: gives the gateway's own token, where the API wants one; then `base_url` says where it goes, not the description.
    """

    def __init__(self, backend: BackendSettings, max_message_bytes: int, show: ShowToken | None = None) -> None:
        self._show = show
        self.name = backend.title or backend.name
        self._backend = backend
        self._max_message_bytes = max_message_bytes
        self._failures = FailureLog(backend.replica_ids[0], ServerWords(backend))
        self._known: tuple[Description, Http1Client] | None = None
        self._reading: SharedTasks[None, tuple[Description, Http1Client]] = SharedTasks()

    async def instructions(self) -> str:
        description, _ = await self._api()
        return description.summary

    async def tools(self) -> Sequence[Mapping[str, Any]]:
        description, _ = await self._api()
        return [operation.tool for operation in description.operations.values()]

    async def call(self, name: str, arguments: Mapping[str, Any], timeout_s: float | None, report: Report) -> ToolOutcome | None:
        description, client = await self._api()
        operation = description.operations.get(name)
        if operation is None:
            return None
        request = request_of(operation, arguments)

        def ask(shown: Mapping[str, str]) -> Awaitable[ToolOutcome]:
            return self._ask(client, description.base_url, request, timeout_s, shown)

        try:
            return await ask_showing(self._show, ask)
        except UpstreamError as error:
            cause = error.__cause__
            if isinstance(cause, ExchangeCut) and cause.before_answer and request.method in _REPEATABLE:
                return await ask_showing(self._show, ask)
            raise

    async def probe(self, timeout_s: float) -> None:
        """Whatever it answers: it is there. APIs may ask for credentials at any path, or know none at all."""
        description, client = await self._api()
        await self._ask(client, description.base_url, ApiRequest("OPTIONS", "/", {}, b""), timeout_s, {})

    async def close(self) -> None:
        self._reading.cancel()
        if self._known is not None:
            await self._known[1].close()

    async def _ask(
        self, client: Http1Client, base_url: str, request: ApiRequest, timeout_s: float | None, shown: Mapping[str, str]
    ) -> ToolOutcome:
        """shown: headers with the token. Raises: UpstreamError; CredentialRefused, where there was one."""
        url = base_url + request.target
        own = {name.lower() for name in (*self._backend.headers, *shown)}
        headers = {**{name: value for name, value in request.headers.items() if name.lower() not in own}, **shown}
        may_repeat = request.method in _REPEATABLE
        try:
            async with client.request(request.method, url, headers, request.body, timeout_s, may_repeat=may_repeat) as answer:
                body = await self._read(answer)
        except CannotConnect as error:
            text = f"cannot connect: {self._failures.note(error.__cause__ or error)}"
            raise UpstreamError(Fate.UNREACHABLE, text) from error
        except TimeoutError as error:
            raise UpstreamError(Fate.TIMED_OUT, "the server did not answer in time") from error
        except (ExchangeCut, ValueError) as error:
            fate = Fate.CUT if isinstance(error, ExchangeCut) else Fate.BROKEN
            raise UpstreamError(fate, f"the connection failed: {self._failures.note(error)}") from error
        if shown and refuses_credential(answer.status, answer.headers.get("www-authenticate", "")):
            raise CredentialRefused(answer.status, answer.headers)
        if body is None:
            text = f"HTTP {answer.status}: the answer is larger than {self._max_message_bytes} bytes"
            return ToolOutcome([{"type": "text", "text": text}], is_error=True)
        # Not the address that was asked: addresses of backends are the gateway's own.
        return outcome_of(answer.status, answer.headers, body, f"openapi://{self._backend.name}{request.target}")

    async def _read(self, answer: Answer) -> bytes | None:
        parts, size = [], 0
        async for part in answer.parts():
            size += len(part)
            if size > self._max_message_bytes:
                return None
            parts.append(part)
        return b"".join(parts)

    # ---- the description

    async def _api(self) -> tuple[Description, Http1Client]:
        if self._known is None:
            self._known = await self._reading.join(None, self._read_api)
        return self._known

    async def _read_api(self) -> tuple[Description, Http1Client]:
        where = self._backend.openapi
        is_url = where.startswith(("http://", "https://"))
        content = await self._fetched(where) if is_url else await asyncio.to_thread(_file_content, where)
        try:
            found_at = where if is_url else ""
            has_checks = "results" in self._backend.tools.get("check", ())
            description = await asyncio.to_thread(_described, content, self._backend.base_url, found_at, has_checks)
        except DescriptionRefused as refused:
            raise UpstreamError(Fate.BROKEN, f"its OpenAPI description cannot be used: {refused}") from None
        self._tell_left_out(description)
        headers = {"Accept": "application/json, */*;q=0.5", "Accept-Encoding": "identity", "User-Agent": "mcp-gateway"}
        return description, Http1Client(description.base_url, {**headers, **self._backend.headers}, ClientTls.of(self._backend))

    async def _fetched(self, url: str) -> bytes:
        rules = FetchRules(allow_private=self._backend.allow_private, max_bytes=LARGEST_DESCRIPTION_BYTES, timeout_s=_FETCH_S)
        try:
            fetched = await fetch(url, rules=rules, headers={"Accept": "application/json, application/yaml;q=0.9, */*;q=0.5"})
        except FetchFailed as failed:
            raise UpstreamError(Fate.UNREACHABLE, f"its OpenAPI description cannot be fetched: {failed}") from None
        if fetched.status != 200:
            text = f"its OpenAPI description cannot be fetched: HTTP status {fetched.status}"
            raise UpstreamError(Fate.UNREACHABLE, text)
        return fetched.body

    def _tell_left_out(self, description: Description) -> None:
        for each in description.left_out[:_LEFT_OUT_TOLD]:
            _logger.warning("backend %r: an operation is left out: %s", self._backend.name, each)
        if (more := len(description.left_out) - _LEFT_OUT_TOLD) > 0:
            _logger.warning("backend %r: %d more operations are left out", self._backend.name, more)


def _described(content: bytes, base_url: str, found_at: str, with_outputs: bool) -> Description:
    return read_description(read_document(content), base_url, found_at, with_outputs=with_outputs)


def _file_content(path: str) -> bytes:
    try:
        with open(os.path.expanduser(path), "rb") as file:
            content = file.read(LARGEST_DESCRIPTION_BYTES + 1)
    except OSError as error:
        raise UpstreamError(Fate.UNREACHABLE, f"its OpenAPI description cannot be read: {error.strerror}") from None
    if len(content) > LARGEST_DESCRIPTION_BYTES:
        text = f"its OpenAPI description is larger than {LARGEST_DESCRIPTION_BYTES} bytes"
        raise UpstreamError(Fate.BROKEN, text)
    return content
