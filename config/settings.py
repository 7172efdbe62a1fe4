"""Every setting of the gateway: its default, its range and the checks between settings.

Names are those of the TOML file. Durations are seconds. A class that exists is valid: building one from a refused value raises
`InvalidSetting`. All of them are plain values that may be pickled and sent to another process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
from attrs.validators import deep_iterable, instance_of, optional

from .backend_settings import BackendSettings, LeftOutServer, RouteSettings, backend_list_problems, route_list_problems
from .cluster_settings import ClusterSettings, cluster_problems
from .common_rules import (
    DURATION,
    DURATION_OR_AT_ONCE,
    DURATION_OR_OFF,
    PATH,
    WEB_URL,
    as_seconds,
    as_tuple,
    fields_of,
    raise_first,
    split_sources,
)
from .credential_settings import user_credential_problems
from .curation_settings import SearchSettings, ServerSettings, server_list_problems
from .grpc_settings import GrpcSettings, grpc_problems
from .identity_settings import AuditSettings, AuthSettings, PolicySettings, Revocations, TlsSettings
from .setting_rules import (
    Each,
    Flag,
    Network,
    Number,
    OneOf,
    SettingProblem,
    Sources,
    Text,
    Whole,
    kind_of,
    quote,
    quote_url,
)

LLHTTP = "llhttp"
TORNADO = "tornado"
MULTIPROCESS_BASE = "multiprocTCPBase"
IN_PROCESS_BASE = "simpleSystemBase"
LOG_LEVELS = ("debug", "info", "warning", "error")

_PORT = Whole(0, 65_535)
_CONNECTIONS = Whole(1, 1_000_000)
_HOST = Text(r"[A-Za-z0-9._:%-]+", "a host name or an IP address", longest=253)
_ORIGIN = Text(
    r"[A-Za-z][A-Za-z0-9+.-]*://[A-Za-z0-9._\[\]:-]+",
    "an origin such as https://app.example.com:8443, without a path",
    longest=300,
)
_ALLOWED_HOST = Text(
    r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?",
    "a host name, with a port or without, such as mcp.example.com",
    longest=261,
)
# An argument is the caller's own choice: as a key of a limit it would be a way around the limit.
_LIMIT_KEY = Sources(("user", "session", "ip"), ("header",))
_TOPIC_PATTERN = Text(
    r"\*|[a-z0-9_-]+(?:\.[a-z0-9_-]+)*(?:\.\*)?", "a topic or a pattern such as vsm.algedonic.* or all", longest=200
)
_SECRET = Text(r"[^\x00-\x1f\x7f]*", "a string without control characters", longest=1_000, show=kind_of)


def _as_lower_case(value: Sequence[str]) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(each, str) for each in value):
        return value  # type: ignore[return-value]
    return tuple(each.lower() for each in value)


def _as_origins(value: Sequence[str]) -> tuple[str, ...]:
    """Spell origins as browsers send them: lower case, no default port (RFC 6454, section 6.2)."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(origin, str) for origin in value):
        return value  # type: ignore[return-value]
    return tuple(dict.fromkeys(_as_browsers_send_it(origin.lower()) for origin in value))


def _as_browsers_send_it(origin: str) -> str:
    for scheme, default_port in (("https:", ":443"), ("http:", ":80")):
        if origin.startswith(scheme):
            return origin.removesuffix(default_port)
    return origin


