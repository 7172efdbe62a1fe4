"""One channel to a gRPC server: bounded, with the trust of every other connection, and nothing sent twice."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import grpc

from mcp_gateway.config.backend_settings import BackendSettings
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.loop_tasks import HeldTasks
from mcp_gateway.transports.ports.upstream_port import CredentialRefused, UpstreamError, refuses_credential
from mcp_gateway.transports.upstream.http.client_tls import ClientTls

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


class ServerChannel:
    """The channel to one server; another one once the files of the gateway's certificate have changed.

    address: host:port.
    """

    def __init__(self, backend: BackendSettings, address: str, max_message_bytes: int, *, is_secure: bool) -> None:
        self._address = address
        self._max_bytes = max_message_bytes
        self._is_secure = is_secure
        self._tls = ClientTls.of(backend) if is_secure and backend.client_certificate else None
        self._longest_call_s = backend.request_timeout
        self._context: ssl.SSLContext | None = None
        self._channel: grpc.aio.Channel | None = None
        self._replaced: set[grpc.aio.Channel] = set()
        self._closing = HeldTasks()

    def current(self) -> grpc.aio.Channel:
        """It connects with the first call.

        Raises: UpstreamError where the gateway's certificate cannot be used.
        """
        try:
            context = None if self._tls is None else self._tls.context()
            if self._channel is None or context is not self._context:
                shown = ("", "") if self._tls is None else self._tls.files
                opened = open_channel(self._address, self._max_bytes, is_secure=self._is_secure, shown=shown)
                if self._channel is not None:
                    self._closing.start(self._let_end(self._channel))
                self._channel, self._context = opened, context
        except (OSError, ssl.SSLError) as error:
            text = f"the certificate of the gateway cannot be used: {error.strerror or error}"
            raise UpstreamError(Fate.UNREACHABLE, text) from error
        return self._channel

    async def connected(self) -> grpc.aio.Channel:
        """What fails before there is a connection was not sent.

        Raises: UpstreamError
        """
        while True:
            channel = self.current()
            await connect(channel, None)
            if channel is self._channel:
                return channel

    async def close(self) -> None:
        self._closing.cancel()
        for channel in (self._channel, *self._replaced):
            if channel is not None:
                await channel.close()

    async def _let_end(self, channel: grpc.aio.Channel) -> None:
        """Calls that are under way end over the connection on which they began."""
        self._replaced.add(channel)
        await channel.close(self._longest_call_s)
        self._replaced.discard(channel)


def open_channel(address: str, max_message_bytes: int, *, is_secure: bool, shown: Sequence[str] = ("", "")) -> grpc.aio.Channel:
    """shown: files of the gateway's certificate and its key, "" for none.

    Raises: OSError where they cannot be read.
    """
    options = [*_OPTIONS, ("grpc.max_receive_message_length", max_message_bytes)]
    if is_secure:
        certificate, key = (Path(path).read_bytes() if path else None for path in shown)
        return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(_trusted(), key, certificate), options)
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

    Nor is it wrong to have used one that was replaced meanwhile.

    Raises: UpstreamError
    """
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise UpstreamError(Fate.CUT, "the connection was closed") from None
    except grpc.aio.UsageError:
        raise UpstreamError(Fate.CUT, "the connection was closed") from None


def credential_refused(error: grpc.aio.AioRpcError) -> CredentialRefused | None:
    """Whether the server has not accepted the token that it was shown, as HTTP says so."""
    status = {grpc.StatusCode.UNAUTHENTICATED: 401, grpc.StatusCode.PERMISSION_DENIED: 403}.get(error.code(), 0)
    told = {name: value for name, value in error.trailing_metadata() or () if isinstance(value, str)}
    return CredentialRefused(status, told) if refuses_credential(status, told.get("www-authenticate", "")) else None
