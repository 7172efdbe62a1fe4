"""Who a client has proved to be. Pure."""

from __future__ import annotations

import attrs

FOREVER_MS = 2**62
"""When a credential ends that has no end of its own."""


@attrs.frozen(kw_only=True)
class Principal:
    """A user or a program, as whoever vouches for it names it.

    issuer:      who vouches: the URL of an authorization server, "api-key", "proxy" or "certificate".
    subject:     unique at the issuer; the two are the identity, and everything else may change with each login.
    client:      the program that acts for the subject (`client_id`, `azp`), or "".
    groups, scopes: what policies ask for.
    servers:     names of those that what it has shown is made out to; () for the gateway as a whole.
    expires_ms:  when what it has shown ends, since the epoch.
    fingerprint: names what it has shown in logs and revocations; not what that was.
    bound_to:    the thumbprint of the certificate without which what it has shown is good for nothing; "" for none.
    session:     at the issuer (`sid`), where what it has shown says so; "" elsewhere.
    issued_ms:   when that was issued, since the epoch, by the issuer's clock; 0 where nobody says.
    """

    issuer: str
    subject: str
    client: str = ""
    groups: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    servers: frozenset[str] = frozenset()
    expires_ms: int = FOREVER_MS
    fingerprint: str = attrs.field(default="", eq=False)
    bound_to: str = attrs.field(default="", eq=False)
    session: str = attrs.field(default="", eq=False)
    issued_ms: int = attrs.field(default=0, eq=False)

    def is_for(self, endpoint: str) -> bool:
        """Whether what it has shown is good at the endpoint of this server, or ("") at those of all as one."""
        return not self.servers or endpoint in self.servers

    @property
    def key(self) -> str:
        """One string for both halves of the identity: in ids, keys and limits. No issuer has a space in it."""
        return f"{self.issuer} {self.subject}"
