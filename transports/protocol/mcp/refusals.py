"""What refuses a request: one table from reason to JSON-RPC code and HTTP status, as users rely on it."""

from __future__ import annotations

from typing import Any

import attrs
import msgspec

from .error_codes import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    MISSING_CAPABILITY,
    PARSE_ERROR,
    UNSUPPORTED_VERSION,
)


@attrs.frozen
class RefusalKind:
    """code: JSON-RPC error code. status: HTTP status. retry: whether `Retry-After` tells the client to come back."""

    code: int
    status: int
    retry: bool = False


# Source: the gateway's own contract; the codes with a name are those of `error_codes`.
REFUSALS: dict[str, RefusalKind] = {
    "parse_error": RefusalKind(PARSE_ERROR, 400),
    "invalid_request": RefusalKind(INVALID_REQUEST, 400),
    "unknown_method": RefusalKind(METHOD_NOT_FOUND, 400),
    "invalid_params": RefusalKind(INVALID_PARAMS, 400),
    "header_mismatch": RefusalKind(HEADER_MISMATCH, 400),
    "missing_capability": RefusalKind(MISSING_CAPABILITY, 400),
    "unsupported_version": RefusalKind(UNSUPPORTED_VERSION, 400),
    "unauthorized": RefusalKind(4010, 401),
    "origin_forbidden": RefusalKind(4030, 403),
    "forbidden": RefusalKind(4031, 403),
    "insufficient_scope": RefusalKind(4032, 403),
    "consent_required": RefusalKind(4033, 403),
    "session_not_found": RefusalKind(4040, 404),
    "too_large": RefusalKind(4130, 413),
    "rate_limited": RefusalKind(4290, 429, retry=True),
    "too_many_connections": RefusalKind(4291, 503, retry=True),
    "upstream_failed": RefusalKind(5020, 502),
    "no_backend": RefusalKind(5030, 503, retry=True),
    "circuit_open": RefusalKind(5031, 503, retry=True),
    "pool_exhausted": RefusalKind(5032, 503, retry=True),
    "draining": RefusalKind(5033, 503, retry=True),
    "owner_unreachable": RefusalKind(5034, 503, retry=True),
    "upstream_timeout": RefusalKind(5040, 504),
}

FAULTS = frozenset({"upstream_failed", "upstream_timeout", "no_backend", "circuit_open", "pool_exhausted", "draining"})
"""Reasons that are the fault of the gateway or of a server; all others are the client's own, or somebody's rule."""


class Refused(Exception):
    """A request that ends here, with the reason its client will read.

    reason:        a key of REFUSALS.
    text:          one sentence for a person.
    request_id:    the request's own id as JSON bytes, once it is known; None answers with a null id.
    status:        HTTP status where the revision asks for another one than the table's.
    retry_after_s: seconds after which trying again may help, where somebody has said so: a server that has refused a call, for
                   example; 1 where the kind allows a retry and nobody knows better.
    upstream_s:    how long a server was waited for before; so that its time is not taken for the gateway's own.
    """

    def __init__(
        self,
        reason: str,
        text: str,
        *,
        request_id: bytes | None = None,
        data: dict[str, Any] | None = None,
        status: int | None = None,
        retry_after_s: float | None = None,
        upstream_s: float = 0.0,
    ) -> None:
        super().__init__(text)
        self.upstream_s = upstream_s
        kind = REFUSALS[reason]
        self.reason = reason
        self.text = text
        self.request_id = request_id
        self.code = kind.code
        self.status = status or kind.status
        self.data = data or {}
        self.retry_after_s = 1.0 if retry_after_s is None and kind.retry else retry_after_s

    def body(self) -> bytes:
        """The JSON-RPC error response."""
        data: dict[str, Any] = {"reason": self.reason, **self.data}
        if self.retry_after_s is not None:
            data["retry_after"] = self.retry_after_s
        return msgspec.json.encode(
            {
                "jsonrpc": "2.0",
                "id": msgspec.Raw(self.request_id if self.request_id is not None else b"null"),
                "error": {"code": self.code, "message": self.text, "data": data},
            }
        )
