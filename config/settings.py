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

from .credential_settings import AUTH_MODES, OAUTH_MODES, PER_USER_MODES, credential_problems, user_credential_problems
from .identity_settings import AuditSettings, AuthSettings, PolicySettings, Revocations, TlsSettings
from .setting_rules import (
    Each,
    Flag,
    InvalidSetting,
    Network,
    Number,
    OneOf,
    SecretTable,
    SettingProblem,
    Sources,
    Table,
    Text,
    Whole,
    Words,
    kind_of,
    quote,
    quote_url,
)

LLHTTP = "llhttp"
TORNADO = "tornado"
MULTIPROCESS_BASE = "multiprocTCPBase"
IN_PROCESS_BASE = "simpleSystemBase"
REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28")
TRANSPORT_NAMES = ("streamable_http", "http_sse", "websocket")
LOG_LEVELS = ("debug", "info", "warning", "error")
URL_SCHEMES = ("http", "https", "sse+http", "sse+https", "auto+http", "auto+https", "ws", "wss")
# What the gateway says itself in a request to a server.
RESERVED_HEADERS = frozenset(
    {
        "accept",
        "connection",
        "content-length",
        "content-type",
        "last-event-id",
        "mcp-protocol-version",
        "mcp-session-id",
        "transfer-encoding",
        "upgrade",
    }
)

_ONE_WEEK_S = 604_800.0
_SHORTEST_S = 0.01  # below that, an interval is a busy loop
_DURATION = Number(_SHORTEST_S, _ONE_WEEK_S)
_DURATION_OR_OFF = Number(_SHORTEST_S, _ONE_WEEK_S, zero_means="off")
_DURATION_OR_AT_ONCE = Number(_SHORTEST_S, _ONE_WEEK_S, zero_means="do not wait")
_PORT = Whole(0, 65_535)
_CONNECTIONS = Whole(1, 1_000_000)
_HOST = Text(r"[A-Za-z0-9._:%-]+", "a host name or an IP address", longest=253)
_NAME = Text(r"[A-Za-z][A-Za-z0-9_-]*", "a letter, then letters, digits, - and _, 64 characters at most", longest=64)
# Source: MCP 2025-11-25, server/tools, "Tool Names": what the name of a tool may consist of.
_PREFIX = Text(r"[A-Za-z0-9_.-]*", "letters, digits, _ - and ., 66 characters at most", longest=66)
_ORIGIN = Text(
    r"[A-Za-z][A-Za-z0-9+.-]*://[A-Za-z0-9._\[\]:-]+",
    "an origin such as https://app.example.com:8443, without a path",
    longest=300,
)
_URL = Text(
    r"(?:(?:sse|auto)\+https?|https?|wss?)://(?:[^\s/?#@\x00-\x1f\ud800-\udfff]*@)?(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)"
    r"(?::(?:[0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?"
    r"(?:[/?][^\s#\x00-\x1f\x7f\ud800-\udfff]*)?",
    f"a URL with one of the schemes {', '.join(URL_SCHEMES)}, without a fragment",
    longest=2_000,
    show=quote_url,
)
_ALLOWED_HOST = Text(
    r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?",
    "a host name, with a port or without, such as mcp.example.com",
    longest=261,
)
_TOOL_PATTERNS = Each(
    Text(r"[^\x00-\x1f\x7f\ud800-\udfff]+", "the name of a tool, or a pattern such as read_*", longest=200), most=1_000
)
_TITLE = Text(r"[^\x00-\x1f\x7f\ud800-\udfff]*", "a name on one line, 300 characters at most", longest=300)
_PATH = Text(r"[^\x00\ud800-\udfff]*", "a path", longest=4_096)
_PATTERN = Text(r"[^\x00-\x1f\x7f\ud800-\udfff]+", "a pattern such as tools/call/files__*", longest=1_000)
_HASH_ON = Sources(("user", "session", "ip"), ("header", "argument"))
# An argument is the caller's own choice: as a key of a limit it would be a way around the limit.
_LIMIT_KEY = Sources(("user", "session", "ip"), ("header",))
_HEADERS = SecretTable(
    name=r"[A-Za-z0-9!#$%&'*+.^_`|~-]+",
    name_allowed="a header name (RFC 9110, section 5.1)",
    value=r"[^\x00-\x08\x0a-\x1f\x7f]*",
    value_allowed="strings without line breaks and control characters",
    reserved=RESERVED_HEADERS,
    ignore_case=True,
)
_TOPIC_PATTERN = Text(
    r"\*|[a-z0-9_-]+(?:\.[a-z0-9_-]+)*(?:\.\*)?", "a topic or a pattern such as vsm.algedonic.* or all", longest=200
)
_WEB_URL = Text(
    r"|https?://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?(?:[/?][^\s#\x00-\x1f\x7f\ud800-\udfff]*)?",
    "an http or https URL without user and fragment, or an empty string",
    longest=2_000,
    show=quote_url,
)
_LINE = Text(r"[^\x00-\x1f\x7f\ud800-\udfff]*", "a string on one line", longest=1_000)
# Source: RFC 6749, section 3.3, scope-token.
_SCOPE = Text(r"[\x21\x23-\x5b\x5d-\x7e]+", "a scope: printable ASCII without space, quotation mark and backslash", longest=200)
_SECRET = Text(r"[^\x00-\x1f\x7f]*", "a string without control characters", longest=1_000, show=kind_of)
_ENV = SecretTable(
    name=r"[^=\x00\ud800-\udfff]+",
    name_allowed="the name of an environment variable",
    value=r"[^\x00]*",
    value_allowed="strings without NUL",
    ignore_case=False,
)


