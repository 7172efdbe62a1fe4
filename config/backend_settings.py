"""Settings of servers and of the ways to them: `[[backends]]`, `[[routes]]`. Rules as in `settings`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
from attrs.validators import instance_of

from .common_rules import (
    DURATION,
    DURATION_OR_OFF,
    LINE,
    NAME,
    PATH,
    SCOPE,
    WEB_URL,
    as_dict,
    as_seconds,
    as_tuple,
    fields_of,
    raise_first,
    split_sources,
)
from .credential_settings import AUTH_MODES, OAUTH_MODES, PER_USER_MODES, credential_problems
from .setting_rules import (
    Each,
    Flag,
    Number,
    OneOf,
    SecretTable,
    SettingProblem,
    Sources,
    Text,
    Whole,
    Words,
    quote,
    quote_url,
)
from .tool_settings import TOOLS, as_tools

REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28")
TRANSPORT_NAMES = ("streamable_http", "http_sse", "websocket")
URL_SCHEMES = ("http", "https", "sse+http", "sse+https", "auto+http", "auto+https", "ws", "wss", "grpc", "grpcs")
_KINDS = ("replicas", "command", "openapi", "grpc", "builtin")
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
# Source: MCP 2025-11-25, server/tools, "Tool Names": what the name of a tool may consist of.
_SEPARATOR = Text(r"[A-Za-z0-9_.-]{1,8}", "letters, digits, _ - and ., 1 to 8 characters", longest=8)
_PORT_NUMBER = r"(?:[0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_PREFIX = Text(r"[A-Za-z0-9_.-]*", "letters, digits, _ - and ., 66 characters at most", longest=66)
_URL = Text(
    r"(?:(?:sse|auto)\+https?|https?|wss?|grpcs?)://(?:[^\s/?#@\x00-\x1f\ud800-\udfff]*@)?(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)"
    rf"(?::{_PORT_NUMBER})?"
    r"(?:[/?][^\s#\x00-\x1f\x7f\ud800-\udfff]*)?",
    f"a URL with one of the schemes {', '.join(URL_SCHEMES)}, without a fragment",
    longest=2_000,
    show=quote_url,
)
_GRPC_REPLICA = re.compile(rf"grpcs?://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):{_PORT_NUMBER}")
# Source: gRPC, "PROTOCOL-HTTP2", Custom-Metadata: "-bin" ends the names of those that carry bytes.
_METADATA = re.compile(r"(?!.*-bin$)(?!grpc-)[0-9a-z_.-]+", re.IGNORECASE)
_REPLICA_ID = Text(r"[^\x00-\x1f\x7f\ud800-\udfff]+", "a replica as status names it", longest=2_100)
_GRPC = Text(
    rf"|(?:https?://)?(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):{_PORT_NUMBER}",
    "host:port, http://host:port, or https://host:port over TLS",
    longest=300,
)
_TITLE = Text(r"[^\x00-\x1f\x7f\ud800-\udfff]*", "a name on one line, 300 characters at most", longest=300)
_PATTERN = Text(r"[^\x00-\x1f\x7f\ud800-\udfff]+", "a pattern such as tools/call/files__*", longest=1_000)
_CALL_SHARE = Number(0.01, 1.0, unit="calls, as a share", zero_means="off")
_RETRY_SHARE = Number(0.001, 1.0, unit="answers, as a share", zero_means="no retry")
_HASH_ON = Sources(("user", "session", "ip"), ("header", "argument"))
_HEADERS = SecretTable(
    name=r"[A-Za-z0-9!#$%&'*+.^_`|~-]+",
    name_allowed="a header name (RFC 9110, section 5.1)",
    value=r"[^\x00-\x08\x0a-\x1f\x7f]*",
    value_allowed="strings without line breaks and control characters",
    reserved=RESERVED_HEADERS,
    ignore_case=True,
)
_ENV = SecretTable(
    name=r"[^=\x00\ud800-\udfff]+",
    name_allowed="the name of an environment variable",
    value=r"[^\x00]*",
    value_allowed="strings without NUL",
    ignore_case=False,
)


@attrs.frozen(kw_only=True)
class BackendSettings:
    """`[[backends]]`: one MCP server, as any number of equal replicas.

    title:    its name for people, such as the one that another program's file has for it; "" is `name`.
    separator: what is put behind the name to make a prefix of it.
    prefix:   stands before the names of its tools and prompts; name and separator if not given.
    replicas: URLs, those of gRPC of servers that speak MCP's own proto; or `command` with `env`, `cwd` and `instances` for a
              stdio server; or `openapi`; or `grpc`; or `builtin`. Exactly one of them.
    one_per_cluster: whether all nodes of a cluster together run `instances` of the command, instead of each node.
    openapi:  file or http(s) URL of the OpenAPI description of an HTTP API, whose operations are its tools.
    base_url: of that API, where it is another than its description says.
    grpc:     host:port of a gRPC server that tells its methods by reflection; https://host:port over TLS.
    headers:  sent with each request to it; secrets, never shown.
    tools:    what of its tools is served, and how; see `tool_settings.TOOLS`.
    draining: no new sessions and no stateless calls; `mcp-gateway drain` and `undrain` change it while the gateway runs.
    draining_replicas: the same of single replicas, as `status` names them; what others can take goes to those.
    adaptive_concurrency: whether it is found out, by how long calls take, how many a replica takes at once: never more than
              `pool_size` and `max_overflow` say, which stays the limit of a server that does not become slower.
    retry_budget: a share of its answers: so many requests that a server may have seen are sent again, where they only read or
              their tool may run twice, and ten a second more; 0 for none.
    hedge_after: where a request that only reads, outside of any session, has no answer for so long, another replica is asked as
              well; 0 asks one alone. For requests to this backend's own endpoint, or where it is the only one.
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

    name: str = attrs.field(validator=NAME)
    separator: str = attrs.field(default="__", validator=_SEPARATOR)
    prefix: str = attrs.field(validator=_PREFIX)
    replicas: tuple[str, ...] = attrs.field(
        default=(),
        converter=as_tuple,
        validator=Each(_URL, most=1_000, show_element=quote_url),
        repr=lambda urls: f"[{', '.join(quote_url(url) for url in urls)}]",
    )
    command: tuple[str, ...] = attrs.field(default=(), converter=as_tuple, validator=Words(), repr=False)
    env: dict[str, str] = attrs.field(factory=dict, converter=as_dict, validator=_ENV, repr=False, hash=False)
    cwd: str = attrs.field(default=".", validator=PATH)
    instances: int = attrs.field(default=1, validator=Whole(1, 1_000))
    one_per_cluster: bool = attrs.field(default=False, validator=Flag())
    openapi: str = attrs.field(default="", validator=PATH, repr=quote_url)
    base_url: str = attrs.field(default="", validator=WEB_URL)
    grpc: str = attrs.field(default="", validator=_GRPC)
    builtin: str | None = attrs.field(default=None, validator=OneOf("demo", or_none=True))
    protocol: str = attrs.field(default="auto", validator=OneOf("auto", *REVISIONS))
    headers: dict[str, str] = attrs.field(factory=dict, converter=as_dict, validator=_HEADERS, repr=False, hash=False)
    request_timeout: float = attrs.field(default=60.0, converter=as_seconds, validator=DURATION)
    pool_size: int = attrs.field(default=50, validator=Whole(1, 10_000))
    draining: bool = attrs.field(default=False, validator=Flag())
    draining_replicas: tuple[str, ...] = attrs.field(default=(), converter=as_tuple, validator=Each(_REPLICA_ID, most=1_000))
    adaptive_concurrency: bool = attrs.field(default=False, validator=Flag())
    hedge_after: float = attrs.field(default=0.0, converter=as_seconds, validator=DURATION_OR_OFF)
    retry_budget: float = attrs.field(default=0.2, converter=as_seconds, validator=_RETRY_SHARE)
    title: str = attrs.field(default="", validator=_TITLE)
    tools: dict[str, Any] = attrs.field(factory=dict, converter=as_tools, validator=TOOLS, hash=False)

    auth: str = attrs.field(default="none", validator=OneOf(*AUTH_MODES))
    token_url: str = attrs.field(default="", validator=WEB_URL, repr=quote_url)
    issuer: str = attrs.field(default="", validator=WEB_URL)
    client_id: str = attrs.field(default="", validator=LINE)
    client_secret_file: str = attrs.field(default="", validator=PATH)
    scopes: tuple[str, ...] = attrs.field(default=(), converter=as_tuple, validator=Each(SCOPE, most=1_000))
    resource: str = attrs.field(default="", validator=WEB_URL)
    allow_private: bool = attrs.field(default=False, validator=Flag())
    client_certificate: str = attrs.field(default="", validator=PATH)
    client_key: str = attrs.field(default="", validator=PATH)

    @prefix.default
    def _name_and_separator(self) -> str:
        return default_prefix(self.name, self.separator)

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
        if self.openapi or self.grpc:
            return (f"{'openapi' if self.openapi else 'grpc'}:{self.name}",)
        if self.command:
            return tuple(f"stdio:{self.name}#{index}" for index in range(self.instances))
        shown = [quote_url(url)[1:-1] for url in self.replicas]
        return tuple(name if shown.count(name) == 1 else f"{name}#{index}" for index, name in enumerate(shown))

    def __attrs_post_init__(self) -> None:
        raise_first(backend_problems(fields_of(self)))