@attrs.frozen(kw_only=True)
class GatewaySettings:
    """`[gateway]`: where it listens, and the limits and times that hold for all backends.

    cells:           processes that serve clients, or "auto" for one per core.
    pool_size:       connections to one replica, `max_overflow` more under load; `checkout_timeout` bounds the wait for one.
    hash_ring_size:  virtual nodes per replica.
    http_parser:     what reads requests and writes answers beneath the HTTP server; Tornado's own is kept to fall back on.
    header_timeout:  until the headers of a request, or the handshake of a connection, must be there.
    write_timeout:   how long a client may take nothing at all of what waits for it.
    max_buffered_bytes: what all cells of the node may hold together of messages that are being read or wait to be written.
    max_session_bytes: what is kept of one session.
    max_share_per_address: what the clients of one address may have of each limit that all clients share.
    idle_process_timeout: a stdio process that one session has for itself is ended when that has done nothing for so long.
    state_dir:       where sessions, events and the key of the actor system are kept; "" keeps everything in memory.
    public_url:      the address by which clients reach it, where that is another than `host` and `port`.
    allowed_hosts:   names that a request may be addressed to, besides IP addresses, names of this machine's loopback and that in
                     `public_url`; each with a port or for all.
    allowed_origins: browser origins that may connect, besides localhost and the gateway's own.
    localhost_origins: whether pages of this machine may connect to a gateway that they reach at localhost; else by name only.
    watch_config:    whether a configuration file that has changed is taken in as by `reload`.
    trusted_proxies: addresses and networks of proxies that are believed about whose request they pass on.
    """

    host: str = attrs.field(default="127.0.0.1", validator=_HOST)
    port: int = attrs.field(default=4000, validator=_PORT)
    cells: int | Literal["auto"] = attrs.field(default=1, validator=Whole(1, 256, word="auto"))
    pool_size: int = attrs.field(default=50, validator=Whole(1, 10_000))
    max_overflow: int = attrs.field(default=10, validator=Whole(0, 10_000))
    checkout_timeout: float = attrs.field(default=5.0, converter=as_seconds, validator=DURATION_OR_AT_ONCE)
    hash_ring_size: int = attrs.field(default=1024, validator=Whole(1, 65_536))
    health_check_interval: float = attrs.field(default=5.0, converter=as_seconds, validator=DURATION)
    request_timeout: float = attrs.field(default=60.0, converter=as_seconds, validator=DURATION)
    drain_timeout: float = attrs.field(default=10.0, converter=as_seconds, validator=DURATION_OR_AT_ONCE)
    max_message_bytes: int = attrs.field(default=4_194_304, validator=Whole(1_024, 1_073_741_824))
    http_parser: str = attrs.field(default=LLHTTP, validator=OneOf(LLHTTP, TORNADO))
    header_timeout: float = attrs.field(default=10.0, converter=as_seconds, validator=DURATION)
    write_timeout: float = attrs.field(default=30.0, converter=as_seconds, validator=DURATION)
    max_buffered_bytes: int = attrs.field(default=268_435_456, validator=Whole(1_048_576, 1_099_511_627_776))
    max_session_bytes: int = attrs.field(default=8_192, validator=Whole(1_024, 1_048_576))
    max_share_per_address: float = attrs.field(
        default=0.25, converter=as_seconds, validator=Number(0.001, 1.0, unit="each limit, as a share")
    )
    idle_process_timeout: float = attrs.field(default=60.0, converter=as_seconds, validator=DURATION_OR_OFF)
    state_dir: str = attrs.field(default="~/.local/state/mcp-gateway", validator=PATH)
    public_url: str = attrs.field(default="", validator=WEB_URL)
    allowed_hosts: tuple[str, ...] = attrs.field(default=(), converter=_as_lower_case, validator=Each(_ALLOWED_HOST, most=1_000))
    allowed_origins: tuple[str, ...] = attrs.field(default=(), converter=_as_origins, validator=Each(_ORIGIN, most=1_000))
    localhost_origins: bool = attrs.field(default=True, validator=Flag())
    watch_config: bool = attrs.field(default=False, validator=Flag())
    trusted_proxies: tuple[str, ...] = attrs.field(default=(), converter=as_tuple, validator=Each(Network(), most=1_000))

    @property
    def authority(self) -> str:
        """Where it listens: host and port as a URL has them."""
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def cell_count(self) -> int:
        """How many cells to start: `cells`, or one for each core that this process may run on."""
        return len(os.sched_getaffinity(0)) if self.cells == "auto" else self.cells

    @property
    def state_path(self) -> Path | None:
        """`state_dir` with ~ resolved; None keeps everything in memory."""
        return Path(os.path.expanduser(self.state_dir)) if self.state_dir else None