def _as_seconds(value: float) -> float:
    """Take 5 for 5.0; leave anything else for the rule to judge."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= 2**53:
        return float(value)
    return value


def _as_tuple(value: Sequence[str]) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, list) else value  # type: ignore[return-value]


def _as_lower_case(value: Sequence[str]) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(each, str) for each in value):
        return value  # type: ignore[return-value]
    return tuple(each.lower() for each in value)


def _as_dict(value: Mapping[str, str]) -> dict[str, str]:
    return dict(value) if isinstance(value, Mapping) else value


def _as_lists(value: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Leave out what is empty: it says nothing."""
    if not isinstance(value, Mapping):
        return value
    return {name: _as_tuple(each) for name, each in value.items() if each not in ([], ())}


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
    checkout_timeout: float = attrs.field(default=5.0, converter=_as_seconds, validator=_DURATION_OR_AT_ONCE)
    hash_ring_size: int = attrs.field(default=1024, validator=Whole(1, 65_536))
    health_check_interval: float = attrs.field(default=5.0, converter=_as_seconds, validator=_DURATION)
    request_timeout: float = attrs.field(default=60.0, converter=_as_seconds, validator=_DURATION)
    drain_timeout: float = attrs.field(default=10.0, converter=_as_seconds, validator=_DURATION_OR_AT_ONCE)
    max_message_bytes: int = attrs.field(default=4_194_304, validator=Whole(1_024, 1_073_741_824))
    http_parser: str = attrs.field(default=LLHTTP, validator=OneOf(LLHTTP, TORNADO))
    header_timeout: float = attrs.field(default=10.0, converter=_as_seconds, validator=_DURATION)
    write_timeout: float = attrs.field(default=30.0, converter=_as_seconds, validator=_DURATION)
    max_buffered_bytes: int = attrs.field(default=268_435_456, validator=Whole(1_048_576, 1_099_511_627_776))
    max_session_bytes: int = attrs.field(default=8_192, validator=Whole(1_024, 1_048_576))
    max_share_per_address: float = attrs.field(
        default=0.25, converter=_as_seconds, validator=Number(0.001, 1.0, unit="each limit, as a share")
    )
    idle_process_timeout: float = attrs.field(default=60.0, converter=_as_seconds, validator=_DURATION_OR_OFF)
    state_dir: str = attrs.field(default="~/.local/state/mcp-gateway", validator=_PATH)
    public_url: str = attrs.field(default="", validator=_WEB_URL)
    allowed_hosts: tuple[str, ...] = attrs.field(default=(), converter=_as_lower_case, validator=Each(_ALLOWED_HOST, most=1_000))
    allowed_origins: tuple[str, ...] = attrs.field(default=(), converter=_as_origins, validator=Each(_ORIGIN, most=1_000))
    localhost_origins: bool = attrs.field(default=True, validator=Flag())
    watch_config: bool = attrs.field(default=False, validator=Flag())
    trusted_proxies: tuple[str, ...] = attrs.field(default=(), converter=_as_tuple, validator=Each(Network(), most=1_000))

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
    retention_events: events that the log keeps for those who come back; a cell so many of the gateway and of clients each.
    """

    max_connections: int = attrs.field(default=1000, validator=_CONNECTIONS)
    heartbeat_interval: float = attrs.field(default=30.0, converter=_as_seconds, validator=_DURATION_OR_OFF)
    buffer_size: int = attrs.field(default=100, validator=Whole(1, 1_000_000))
    retention_events: int = attrs.field(default=10_000, validator=Whole(1, 10_000_000))


@attrs.frozen(kw_only=True)
class StreamableHttpSettings:
    """`[transports.streamable_http]`."""

    max_connections: int = attrs.field(default=1000, validator=_CONNECTIONS)
    session_idle_timeout: float = attrs.field(default=1800.0, converter=_as_seconds, validator=_DURATION_OR_OFF)
    max_sessions: int = attrs.field(default=10_000, validator=Whole(1, 10_000_000))


@attrs.frozen(kw_only=True)
class WebSocketSettings:
    """`[transports.websocket]`: MCP over WebSocket and Phoenix channels."""

    max_connections: int = attrs.field(default=1000, validator=_CONNECTIONS)
    ping_interval: float = attrs.field(default=30.0, converter=_as_seconds, validator=_DURATION_OR_OFF)
    pong_timeout: float = attrs.field(default=10.0, converter=_as_seconds, validator=_DURATION)
    compression: bool = attrs.field(default=True, validator=Flag())

    def __attrs_post_init__(self) -> None:
        _raise_first(websocket_problems(_fields_of(self)))


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
    """

    requests_per_second: float = attrs.field(
        default=0.0, converter=_as_seconds, validator=Number(0.001, 1_000_000, unit="requests", zero_means="off")
    )
    burst: int = attrs.field(default=0, validator=Whole(0, 1_000_000))
    key: str = attrs.field(default="user|session|ip", validator=_LIMIT_KEY)

    @property
    def key_sources(self) -> tuple[str, ...]:
        """`key` as names: ("user", "session", "ip")."""
        return _split_sources(self.key)