@attrs.frozen(kw_only=True)
class RouteSettings:
    """`[[routes]]`: which requests go to which backend, and how a replica is chosen and given up.

    max_ejected_share: how many replicas calls that fail may keep out at one time; one, however few there are.
    failure_rate_threshold: the share of a replica's calls within `rate_window` that failed, if there were `rate_minimum_calls`,
                       by which its circuit opens where another replica can take its calls; 0 asks for failures in a row only.
    slow_call_duration: a call that takes longer is slow, and `slow_call_rate_threshold` the share of those that opens a circuit
                       in the same way; 0 has no call be slow.
    panic:             whether a replica that is out is tried where all of them are.
    hash_balance_factor: a replica with more calls than so many times the mean passes keys on to the next one; 0 keeps each key
                       where it is, whatever the load.
    slow_start:        a replica that returns, or is new, takes a tenth of its keys at first and all of them after so long.
    """

    pattern: str = attrs.field(validator=_PATTERN)
    backend: str = attrs.field(validator=NAME)
    hash_on: str = attrs.field(default="user|session|ip", validator=_HASH_ON)
    failure_threshold: int = attrs.field(default=5, validator=Whole(1, 10_000))
    reset_timeout: float = attrs.field(default=30.0, converter=as_seconds, validator=DURATION)
    max_ejected_share: float = attrs.field(
        default=0.5, converter=as_seconds, validator=Number(0.0, 1.0, unit="the route's replicas, as a share")
    )
    failure_rate_threshold: float = attrs.field(default=0.5, converter=as_seconds, validator=_CALL_SHARE)
    slow_call_rate_threshold: float = attrs.field(default=0.5, converter=as_seconds, validator=_CALL_SHARE)
    slow_call_duration: float = attrs.field(default=0.0, converter=as_seconds, validator=DURATION_OR_OFF)
    rate_window: float = attrs.field(default=10.0, converter=as_seconds, validator=Number(1.0, 3_600.0))
    rate_minimum_calls: int = attrs.field(default=20, validator=Whole(1, 1_000_000))
    panic: bool = attrs.field(default=False, validator=Flag())
    hash_balance_factor: float = attrs.field(
        default=0.0, converter=as_seconds, validator=Number(1.01, 100.0, unit="times the mean load", zero_means="off")
    )
    slow_start: float = attrs.field(default=0.0, converter=as_seconds, validator=DURATION_OR_OFF)
    transports: tuple[str, ...] = attrs.field(
        default=TRANSPORT_NAMES, converter=as_tuple, validator=Each(OneOf(*TRANSPORT_NAMES), fewest=1, most=len(TRANSPORT_NAMES))
    )

    @property
    def hash_sources(self) -> tuple[str, ...]:
        """`hash_on` as names in order of preference: ("user", "header:X-Tenant")."""
        return split_sources(self.hash_on)


