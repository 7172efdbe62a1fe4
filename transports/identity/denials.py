"""Who is refused: subjects by name or pattern, credentials by their fingerprint, those that a logout has ended. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from mcp_gateway.config.identity_settings import LogOut
from mcp_gateway.transports.ports.principal import Principal

from .api_keys import API_KEY_ISSUER
from .log_outs import LogOuts
from .subject_names import SubjectNames
from .vouched_users import CERTIFICATE_ISSUER, PROXY_ISSUER


class Denials:
    """subjects: as `SubjectNames` has them. fingerprints: of credentials, as logs show them."""

    def __init__(self, subjects: Iterable[str], fingerprints: Iterable[str] = (), log_outs: Iterable[LogOut] = ()) -> None:
        self._subjects = SubjectNames(subjects)
        self._fingerprints = frozenset(fingerprints)
        self._log_outs = LogOuts(log_outs)

    def deny(self, principal: Principal) -> bool:
        """Whether this principal is refused."""
        is_named = principal.fingerprint in self._fingerprints or self._subjects.has(principal)
        return is_named or self._log_outs.ended(principal)


def reinstated(name: str, subjects: Iterable[str]) -> str:
    """What has become of whom access was given back to, in one sentence. subjects: of all who are denied now."""
    still = still_denied(name, subjects)
    if not still:
        return f"{name} has access again"
    entries = ", ".join(map(repr, still))
    return (
        f"{name} is not revoked as such any more, but still has no access as {entries}: by revoke, or denied_subjects of [auth]"
    )


def still_denied(name: str, subjects: Iterable[str]) -> list[str]:
    """Which of these keep somebody out who has this name, or whom it stands for. Both as `SubjectNames` has them."""
    issuer, subject = _halves(name)
    meant = Principal(issuer=issuer, subject=subject)
    stands_for = SubjectNames([name])

    def keeps_out(entry: str) -> bool:
        entry_issuer, entry_subject = _halves(entry)
        names = SubjectNames([entry] if issuer else [entry, entry_subject])
        return names.has(meant) or stands_for.has(Principal(issuer=entry_issuer, subject=entry_subject))

    return [entry for entry in subjects if keeps_out(entry)]


def _halves(name: str) -> tuple[str, str]:
    """(issuer or "", subject): a subject may have spaces, too."""
    first, _, rest = name.partition(" ")
    is_issuer = "://" in first or first in (API_KEY_ISSUER, PROXY_ISSUER, CERTIFICATE_ISSUER)
    return (first, rest) if rest and is_issuer else ("", name)