@attrs.frozen(kw_only=True)
class LoggingSettings:
    """`[logging]`: what is written to standard error, and how.

    format:        "auto" writes lines for people on a terminal and JSON lines elsewhere.
    access:        whether each request of a client leaves a line.
    access_sample: the share of requests that ended well of which a line is written; all others are written in any case.
    """

    level: str = attrs.field(default="info", validator=OneOf(*LOG_LEVELS))
    format: str = attrs.field(default="auto", validator=OneOf("auto", "json", "human"))
    access: bool = attrs.field(default=False, validator=Flag())
    access_sample: float = attrs.field(
        default=1.0,
        converter=_as_seconds,
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
        converter=_as_tuple,
        validator=Each(_TOPIC_PATTERN, fewest=1, most=100),
    )
    log: bool = attrs.field(default=True, validator=Flag())
    webhook_url: str = attrs.field(default="", validator=_WEB_URL, repr=quote_url)
    webhook_secret: str = attrs.field(default="", validator=_SECRET, repr=False)
    webhook_timeout: float = attrs.field(default=5.0, converter=_as_seconds, validator=_DURATION)
    queue_size: int = attrs.field(default=1_000, validator=Whole(1, 100_000))


@attrs.frozen(kw_only=True)
class TelemetrySettings:
    """`[telemetry]`: traces for OpenTelemetry; needs the extra `otel`.

    otlp_endpoint: collector that takes OTLP over HTTP, such as http://127.0.0.1:4318; "" makes no spans.
    sample_ratio:  the share of traces that begin here; one that a client has begun is kept as the client says.
    """

    otlp_endpoint: str = attrs.field(default="", validator=_WEB_URL, repr=quote_url)
    service_name: str = attrs.field(default="mcp-gateway", validator=Text(r"[^\x00-\x1f\x7f]+", "a name", longest=200))
    sample_ratio: float = attrs.field(
        default=1.0, converter=_as_seconds, validator=Number(0.0001, 1.0, unit="traces, as a share", zero_means="none")
    )


