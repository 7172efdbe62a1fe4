"""What a gRPC server does with those whom it does not know: each of the doubles takes it as an interceptor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import grpc


@attrs.define
class WantsToken(grpc.ServerInterceptor):  # type: ignore[misc]
    """Whom it has not given a token it tells so, as our own gateway does. seen: what came as `authorization`, in order."""

    accepts: Callable[[str], bool]
    seen: list[str] = attrs.field(factory=list)

    def intercept_service(self, go_on: Callable[[Any], Any], details: Any) -> Any:
        shown = str(dict(details.invocation_metadata).get("authorization", ""))
        self.seen.append(shown)
        handler = go_on(details)
        if self.accepts(shown.removeprefix("Bearer ")):
            return handler

        def refuse(request: Any, context: grpc.ServicerContext) -> Any:
            context.set_trailing_metadata((("www-authenticate", 'Bearer error="invalid_token"'),))
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")

        if handler is not None and handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(refuse)
        if handler is not None and handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(refuse)
        return grpc.unary_unary_rpc_method_handler(refuse)