@attrs.frozen(kw_only=True)
class ActorSystemSettings:
    """`[actor_system]`: a node of processes, or one cell without actor ports."""

    base: str = attrs.field(default=MULTIPROCESS_BASE, validator=OneOf(MULTIPROCESS_BASE, IN_PROCESS_BASE))
    admin_port: int = attrs.field(default=1900, validator=_PORT)
    bind: str = attrs.field(default="127.0.0.1", validator=_HOST)

    @property
    def is_embedded(self) -> bool:
        return self.base == IN_PROCESS_BASE


@attrs.frozen(kw_only=True)
class HttpSseSettings:
    """`[transports.http_sse]`: the 2024-11-05 transport and the event streams.

    buffer_size:      events that may wait for one slow client.
    retention_events: events that the log keeps for those who come back, so many of the gateway and of clients each.
    """

    max_connections: int = attrs.field(default=1000, validator=_CONNECTIONS)
    heartbeat_interval: float = attrs.field(default=30.0, converter=as_seconds, validator=DURATION_OR_OFF)
    buffer_size: int = attrs.field(default=100, validator=Whole(1, 1_000_000))
    retention_events: int = attrs.field(default=10_000, validator=Whole(1, 10_000_000))


@attrs.frozen(kw_only=True)
class StreamableHttpSettings:
    """`[transports.streamable_http]`."""

    max_connections: int = attrs.field(default=1000, validator=_CONNECTIONS)
    session_idle_timeout: float = attrs.field(default=1800.0, converter=as_seconds, validator=DURATION_OR_OFF)
    max_sessions: int = attrs.field(default=10_000, validator=Whole(1, 10_000_000))


@attrs.frozen(kw_only=True)
class WebSocketSettings:
    """`[transports.websocket]`: MCP over WebSocket and Phoenix channels."""

    max_connections: int = attrs.field(default=1000, validator=_CONNECTIONS)
    ping_interval: float = attrs.field(default=30.0, converter=as_seconds, validator=DURATION_OR_OFF)
    pong_timeout: float = attrs.field(default=10.0, converter=as_seconds, validator=DURATION)
    compression: bool = attrs.field(default=True, validator=Flag())

    def __attrs_post_init__(self) -> None:
        raise_first(websocket_problems(fields_of(self)))


@attrs.frozen(kw_only=True)
class TransportsSettings:
    """`[transports]`: one table per way in."""

    http_sse: HttpSseSettings = attrs.field(factory=HttpSseSettings, validator=instance_of(HttpSseSettings))
    streamable_http: StreamableHttpSettings = attrs.field(
        factory=StreamableHttpSettings, validator=instance_of(StreamableHttpSettings)
    )
    websocket: WebSocketSettings = attrs.field(factory=WebSocketSettings, validator=instance_of(WebSocketSettings))


@attrs.frozen(kw_only=True)
class LimitsSettings:
    """`[limits]`: how much one client may ask for.

    requests_per_second: 0 sets no limit.
    burst:               requests above the rate that may come at once; 0 allows one second's worth.
    key:                 what makes a client, in order of preference.
    requests_per_day:    of each principal, or of each address where nobody has logged in, whatever `key` says; 0 sets no limit.
    """

    requests_per_second: float = attrs.field(
        default=0.0, converter=as_seconds, validator=Number(0.001, 1_000_000, unit="requests", zero_means="off")
    )
    burst: int = attrs.field(default=0, validator=Whole(0, 1_000_000))
    key: str = attrs.field(default="user|session|ip", validator=_LIMIT_KEY)
    requests_per_day: int = attrs.field(default=0, validator=Whole(0, 1_000_000_000))

    @property
    def key_sources(self) -> tuple[str, ...]:
        """`key` as names: ("user", "session", "ip")."""
        return split_sources(self.key)