@attrs.frozen(kw_only=True)
class BackendSettings:
    """`[[backends]]`: one MCP server, as any number of equal replicas.

    title:    its name for people, such as the one that another program's file has for it; "" is `name`.
    prefix:   stands before the names of its tools and prompts; NAME__ if not given.
    replicas: URLs; or `command` with `env`, `cwd` and `instances` for a stdio server; or `builtin`. Exactly one of the three.
    headers:  sent with each request to it; secrets, never shown.
    tools:    {"allow", "deny"}: patterns of the tools that are served, all where there is no "allow"; "deny" wins.
    draining: no new sessions and no stateless calls; `mcp-gateway drain` and `undrain` change it while the gateway runs.
    request_timeout, pool_size: the loader takes them from `[gateway]` where a file does not give them.
    auth:     what the server is shown. "none" and "headers": `headers`, the latter with `${NAME}` and `${file:PATH}` filled in
              by the loader; "client_credentials": a token of the gateway's own; "token_exchange": one that the client's is
              exchanged for; "user": one that the user has consented to.
    token_url, issuer: the authorization server; found out from the server itself where neither is given.
    client_id, client_secret_file: what the authorization server knows the gateway by.
    scopes:   asked for; () asks for those that the server names.
    resource: what tokens are made out to; "" is the server's URL.
    client_certificate, client_key: PEM files of what the gateway shows of itself over TLS; "" shows nothing.
    allow_private: whether server and authorization server may have private addresses, or speak plain HTTP.
    """

    name: str = attrs.field(validator=_NAME)
    prefix: str = attrs.field(validator=_PREFIX)
    replicas: tuple[str, ...] = attrs.field(
        default=(),
        converter=_as_tuple,
        validator=Each(_URL, most=1_000, show_element=quote_url),
        repr=lambda urls: f"[{', '.join(quote_url(url) for url in urls)}]",
    )
    command: tuple[str, ...] = attrs.field(default=(), converter=_as_tuple, validator=Words(), repr=False)
    env: dict[str, str] = attrs.field(factory=dict, converter=_as_dict, validator=_ENV, repr=False, hash=False)
    cwd: str = attrs.field(default=".", validator=_PATH)
    instances: int = attrs.field(default=1, validator=Whole(1, 1_000))
    builtin: str | None = attrs.field(default=None, validator=OneOf("demo", or_none=True))
    protocol: str = attrs.field(default="auto", validator=OneOf("auto", *REVISIONS))
    headers: dict[str, str] = attrs.field(factory=dict, converter=_as_dict, validator=_HEADERS, repr=False, hash=False)
    request_timeout: float = attrs.field(default=60.0, converter=_as_seconds, validator=_DURATION)
    pool_size: int = attrs.field(default=50, validator=Whole(1, 10_000))
    draining: bool = attrs.field(default=False, validator=Flag())
    title: str = attrs.field(default="", validator=_TITLE)
    tools: dict[str, tuple[str, ...]] = attrs.field(
        factory=dict, converter=_as_lists, validator=Table(allow=_TOOL_PATTERNS, deny=_TOOL_PATTERNS), hash=False
    )

    auth: str = attrs.field(default="none", validator=OneOf(*AUTH_MODES))
    token_url: str = attrs.field(default="", validator=_WEB_URL, repr=quote_url)
    issuer: str = attrs.field(default="", validator=_WEB_URL)
    client_id: str = attrs.field(default="", validator=_LINE)
    client_secret_file: str = attrs.field(default="", validator=_PATH)
    scopes: tuple[str, ...] = attrs.field(default=(), converter=_as_tuple, validator=Each(_SCOPE, most=1_000))
    resource: str = attrs.field(default="", validator=_WEB_URL)
    allow_private: bool = attrs.field(default=False, validator=Flag())
    client_certificate: str = attrs.field(default="", validator=_PATH)
    client_key: str = attrs.field(default="", validator=_PATH)

    @prefix.default
    def _name_and_two_underscores(self) -> str:
        return default_prefix(self.name)

    @property
    def gets_tokens(self) -> bool:
        """Whether an authorization server gives out what this server is shown."""
        return self.auth in OAUTH_MODES

    @property
    def is_per_user(self) -> bool:
        """Whether the server is shown each user as that user, so that nothing of one may be used for another."""
        return self.auth in PER_USER_MODES

    @property
    def replica_ids(self) -> tuple[str, ...]:
        """What names each replica in rings, status and metrics: its URL without secrets, or `stdio:NAME#0`, `builtin:demo`."""
        if self.builtin is not None:
            return (f"builtin:{self.builtin}",)
        if self.command:
            return tuple(f"stdio:{self.name}#{index}" for index in range(self.instances))
        shown = [quote_url(url)[1:-1] for url in self.replicas]
        return tuple(name if shown.count(name) == 1 else f"{name}#{index}" for index, name in enumerate(shown))

    def __attrs_post_init__(self) -> None:
        _raise_first(backend_problems(_fields_of(self)))


