"""Ids of what servers ask, as clients read them: sealed, so that only what was asked is answered. Pure.

A server's own id would do where a client has one server; two servers use the same ids, though, and a client could answer what
nobody has asked it. Source: MCP 2025-11-25, basic/index, "Responses": the id of the request that it corresponds to.
"""

from __future__ import annotations

import hashlib

import msgspec

from mcp_gateway.transports.protocol.mcp import jsonrpc

from .sealing import Seal, SealBroken
from .session import SessionState

_KIND = "question"


class QuestionId(msgspec.Struct, frozen=True, array_like=True):
    """What a sealed id holds.

    session:  key of the client's session.
    asked_in: which session at the server it was asked in. One that is opened anew counts its questions from the start, and an
              answer to one of before could be taken for consent to another.
    id:       the server's own, as JSON.
    """

    session: str
    backend: str
    asked_in: bytes
    id: bytes

    @classmethod
    def of(cls, session: SessionState | None, backend: str, request_id: bytes) -> QuestionId:
        """What this server asks in the session as it is now."""
        upstream = session.upstream(backend) if session is not None else None
        place = "" if upstream is None else f"{upstream.replica} {upstream.session_id}"
        asked_in = hashlib.blake2b(place.encode(), digest_size=8).digest()
        return cls("" if session is None else session.key, backend, asked_in, request_id)

    def is_asked_in(self, session: SessionState) -> bool:
        """Whether it is a question to this client of a server that has its session still."""
        return session.upstream(self.backend) is not None and self == QuestionId.of(session, self.backend, self.id)


_decode = msgspec.msgpack.Decoder(QuestionId).decode


def sealed_question_id(seal: Seal, question: QuestionId) -> bytes:
    """As JSON; the same for the same question each time, for a server that takes it back."""
    return msgspec.json.encode(seal.seal_alike(_KIND, msgspec.msgpack.encode(question)))


def read_question_id(seal: Seal, shown: bytes) -> QuestionId | None:
    """The question that a response answers, or None for an id that this gateway never gave. shown: as JSON."""
    try:
        return _decode(seal.open(_KIND, str(jsonrpc.id_value(shown))))
    except (SealBroken, msgspec.DecodeError, ValueError):
        return None