@attrs.frozen(kw_only=True)
class LeftOutServer:
    """A server of another program's file that cannot be understood, and is not served.

    name:   under which it would be served. title: as written.
    reason: file, key, what was found and what is allowed, on one line.
    """

    name: str = attrs.field(validator=instance_of(str))
    title: str = attrs.field(validator=instance_of(str))
    reason: str = attrs.field(validator=instance_of(str))


def default_prefix(name: str, separator: str = "__") -> str:
    """The prefix of a backend that names none."""
    return f"{name}{separator}"


def backend_problems(fields: Mapping[str, Any]) -> Iterator[SettingProblem]:
    """Check one backend: exactly one kind of server, and only the keys that mean something for it."""
    if not fields.keys() >= set(_KINDS):  # one of them is wrong, which is told already
        return
    kinds = [kind for kind in _KINDS if fields.get(kind)]
    if len(kinds) != 1:
        found = " and ".join(kinds) or "none of them"
        yield SettingProblem(key="", found=found, allowed=f"exactly one of {', '.join(_KINDS)}")
        return
    if str(fields["openapi"]).startswith("http://") and not fields.get("allow_private"):
        allowed = "a file, an https URL, or allow_private = true beside it"
        yield SettingProblem(key="openapi", found=quote_url(fields["openapi"]), allowed=allowed)
    for key, unset in (("env", {}), ("cwd", "."), ("instances", 1), ("one_per_cluster", False)):
        if kinds[0] != "command" and fields.get(key, unset) != unset:
            yield SettingProblem(key=key, found=f"set beside {kinds[0]}", allowed="only beside command")
    if kinds[0] not in ("replicas", "openapi", "grpc") and fields.get("headers"):
        yield SettingProblem(key="headers", found=f"set beside {kinds[0]}", allowed="only beside replicas, openapi and grpc")
    if kinds[0] != "openapi" and fields.get("base_url"):
        yield SettingProblem(key="base_url", found=f"set beside {kinds[0]}", allowed="only beside openapi")
    yield from _grpc_problems(fields)
    yield from credential_problems(fields)
    yield from _certificate_problems(fields)