@attrs.frozen(kw_only=True)
class RouteSettings:
    """`[[routes]]`: which requests go to which backend, and how a replica is chosen and given up.

    max_ejected_share: how many replicas calls that fail may keep out at one time; one, however few there are.
    """

    pattern: str = attrs.field(validator=_PATTERN)
    backend: str = attrs.field(validator=_NAME)
    hash_on: str = attrs.field(default="user|session|ip", validator=_HASH_ON)
    failure_threshold: int = attrs.field(default=5, validator=Whole(1, 10_000))
    reset_timeout: float = attrs.field(default=30.0, converter=_as_seconds, validator=_DURATION)
    max_ejected_share: float = attrs.field(
        default=0.5, converter=_as_seconds, validator=Number(0.0, 1.0, unit="the route's replicas, as a share")
    )
    transports: tuple[str, ...] = attrs.field(
        default=TRANSPORT_NAMES, converter=_as_tuple, validator=Each(OneOf(*TRANSPORT_NAMES), fewest=1, most=len(TRANSPORT_NAMES))
    )

    @property
    def hash_sources(self) -> tuple[str, ...]:
        """`hash_on` as names in order of preference: ("user", "header:X-Tenant")."""
        return _split_sources(self.hash_on)


@attrs.frozen(kw_only=True)
class LeftOutServer:
    """A server of another program's file that cannot be understood, and is not served.

    name:   under which it would be served. title: as written.
    reason: file, key, what was found and what is allowed, on one line.
    """

    name: str = attrs.field(validator=instance_of(str))
    title: str = attrs.field(validator=instance_of(str))
    reason: str = attrs.field(validator=instance_of(str))