@attrs.frozen(kw_only=True)
class LoggingSettings:
    """`[logging]`: what is written to standard error and kept in `state_dir`, and how.

    format:        "auto" writes lines for people on a terminal and JSON lines elsewhere.
    keep_bytes:    what `mcp-gateway logs` can read of it: so much is kept in `state_dir`; 0 keeps nothing.
    access:        whether each request of a client leaves a line.
    access_sample: the share of requests that ended well of which a line is written; all others are written in any case.
    """

    level: str = attrs.field(default="info", validator=OneOf(*LOG_LEVELS))
    format: str = attrs.field(default="auto", validator=OneOf("auto", "json", "human"))
    keep_bytes: int = attrs.field(default=16_777_216, validator=Whole(0, 1_099_511_627_776))
    access: bool = attrs.field(default=False, validator=Flag())
    access_sample: float = attrs.field(
        default=1.0,
        converter=as_seconds,
        validator=Number(0.0001, 1.0, unit="requests, as a share", zero_means="none that ended well"),
    )


@attrs.frozen(kw_only=True)
class AlertsSettings:
    """`[alerts]`: who is told when something hurts.

    topics:         events that are alerts.
    log:            whether each alert is a line of the log.
    webhook_url:    where alerts are posted to; "" nowhere. `webhook_secret` signs them; never shown.
    queue_size:     alerts that wait for a sink that does not take them; beyond, the oldest are given up.
    """

    topics: tuple[str, ...] = attrs.field(
        default=("vsm.algedonic.*", "mcp.health.failed", "mcp.health.recovered", "mcp.supervisor.escalated"),
        converter=as_tuple,
        validator=Each(_TOPIC_PATTERN, fewest=1, most=100),
    )
    log: bool = attrs.field(default=True, validator=Flag())
    webhook_url: str = attrs.field(default="", validator=WEB_URL, repr=quote_url)
    webhook_secret: str = attrs.field(default="", validator=_SECRET, repr=False)
    webhook_timeout: float = attrs.field(default=5.0, converter=as_seconds, validator=DURATION)
    queue_size: int = attrs.field(default=1_000, validator=Whole(1, 100_000))


@attrs.frozen(kw_only=True)
class TelemetrySettings:
    """`[telemetry]`: traces for OpenTelemetry; needs the extra `otel`.

    otlp_endpoint: collector that takes OTLP over HTTP, such as http://127.0.0.1:4318; "" makes no spans.
    sample_ratio:  the share of traces that begin here; one that a client has begun is kept as the client says.
    """

    otlp_endpoint: str = attrs.field(default="", validator=WEB_URL, repr=quote_url)
    service_name: str = attrs.field(default="mcp-gateway", validator=Text(r"[^\x00-\x1f\x7f]+", "a name", longest=200))
    sample_ratio: float = attrs.field(
        default=1.0, converter=as_seconds, validator=Number(0.0001, 1.0, unit="traces, as a share", zero_means="none")
    )


