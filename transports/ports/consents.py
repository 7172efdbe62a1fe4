"""What the pages of consent ask of whoever logs users in at servers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import attrs


class ConsentFailed(Exception):
    """The flow ends here, for a reason that the person at the browser may read. is_ours: it is no fault of that person's."""

    def __init__(self, text: str, *, is_ours: bool = False) -> None:
        super().__init__(text)
        self.is_ours = is_ours


@attrs.frozen
class ConsentAsked:
    """What a link of ours asks for. principal: for whom ("" where there is but one user); scopes: what is known of them now."""

    backend: str
    principal: str
    scopes: tuple[str, ...]


class Consents(Protocol):
    """Raises: ConsentFailed, by each method but `client_document`."""

    def asked_by(self, link: str) -> ConsentAsked:
        """What a link that a client was given asks for."""

    async def begin(self, link: str, browser: str) -> str:
        """The address of the authorization server for the user's browser. browser: a secret that only that browser has."""

    async def finish(self, answer: Mapping[str, str], browser: str) -> ConsentAsked:
        """Take what the browser has brought back from there, once, and only from the browser that began. answer: the query."""

    def client_document(self) -> dict[str, Any]:
        """The metadata by which authorization servers know the gateway."""