@attrs.frozen(kw_only=True)
class Settings:
    """The whole configuration. Without backends the gateway serves nothing until one is added while it runs.

    auth, tls: None where their tables are absent.
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
    backends: tuple[BackendSettings, ...] = attrs.field(
        default=(), validator=deep_iterable(instance_of(BackendSettings), instance_of(tuple))
    )
    routes: tuple[RouteSettings, ...] = attrs.field(
        default=(), validator=deep_iterable(instance_of(RouteSettings), instance_of(tuple))
    )
    auth: AuthSettings | None = attrs.field(default=None, validator=optional(instance_of(AuthSettings)))
    policies: tuple[PolicySettings, ...] = attrs.field(
        default=(), validator=deep_iterable(instance_of(PolicySettings), instance_of(tuple))
    )
    audit: AuditSettings = attrs.field(factory=AuditSettings, validator=instance_of(AuditSettings))
    tls: TlsSettings | None = attrs.field(default=None, validator=optional(instance_of(TlsSettings)))
    revocations: Revocations = attrs.field(factory=Revocations, validator=instance_of(Revocations))
    left_out: tuple[LeftOutServer, ...] = attrs.field(
        default=(), validator=deep_iterable(instance_of(LeftOutServer), instance_of(tuple))
    )
    warnings: tuple[str, ...] = attrs.field(default=(), validator=deep_iterable(instance_of(str), instance_of(tuple)))

    def __attrs_post_init__(self) -> None:
        backends = [_fields_of(backend) for backend in self.backends]
        _raise_first(backend_list_problems(backends))
        routes = [_fields_of(route) for route in self.routes]
        _raise_first(route_list_problems(routes, {backend.name for backend in self.backends}))
        _raise_first(port_problems(_fields_of(self.gateway), _fields_of(self.actor_system)))
        _raise_first(user_credential_problems(backends, _fields_of(self.gateway), has_auth=self.auth is not None))

    @property
    def scheme(self) -> str:
        return "http" if self.tls is None else "https"

    @property
    def url(self) -> str:
        """Where it listens, without a path."""
        return f"{self.scheme}://{self.gateway.authority}"

    @classmethod
    def demo(cls) -> Settings:
        """What `serve` without arguments runs: the built-in demo server, its names as they are."""
        return cls(backends=(BackendSettings(name="demo", prefix="", builtin="demo"),))


# ---- checks between settings
# They take {field name: value} so that the loader can ask them about a table of which only some keys are right: a field that is
# absent was wrong itself, and what depends on it is not judged.


def default_prefix(name: str) -> str:
    """The prefix of a backend that names none."""
    return f"{name}__"


def websocket_problems(fields: Mapping[str, Any]) -> Iterator[SettingProblem]:
    """Check `[transports.websocket]`. Tornado refuses to wait longer for a pong than until the next ping."""
    ping_interval, pong_timeout = fields.get("ping_interval"), fields.get("pong_timeout")
    if ping_interval and pong_timeout is not None and pong_timeout > ping_interval:
        allowed = f"at most ping_interval ({quote(ping_interval)})"
        yield SettingProblem(key="pong_timeout", found=quote(pong_timeout), allowed=allowed)


def backend_problems(fields: Mapping[str, Any]) -> Iterator[SettingProblem]:
    """Check one backend: exactly one kind of server, and only the keys that mean something for it."""
    if not {"replicas", "command", "builtin"} <= fields.keys():
        return
    kinds = [kind for kind in ("replicas", "command", "builtin") if fields[kind]]
    if len(kinds) != 1:
        found = " and ".join(kinds) or "none of them"
        yield SettingProblem(key="", found=found, allowed="exactly one of replicas, command, builtin")
        return
    for key, unset in (("env", {}), ("cwd", "."), ("instances", 1)):
        if kinds[0] != "command" and fields.get(key, unset) != unset:
            yield SettingProblem(key=key, found=f"set beside {kinds[0]}", allowed="only beside command")
    if kinds[0] != "replicas" and fields.get("headers"):
        yield SettingProblem(key="headers", found=f"set beside {kinds[0]}", allowed="only beside replicas")
    yield from credential_problems(fields)
    yield from _certificate_problems(fields)


def _certificate_problems(fields: Mapping[str, Any]) -> Iterator[SettingProblem]:
    """Which transport an `auto+https` server speaks is found out by a request that shows no certificate."""
    certificate, key = fields.get("client_certificate"), fields.get("client_key")
    if certificate is None or key is None or not (certificate or key):
        return
    if not (certificate and key):
        missing = "client_key" if certificate else "client_certificate"
        yield SettingProblem(key=missing, found="nothing", allowed="both of client_certificate and client_key, or neither")
    if not all(str(url).startswith(("https:", "sse+https:", "wss:")) for url in fields["replicas"]) or not fields["replicas"]:
        allowed = "only where each replica is https, sse+https or wss"
        yield SettingProblem(key="client_certificate", found=quote(certificate), allowed=allowed)


def backend_list_problems(backends: Sequence[Mapping[str, Any]], where: Sequence[str] = ()) -> Iterator[SettingProblem]:
    """Check backends against each other: names are unique, and a name with a prefix can belong to one backend only.

    where: how problems call each backend; "backends[0]" and so on if not given.
    """
    where = where or [f"backends[{index}]" for index in range(len(backends))]
    owners: dict[str, int] = {}
    for index, backend in enumerate(backends):
        name = backend.get("name")
        if name is not None and owners.setdefault(name, index) != index:
            allowed = f"a name of its own ({where[owners[name]]} has it)"
            yield SettingProblem(key=f"{where[index]}.name", found=quote(name), allowed=allowed)
    # The name is also the scheme of the backend's resources in the merged server, where case and "_" cannot be told.
    schemes: dict[str, str] = {}
    for name, index in owners.items():
        other = schemes.setdefault(name.lower().replace("_", "-"), name)
        if other != name:
            allowed = f"a name that differs from {where[owners[other]]} in more than case and _ for -"
            yield SettingProblem(key=f"{where[index]}.name", found=quote(name), allowed=allowed)
    if len(backends) == 1:
        return
    prefixes: list[tuple[str, int]] = []
    for index, backend in enumerate(backends):
        name, prefix = backend.get("name"), backend.get("prefix")
        if prefix == "":
            allowed = "an empty prefix only with a single backend"
            yield SettingProblem(key=f"{where[index]}.prefix", found="''", allowed=allowed)
        # The default prefix of a name that was told of above is no second mistake.
        elif prefix is not None and not (name is not None and owners[name] != index and prefix == default_prefix(name)):
            prefixes.append((prefix, index))
    # In sorted order, whatever a prefix begins follows it directly: comparing with the last one that continues no other is
    # enough, and thousands of backends cost no time.
    root: tuple[str, int] | None = None
    for prefix, index in sorted(prefixes):
        if root is not None and prefix.startswith(root[0]):
            later, earlier = max(index, root[1]), min(index, root[1])
            allowed = f"neither the beginning nor the continuation of the prefix of {where[earlier]}"
            yield SettingProblem(key=f"{where[later]}.prefix", found=quote(backends[later]["prefix"]), allowed=allowed)
        else:
            root = (prefix, index)


def route_list_problems(routes: Sequence[Mapping[str, Any]], backend_names: set[str]) -> Iterator[SettingProblem]:
    """Check routes: the backend exists, and no earlier route takes everything that this one could."""
    served: dict[tuple[str, str], int] = {}
    for index, route in enumerate(routes):
        backend = route.get("backend")
        if backend is not None and backend not in backend_names:
            known = ", ".join(sorted(backend_names)[:10]) or "none is configured"
            yield SettingProblem(key=f"routes[{index}].backend", found=quote(backend), allowed=f"the name of a backend: {known}")
        if "pattern" in route and "transports" in route:
            takers = {served.setdefault((route["pattern"], transport), index) for transport in route["transports"]}
            if takers and index not in takers:
                allowed = f"a pattern or transports that routes[{min(takers)}] does not serve already"
                yield SettingProblem(key=f"routes[{index}].pattern", found=quote(route["pattern"]), allowed=allowed)


def port_problems(gateway: Mapping[str, Any], actor_system: Mapping[str, Any]) -> Iterator[SettingProblem]:
    """Check that clients and actors do not meet on one port; an embedded gateway has no actor port."""
    port, admin_port = gateway.get("port"), actor_system.get("admin_port")
    if port and port == admin_port and actor_system.get("base") == MULTIPROCESS_BASE:
        yield SettingProblem(key="actor_system.admin_port", found=quote(admin_port), allowed="another port than gateway.port")


def _fields_of(settings: attrs.AttrsInstance) -> dict[str, Any]:
    return attrs.asdict(settings, recurse=False)


def _raise_first(problems: Iterator[SettingProblem]) -> None:
    for problem in problems:
        raise InvalidSetting(problem)


def _split_sources(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split("|"))