@attrs.frozen(kw_only=True)
class Settings:
    """The whole configuration. Without backends the gateway serves nothing until one is added while it runs.

    auth, tls, cluster: None where their tables are absent.
    revocations: who has lost access since; no part of a file.
    left_out, warnings: what of other programs' files is not served, and what of them was passed over, one line each.
    """

    gateway: GatewaySettings = attrs.field(factory=GatewaySettings, validator=instance_of(GatewaySettings))
    actor_system: ActorSystemSettings = attrs.field(factory=ActorSystemSettings, validator=instance_of(ActorSystemSettings))
    transports: TransportsSettings = attrs.field(factory=TransportsSettings, validator=instance_of(TransportsSettings))
    limits: LimitsSettings = attrs.field(factory=LimitsSettings, validator=instance_of(LimitsSettings))
    logging: LoggingSettings = attrs.field(factory=LoggingSettings, validator=instance_of(LoggingSettings))
    alerts: AlertsSettings = attrs.field(factory=AlertsSettings, validator=instance_of(AlertsSettings))
    telemetry: TelemetrySettings = attrs.field(factory=TelemetrySettings, validator=instance_of(TelemetrySettings))
    grpc: GrpcSettings = attrs.field(factory=GrpcSettings, validator=instance_of(GrpcSettings))
    backends: tuple[BackendSettings, ...] = attrs.field(
        default=(), validator=deep_iterable(instance_of(BackendSettings), instance_of(tuple))
    )
    routes: tuple[RouteSettings, ...] = attrs.field(
        default=(), validator=deep_iterable(instance_of(RouteSettings), instance_of(tuple))
    )
    servers: tuple[ServerSettings, ...] = attrs.field(
        default=(), validator=deep_iterable(instance_of(ServerSettings), instance_of(tuple))
    )
    search: SearchSettings = attrs.field(factory=SearchSettings, validator=instance_of(SearchSettings))
    auth: AuthSettings | None = attrs.field(default=None, validator=optional(instance_of(AuthSettings)))
    policies: tuple[PolicySettings, ...] = attrs.field(
        default=(), validator=deep_iterable(instance_of(PolicySettings), instance_of(tuple))
    )
    audit: AuditSettings = attrs.field(factory=AuditSettings, validator=instance_of(AuditSettings))
    tls: TlsSettings | None = attrs.field(default=None, validator=optional(instance_of(TlsSettings)))
    cluster: ClusterSettings | None = attrs.field(default=None, validator=optional(instance_of(ClusterSettings)))
    revocations: Revocations = attrs.field(factory=Revocations, validator=instance_of(Revocations))
    left_out: tuple[LeftOutServer, ...] = attrs.field(
        default=(), validator=deep_iterable(instance_of(LeftOutServer), instance_of(tuple))
    )
    warnings: tuple[str, ...] = attrs.field(default=(), validator=deep_iterable(instance_of(str), instance_of(tuple)))

    def __attrs_post_init__(self) -> None:
        backends = [fields_of(backend) for backend in self.backends]
        raise_first(backend_list_problems(backends))
        routes = [fields_of(route) for route in self.routes]
        raise_first(route_list_problems(routes, {backend.name for backend in self.backends}))
        raise_first(server_list_problems([fields_of(each) for each in self.servers], {each.name for each in self.backends}))
        raise_first(port_problems(fields_of(self.gateway), fields_of(self.actor_system)))
        tls = None if self.tls is None else fields_of(self.tls)
        raise_first(grpc_problems(fields_of(self.grpc), fields_of(self.gateway), fields_of(self.actor_system), tls))
        cluster = None if self.cluster is None else fields_of(self.cluster)
        raise_first(cluster_problems(cluster, fields_of(self.actor_system)))
        raise_first(user_credential_problems(backends, fields_of(self.gateway), has_auth=self.auth is not None))

    @property
    def scheme(self) -> str:
        return "http" if self.tls is None else "https"

    @property
    def url(self) -> str:
        """Where it listens, without a path."""
        return f"{self.scheme}://{self.gateway.authority}"

    def name_in_cluster(self, cell_name: str) -> str:
        """The name by which all cells know the one that its own node calls so: "node-a/cell/0", or as it is without a cluster."""
        return cell_name if self.cluster is None else f"{self.cluster.node}/{cell_name}"

    @classmethod
    def demo(cls) -> Settings:
        """What `serve` without arguments runs: the built-in demo server, its names as they are."""
        return cls(backends=(BackendSettings(name="demo", prefix="", builtin="demo"),))


# ---- checks between settings
# They take {field name: value} so that the loader can ask them about a table of which only some keys are right: a field that is
# absent was wrong itself, and what depends on it is not judged.


def websocket_problems(fields: Mapping[str, Any]) -> Iterator[SettingProblem]:
    """Check `[transports.websocket]`. Tornado refuses to wait longer for a pong than until the next ping."""
    ping_interval, pong_timeout = fields.get("ping_interval"), fields.get("pong_timeout")
    if ping_interval and pong_timeout is not None and pong_timeout > ping_interval:
        allowed = f"at most ping_interval ({quote(ping_interval)})"
        yield SettingProblem(key="pong_timeout", found=quote(pong_timeout), allowed=allowed)


def port_problems(gateway: Mapping[str, Any], actor_system: Mapping[str, Any]) -> Iterator[SettingProblem]:
    """Check that clients and actors do not meet on one port; an embedded gateway has no actor port."""
    port, admin_port = gateway.get("port"), actor_system.get("admin_port")
    if port and port == admin_port and actor_system.get("base") == MULTIPROCESS_BASE:
        yield SettingProblem(key="actor_system.admin_port", found=quote(admin_port), allowed="another port than gateway.port")
