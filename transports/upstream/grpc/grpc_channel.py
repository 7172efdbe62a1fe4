"""One channel to a gRPC server: bounded, with the trust of every other connection, and nothing sent twice."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import grpc

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.upstream_port import UpstreamError

_CONNECT_S: Final = 10.0
_MS: Final = 1_000

# Source: gRPC core, grpc_types.h.
_OPTIONS: Final = (
    ("grpc.enable_retries", 0),  # whether a request may run twice is the gateway's to decide
    ("grpc.service_config_disable_resolution", 1),  # nor may whoever answers for the name tell how calls are made
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),  # a replica has its own connection
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1 * _MS),
    ("grpc.max_reconnect_backoff_ms", 2 * _MS),
    ("grpc.keepalive_time_ms", 30 * _MS),  # a server that is gone without a word
    ("grpc.keepalive_timeout_ms", 10 * _MS),
)


def open_channel(address: str, max_message_bytes: int, *, is_secure: bool) -> grpc.aio.Channel:
    """address: host:port. It connects with the first call."""
    options = [*_OPTIONS, ("grpc.max_receive_message_length", max_message_bytes)]
    if is_secure:
        return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(_trusted()), options)
    return grpc.aio.insecure_channel(address, options)


def _trusted() -> bytes | None:
    """The authorities that this machine trusts, as for other connections; None for those that gRPC brings along."""
    path = ssl.get_default_verify_paths().cafile
    return None if path is None else Path(path).read_bytes()


def metadata_of(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """Headers as gRPC has them, but those of a client that it has no form of. Source: gRPC, "PROTOCOL-HTTP2", ASCII-Value."""
    return [(name.lower(), value) for name, value in headers.items() if value.isascii() and value.isprintable()]


async def connect(channel: grpc.aio.Channel, timeout_s: float | None) -> None:
    """Wait until there is a connection: what fails before was not sent.

    Raises: UpstreamError
    """
    try:
        async with asyncio.timeout(_CONNECT_S if timeout_s is None else min(_CONNECT_S, timeout_s)):
            state = channel.get_state(try_to_connect=True)
            while state is not grpc.ChannelConnectivity.READY:
                if state in (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN):
                    raise UpstreamError(Fate.UNREACHABLE, "no connection to the gRPC server")
                await channel.wait_for_state_change(state)
                state = channel.get_state(try_to_connect=True)
    except TimeoutError:
        raise UpstreamError(Fate.UNREACHABLE, "no connection in time") from None


@contextmanager
def not_cancelled_by_close() -> Iterator[None]:
    """A channel that is closed has not cancelled the tasks that wait for its calls, though gRPC raises the same in them.

    Raises: UpstreamError
    """
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise UpstreamError(Fate.CUT, "the connection was closed") from None
