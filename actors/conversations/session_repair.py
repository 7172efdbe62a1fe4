"""Opening one backend's side of a session again: the client's own handshake, then what it had asked for since."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import msgspec

from mcp_gateway.actors.messages.calls import CallAnswered, CallFailed
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.eras.own_requests import INITIALIZED, REOPEN_ID, restore_id
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request
from mcp_gateway.transports.protocol.merging.naming import Naming
from mcp_gateway.transports.protocol.sealed.session import BRIDGED_SESSION, SessionState, UpstreamSession

from .desk import CallWish, Desk
from .session_opening import opened_session


class Repair(Enum):
    """How far it has come. REFUSED: the server does not open the session again. UNREACHABLE: a step had no answer."""

    GOING_ON = "going on"
    DONE = "done"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"


class SessionRepair:
    """The calls that open a session at one backend again. Whoever needs it feeds it the outcomes of the calls that it `owns`.

    Safe: nothing but the handshake and what sets state is sent. Where another exchange was faster, its session is taken. Where
    cells have come or gone meanwhile, and what was opened with one of them, it begins anew: once for each such change.

    call:    makes a call, as `Conversation._call` does.
    dismiss: ends a session that is not needed, as `Conversation._dismiss` does.
    session: the newest state.
    """

    def __init__(
        self,
        call: Callable[[CallWish], int],
        dismiss: Callable[[SessionState, str], None],
        desk: Desk,
        session: SessionState,
        backend: str,
        naming: Naming | None,
    ) -> None:
        self._call = call
        self._dismiss = dismiss
        self._desk = desk
        self._lost: UpstreamSession | None = None
        self._began_in_view = 0
        self.session = session
        self.backend = backend
        self._naming = naming
        self._opening = 0
        self._confirming = 0
        self._restoring: set[int] = set()

    def start(self, excluded: frozenset[str] = frozenset()) -> Repair:
        """Begin, or begin again elsewhere. DONE at once where somebody else has repaired it already."""
        self._lost = self.session.upstream(self.backend)
        self._began_in_view = self._desk.view_number
        if self._is_repaired():
            return Repair.DONE
        request = Request(REOPEN_ID, "initialize", self.session.initialize)
        self._opening = self._call(
            CallWish(message=request, backend=self.backend, session=self.session, opens_session=True, excluded=excluded)
        )
        return Repair.GOING_ON

    @property
    def may_be_outdated(self) -> bool:
        """Whether the session may be lost again through no fault of its server: another exchange had repaired it, some time ago
        perhaps, or where it lives has changed since this repair began.
        """
        return not self._opening or self._has_view_changed

    @property
    def _has_view_changed(self) -> bool:
        return self._desk.view_number != self._began_in_view

    def owns(self, call_id: int) -> bool:
        return call_id in (self._opening, self._confirming) or call_id in self._restoring

    def answered(self, answer: CallAnswered) -> Repair:
        if answer.call_id == self._opening:
            return self._on_opened(answer)
        if answer.call_id == self._confirming:
            self._restore()
        else:
            self._restoring.discard(answer.call_id)
        return Repair.GOING_ON if self._restoring else Repair.DONE

    def failed(self, failure: CallFailed, excluded: frozenset[str] = frozenset(), *, can_go_elsewhere: bool = False) -> Repair:
        """What cannot be restored is missing from the session; the session itself is needed more.

        can_go_elsewhere: to a replica that is not excluded.
        """
        if failure.call_id in self._restoring:
            self._restoring.discard(failure.call_id)
            return Repair.GOING_ON if self._restoring else Repair.DONE
        is_gone = failure.why.fate is Fate.SESSION_LOST or failure.why.fate.is_cut
        if can_go_elsewhere or (is_gone and self._has_view_changed):
            return self.start(excluded)
        return Repair.UNREACHABLE

    def _on_opened(self, answer: CallAnswered) -> Repair:
        opened = opened_session(answer)
        if opened is None:
            return Repair.REFUSED
        if self._is_repaired():
            if opened != self.session.upstream(self.backend):  # the bridge gives all repairs in one cell the same
                self._dismiss(msgspec.structs.replace(self.session, upstreams=(opened,)), self.backend)
            return Repair.DONE
        self.session = self._desk.renew_session(self.session, opened)
        self._confirming = self._call(
            CallWish(message=INITIALIZED, kind=RequestKind.MESSAGE, backend=self.backend, session=self.session)
        )
        return Repair.GOING_ON

    def _is_repaired(self) -> bool:
        newest = self._desk.refresh_session(self.session)
        if newest.upstream(self.backend) == self._lost:
            return False
        self.session = newest
        return True

    def _restore(self) -> None:
        for request in restoring_requests(self.session, self.backend, self._naming):
            self._restoring.add(self._call(CallWish(message=request, backend=self.backend, session=self.session)))


def restoring_requests(session: SessionState, backend: str, naming: Naming | None) -> list[Request]:
    """What tells a server again what the client had asked for; a session that the bridge keeps reads it in the facts."""
    upstream = session.upstream(backend)
    if upstream is None or (upstream.session_id or "").startswith(BRIDGED_SESSION):
        return []
    told: list[tuple[str, dict[str, str]]] = []
    if session.facts.log_level is not None:
        told.append(("logging/setLevel", {"level": session.facts.log_level}))
    uris = session.facts.of_backend(backend)
    told += [("resources/subscribe", {"uri": uri if naming is None else naming.outer_uri(uri)}) for uri in uris]
    return [Request(restore_id(number), method, msgspec.json.encode(params)) for number, (method, params) in enumerate(told)]
