"""Which eras one server speaks, as far as anybody knows: one record for the wire to it and the bridge above. Pure.

Source: MCP 2026-07-28, basic/versioning, "Backward Compatibility with Initialization-Based Versions": the era is a property of
the server; basic/transports/stdio and streamable-http, "Backward Compatibility": how it shows.
"""

from __future__ import annotations

from typing import Final

import msgspec

from mcp_gateway.transports.protocol.mcp.error_codes import INVALID_PARAMS, METHOD_NOT_FOUND, MODERN_ERRORS, error_code
from mcp_gateway.transports.protocol.mcp.jsonrpc import Response, members
from mcp_gateway.transports.protocol.mcp.revisions import MODERN_REVISIONS, REVISIONS, is_modern

_OF_EITHER_ERA: Final = frozenset({METHOD_NOT_FOUND, INVALID_PARAMS})
"""With an HTTP status of its own a modern server's answer; legacy ones are known to give them as well."""


class ServerEra:
    """What is known of one server, until it is forgotten. A configured protocol is believed for ever.

    speaks_modern:   None where nobody knows.
    takes_handshake: whether it is worth trying; False for a modern server that has refused it. A server may speak both eras.
    only_speaks:     the versions that it lists where none of them is known here; empty otherwise.
    is_starting:     nobody can know yet: the server lives and has not said a word.
    """

    def __init__(self, protocol: str) -> None:
        self._protocol = protocol
        self._is_fixed = protocol != "auto"
        self.is_starting = False
        self.forget()

    def forget(self) -> None:
        """The server does not take what it took before, so it may be another one by now: whoever comes next finds out.

        Source: MCP 2026-07-28, basic/versioning: "re-probing if the cached assumption later fails".
        """
        self.speaks_modern: bool | None = is_modern(self._protocol) if self._is_fixed else None
        self.takes_handshake = not self.speaks_modern
        self.only_speaks: tuple[str, ...] = ()

    def observe(self, response: Response | None, http_status: int = 200) -> None:
        """Learn from how `server/discover` was answered; nothing where the answer fits either era, so that a handshake tells.

        http_status: 200 on a connection that has none.
        """
        if response is None:
            return
        if response.result:
            versions = _versions(response.result)
            self.only_speaks = () if any(version in REVISIONS for version in versions) else tuple(versions)
            self.decide(not versions or any(version in MODERN_REVISIONS for version in versions))
        elif http_status == 200 or error_code(response.error) not in _OF_EITHER_ERA:
            self.decide(error_code(response.error) in MODERN_ERRORS)

    def decide(self, speaks_modern: bool) -> None:
        """What shows by other means than an answer: silence, a refusal without words, a handshake that is taken or not."""
        if not self._is_fixed:
            self.speaks_modern = speaks_modern
            self.takes_handshake |= not speaks_modern

    def refuse_handshake(self) -> None:
        """The server has refused `initialize`. A modern one need not be asked again; of a legacy one it is not to be believed."""
        if self.speaks_modern:
            self.takes_handshake = False
        else:
            self.forget()


def may_be_modern(error: bytes) -> bool:
    """Whether a modern server refuses a request over HTTP with this error. error: as JSON, b"" for none that could be read."""
    return error_code(error) in MODERN_ERRORS | _OF_EITHER_ERA


def _versions(discovered: bytes) -> list[str]:
    try:
        return msgspec.json.decode(members(discovered)["supportedVersions"], type=list[str])
    except (KeyError, msgspec.DecodeError):
        return []