def _grpc_problems(fields: Mapping[str, Any]) -> Iterator[SettingProblem]:
    """What gRPC has no form of: addresses with more than a host and a port, older revisions, headers of some names."""
    spoken = [url for url in fields["replicas"] if str(url).startswith(("grpc:", "grpcs:"))]
    for url in spoken:
        if not _GRPC_REPLICA.fullmatch(url):
            yield SettingProblem(key="replicas", found=quote_url(url), allowed="grpc://host:port, or grpcs://host:port over TLS")
    if spoken and fields.get("protocol") not in (None, "auto", REVISIONS[-1]):
        yield SettingProblem(key="protocol", found=quote(fields["protocol"]), allowed=f"auto or {REVISIONS[-1]} over gRPC")
    if spoken or fields["grpc"]:
        for name, value in (fields.get("headers") or {}).items():
            if not (_METADATA.fullmatch(name) and value.isascii()):
                allowed = "letters, digits, _ - and ., neither grpc- before nor -bin behind them, and an ASCII value, over gRPC"
                yield SettingProblem(key="headers", found=quote(name), allowed=allowed)


def _certificate_problems(fields: Mapping[str, Any]) -> Iterator[SettingProblem]:
    """Which transport an `auto+https` server speaks is found out by a request that shows no certificate."""
    certificate, key = fields.get("client_certificate"), fields.get("client_key")
    if certificate is None or key is None or not (certificate or key):
        return
    if not (certificate and key):
        missing = "client_key" if certificate else "client_certificate"
        yield SettingProblem(key=missing, found="nothing", allowed="both of client_certificate and client_key, or neither")
    addresses = (fields["grpc"],) if fields["grpc"] else fields["replicas"]
    if not all(str(url).startswith(("https:", "sse+https:", "wss:", "grpcs:")) for url in addresses) or not addresses:
        allowed = "only where each replica is https, sse+https, wss or grpcs, or grpc is https"
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
        elif prefix is not None and not (
            name is not None and owners[name] != index and prefix == default_prefix(name, backend.get("separator", "__"))
        ):
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
