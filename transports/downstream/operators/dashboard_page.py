"""The dashboard: one page from files of this package, and the snapshot that it asks for every two seconds."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any, Final

import attrs
import msgspec

from mcp_gateway.transports.downstream.server.incoming import Incoming, method_not_allowed
from mcp_gateway.transports.ports.loop_tasks import HeldTasks, SharedTasks

DASHBOARD_PATH: Final = "/metrics/dashboard"
_STATE: Final = "/metrics/dashboard/state"
_FILES: Final = {
    DASHBOARD_PATH: ("index.html", "text/html; charset=utf-8"),
    "/metrics/dashboard/dashboard.css": ("dashboard.css", "text/css; charset=utf-8"),
    **{
        f"/metrics/dashboard/{name}": (name, "text/javascript; charset=utf-8")
        for name in ("charts.js", "dashboard.js", "actions.js", "curation.js", "log.js", "calls.js", "try_tool.js")
    },
}
DASHBOARD_PATHS: Final = (*_FILES, _STATE)
_KEPT_S: Final = 0.5
"""One snapshot serves everybody who asks within that time: a wall of dashboards costs as much as one."""
_OF_CLIENTS: Final = ("requests", "failures", "clients", "curation", "revoked", "log_level")

# Nothing but this page's own files and the gateway itself; it can be put into no frame and sends its address nowhere.
_SECURITY: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@attrs.frozen
class _Snapshot:
    """As JSON."""

    whole: bytes
    without_clients: bytes


class DashboardEndpoint:
    """Serves `/metrics/dashboard` and what belongs to it.

    take_state:      the snapshot, JSON-able; awaited once for all who ask meanwhile.
    may_see_clients: who is shown the part of it that is about others: addresses, names, what was asked for and refused, which
                     tools are hidden. Who is not shown it may do nothing either, and the page offers nothing.
    """

    def __init__(self, take_state: Callable[[], Awaitable[dict[str, Any]]], may_see_clients: Callable[[Incoming], bool]) -> None:
        self._take_state = take_state
        self._may_see_clients = may_see_clients
        folder = files(__package__) / "dashboard"
        self._files = {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in _FILES.items()}
        self._tags = {path: f'"{hashlib.sha256(body).hexdigest()[:20]}"' for path, (body, _) in self._files.items()}
        self._state = _Snapshot(b"", b"")
        self._state_s = float("-inf")
        self._taking: SharedTasks[str, _Snapshot] = SharedTasks()
        self._answering = HeldTasks()

    def handle(self, incoming: Incoming) -> None:
        if incoming.method not in ("GET", "HEAD"):
            method_not_allowed(incoming, "GET")
        elif incoming.path == _STATE:
            self._answering.start(self._answer_state(incoming))
        else:
            self._answer_file(incoming)

    def _answer_file(self, incoming: Incoming) -> None:
        body, kind = self._files[incoming.path]
        headers = {**_SECURITY, "Cache-Control": "no-cache", "ETag": self._tags[incoming.path]}
        if incoming.headers.get("If-None-Match") == headers["ETag"]:
            incoming.respond(304, b"", headers)
        else:
            incoming.respond(200, body, headers, content_type=kind)

    async def _answer_state(self, incoming: Incoming) -> None:
        newest = await self._newest_state()
        shown = newest.whole if self._may_see_clients(incoming) else newest.without_clients
        incoming.respond(200, shown, {**_SECURITY, "Cache-Control": "no-store"})

    async def _newest_state(self) -> _Snapshot:
        if time.monotonic() - self._state_s < _KEPT_S:
            return self._state
        return await self._taking.join(_STATE, self._take)

    async def _take(self) -> _Snapshot:
        state = await self._take_state()
        others = {name: value for name, value in state.items() if name not in _OF_CLIENTS}
        self._state = _Snapshot(msgspec.json.encode(state), msgspec.json.encode(others))
        self._state_s = time.monotonic()
        return self._state
