"""Which credentials have ended because their issuer has logged somebody out. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from mcp_gateway.config.identity_settings import LogOut
from mcp_gateway.transports.ports.principal import Principal


class LogOuts:
    """What they amount to, found in one look."""

    def __init__(self, log_outs: Iterable[LogOut]) -> None:
        self._latest_ms: dict[tuple[str, str, str], int] = {}
        for each in log_outs:
            for kind, name in _ended_by(each):
                key = (each.issuer, kind, name)
                self._latest_ms[key] = max(each.issued_ms, self._latest_ms.get(key, 0))

    def ended(self, principal: Principal) -> bool:
        """Whether what it has shown was issued before its subject, or its session, was logged out."""
        of_session = ("session", principal.session) if principal.session else ("sessionless", principal.subject)
        kinds = (("everybody", ""), ("subject", principal.subject), of_session)
        return any(principal.issued_ms <= self._latest_ms.get((principal.issuer, *each), -1) for each in kinds)


def _ended_by(log_out: LogOut) -> Iterable[tuple[str, str]]:
    """What a logout ends. A token that names no session may be of the one that it is about: it ends, too."""
    if not log_out.session:
        yield ("subject", log_out.subject) if log_out.subject else ("everybody", "")
        return
    yield "session", log_out.session
    if log_out.subject:
        yield "sessionless", log_out.subject
