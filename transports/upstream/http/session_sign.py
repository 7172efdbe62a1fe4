"""Whether a refusal may mean that the server does not know the session, and what a ping in that session proves. Pure.

Source: MCP 2025-11-25, basic/transports, "Session Management" asks for 404. Servers say it with 400, 410 and errors in 200 as
well, and mean something else by 404: no status or code tells by itself, but what is refused as a ping is refused has not run.
"""

from __future__ import annotations

from typing import Final

import attrs
import msgspec

from mcp_gateway.transports.protocol.mcp.error_codes import (
    INTERNAL_ERROR,
    METHOD_NOT_FOUND,
    URL_ELICITATION_REQUIRED,
    error_code,
)
from mcp_gateway.transports.protocol.mcp.jsonrpc import members

# Of who asks, how, how much and how often; the same for every request in whatever session.
_OF_OTHER_THINGS: Final = frozenset({401, 402, 403, 405, 406, 407, 408, 411, 413, 414, 415, 421, 425, 426, 429, 431, 451})
_OF_THE_METHOD: Final = frozenset({METHOD_NOT_FOUND, URL_ELICITATION_REQUIRED})


@attrs.frozen
class SessionSign:
    """A refusal that may be the session's. code: of its JSON-RPC error, None for none. text: the error's message."""

    status: int
    code: int | None
    text: str = ""

    @classmethod
    def of(cls, status: int, error: bytes) -> SessionSign | None:
        """None where the session is not what was refused. error: the server's, as JSON, or b""."""
        sign = cls(status, error_code(error), _message(error))
        if status in _OF_OTHER_THINGS or sign.code in _OF_THE_METHOD or (status < 400 and not error):
            return None
        # A failing server fails at a ping in the same way, and may have run the request before.
        is_failing = status >= 500 or sign.code == INTERNAL_ERROR
        return None if is_failing and not sign.names_session else sign

    @property
    def names_session(self) -> bool:
        return "session" in self.text.lower()

    def is_confirmed_by(self, ping: SessionSign | None) -> bool:
        """ping: how a ping in the same session was refused, None where it was not."""
        if ping is None or ping.status != self.status:
            return False
        if self.code is None or ping.code is None:  # some refuse what has no body without one
            return self.status >= 400
        return self.code == ping.code and (self.text == ping.text or (self.names_session and ping.names_session))


def _message(error: bytes) -> str:
    try:
        return msgspec.json.decode(members(error)["message"], type=str)
    except (KeyError, msgspec.DecodeError, RecursionError):
        return ""
