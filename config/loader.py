"""Reads settings from files and says everything that is wrong with them, one clear line each."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from .backend_settings import (
    BackendSettings,
    RouteSettings,
    backend_list_problems,
    backend_problems,
    default_prefix,
    route_list_problems,
)
from .cluster_settings import ClusterSettings, cluster_problems
from .credential_settings import filled_in, user_credential_problems
from .curation_settings import SearchSettings, ServerSettings, server_list_problems, unknown_parts
from .environment import SOURCE, names_backends, put_over, variable_behind
from .grpc_settings import GrpcSettings, grpc_problems
from .identity_settings import (
    ApiKeySettings,
    AuditSettings,
    AuthSettings,
    IssuerSettings,
    PolicySettings,
    TlsSettings,
    auth_problems,
)
from .setting_rules import Rule, SettingProblem, kind_of, name_part
from .settings import (
    ActorSystemSettings,
    AlertsSettings,
    GatewaySettings,
    HttpSseSettings,
    LimitsSettings,
    LoggingSettings,
    Settings,
    StreamableHttpSettings,
    TelemetrySettings,
    TransportsSettings,
    WebSocketSettings,
    port_problems,
    websocket_problems,
)
from .shown_text import shown

_LARGEST_FILE_BYTES = 4_194_304
_MOST_TABLES = 10_000
_SECTIONS = (
    *("gateway", "actor_system", "transports", "limits", "logging", "alerts", "telemetry"),
    *("auth", "tls", "cluster", "policies", "audit", "backends", "routes", "servers", "search", "grpc"),
)
_TRANSPORTS: dict[str, type[Any]] = {
    "http_sse": HttpSseSettings,
    "streamable_http": StreamableHttpSettings,
    "websocket": WebSocketSettings,
}


@attrs.frozen(kw_only=True)
class ConfigProblem:
    """One thing wrong in a configuration file; `str()` of it is one line.

    file:         as the caller named it.
    key:          "gateway.pool_size", "backends[1].replicas[0]"; "" when the file as a whole cannot be read.
    found:        what is there, quoted and short; never a secret.
    allowed:      what may be there.
    line, column: from 1; None where the format's reader does not tell (a value that reads well and is not allowed).
    """

    file: str
    key: str
    found: str
    allowed: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        where = shown(self.file)
        if self.line is not None:
            where += f":{self.line}:{self.column}"
        if self.key:
            where += f": {self.key}"
        return f"{where}: found {self.found}; allowed: {self.allowed}"


class ConfigError(Exception):
    """A configuration that cannot be used. `problems` names everything that is wrong, in the order of the settings."""

    def __init__(self, problems: Iterable[ConfigProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


def load_settings(path: str | os.PathLike[str], variables: Mapping[str, str] | None = None) -> Settings:
    """Read a TOML file; the folders of stdio servers are relative to its own. Raises ConfigError with all problems.

    variables: settings of the environment that stand over it, see `environment`.
    """
    import tomllib  # here, because `serve` without a file has no use for it and start-up is measured

    file = os.fspath(path)
    text = _read_text(file)
    try:
        mapping = tomllib.loads(text)
    except RecursionError:
        raise unreadable(file, "arrays or tables nested too deeply", "TOML") from None
    except ValueError as error:  # a TOMLDecodeError, or an integer of more than 4300 digits
        raise _toml_error(file, text, error) from None
    settings = _with_variables(mapping, file, variables or {})
    folder = os.path.dirname(os.path.abspath(file))
    return attrs.evolve(settings, backends=tuple(beside_file(backend, folder) for backend in settings.backends))


def settings_of_variables(variables: Mapping[str, str]) -> Settings:
    """The settings of the environment alone; the demo server where they have no backend. Raises ConfigError."""
    demo = {"backends": [{"name": "demo", "prefix": "", "builtin": "demo"}]}
    return _with_variables({} if names_backends(variables) else demo, SOURCE, variables)


def _with_variables(mapping: Mapping[str, Any], file: str, variables: Mapping[str, str]) -> Settings:
    changed, wrong = put_over(mapping, variables)
    problems = [ConfigProblem(file=name, key=each.key, found=each.found, allowed=each.allowed) for name, each in wrong.items()]
    try:
        settings = settings_from_mapping(changed, file)
    except ConfigError as error:
        problems += [attrs.evolve(each, file=variable_behind(each.key, variables) or each.file) for each in error.problems]
    if problems:
        raise ConfigError(problems)
    return settings


def settings_from_mapping(mapping: Mapping[str, Any], file: str) -> Settings:
    """Build settings from what a TOML reader returned; `file` is only named in the problems. Raises ConfigError."""
    report = _Report(file)
    report.unknown_keys("", mapping, _SECTIONS)
    gateway = report.read_table("gateway", mapping.get("gateway", {}), GatewaySettings)
    actor_system = report.read_table("actor_system", mapping.get("actor_system", {}), ActorSystemSettings)
    report.add("", port_problems(gateway, actor_system))
    transport_tables = report.as_table("transports", mapping.get("transports", {}))
    report.unknown_keys("transports", transport_tables, tuple(_TRANSPORTS))
    transports = {
        name: report.read_table(f"transports.{name}", transport_tables.get(name, {}), settings_class)
        for name, settings_class in _TRANSPORTS.items()
    }
    report.add("transports.websocket", websocket_problems(transports["websocket"]))
    limits = report.read_table("limits", mapping.get("limits", {}), LimitsSettings)
    logging = report.read_table("logging", mapping.get("logging", {}), LoggingSettings)
    alerts = report.read_table("alerts", mapping.get("alerts", {}), AlertsSettings)
    telemetry = report.read_table("telemetry", mapping.get("telemetry", {}), TelemetrySettings)
    tls = report.read_table("tls", mapping["tls"], TlsSettings) if "tls" in mapping else None
    auth = report.read_auth(mapping["auth"], gateway, tls) if "auth" in mapping else None
    cluster = report.read_table("cluster", mapping["cluster"], ClusterSettings) if "cluster" in mapping else None
    report.add("", cluster_problems(cluster, actor_system))
    audit = report.read_table("audit", mapping.get("audit", {}), AuditSettings)
    policies = report.read_tables("policies", mapping.get("policies", []), PolicySettings)
    backend_tables = report.as_tables("backends", mapping.get("backends", []))
    backends = [report.read_backend(f"backends[{index}]", table, gateway) for index, table in enumerate(backend_tables)]
    report.add("", backend_list_problems(backends))
    report.add("", user_credential_problems(backends, gateway, has_auth="auth" in mapping))
    route_tables = report.as_tables("routes", mapping.get("routes", []))
    routes = [report.read_table(f"routes[{index}]", table, RouteSettings) for index, table in enumerate(route_tables)]
    # A name that is wrong in [[backends]] was told there; the route that repeats it need not be told again.
    names = {table["name"] for table in backend_tables if isinstance(table, Mapping) and isinstance(table.get("name"), str)}
    report.add("", route_list_problems(routes, names))
    servers = report.read_tables("servers", mapping.get("servers", []), ServerSettings)
    report.add("", server_list_problems(servers, names))
    report.add("", unknown_parts(servers, names))
    search = report.read_table("search", mapping.get("search", {}), SearchSettings)
    grpc = report.read_table("grpc", mapping.get("grpc", {}), GrpcSettings)
    report.add("", grpc_problems(grpc, gateway, actor_system, tls))
    report.raise_if_any()
    return Settings(
        gateway=GatewaySettings(**gateway),
        actor_system=ActorSystemSettings(**actor_system),
        transports=TransportsSettings(**{name: _TRANSPORTS[name](**values) for name, values in transports.items()}),
        limits=LimitsSettings(**limits),
        logging=LoggingSettings(**logging),
        alerts=AlertsSettings(**alerts),
        telemetry=TelemetrySettings(**telemetry),
        auth=None if auth is None else _auth_settings(auth),
        tls=None if tls is None else TlsSettings(**tls),
        cluster=None if cluster is None else ClusterSettings(**cluster),
        audit=AuditSettings(**audit),
        policies=tuple(PolicySettings(**policy) for policy in policies),
        backends=tuple(BackendSettings(**backend) for backend in backends),
        routes=tuple(RouteSettings(**route) for route in routes),
        servers=tuple(ServerSettings(**server) for server in servers),
        search=SearchSettings(**search),
        grpc=GrpcSettings(**grpc),
    )


def backend_from_mapping(mapping: Mapping[str, Any], file: str, gateway: GatewaySettings) -> BackendSettings:
    """Build one backend, such as `add-backend` names, with the defaults of a running gateway. Raises ConfigError."""
    report = _Report(file)
    values = report.read_backend("", mapping, attrs.asdict(gateway, recurse=False))
    report.raise_if_any()
    return BackendSettings(**values)


def raise_list_problems(file: str, backends: Sequence[BackendSettings], routes: Sequence[RouteSettings]) -> None:
    """Check backends and routes against each other, as when they stand in one file. Raises ConfigError with all problems."""
    report = _Report(file)
    report.add("", backend_list_problems([attrs.asdict(backend, recurse=False) for backend in backends]))
    names = {backend.name for backend in backends}
    report.add("", route_list_problems([attrs.asdict(route, recurse=False) for route in routes], names))
    report.raise_if_any()


def beside_file(backend: BackendSettings, folder: str) -> BackendSettings:
    """The backend with its paths as seen from the folder of the file that names it, wherever the gateway was started."""
    if backend.openapi and not backend.openapi.startswith(("http://", "https://")):
        return attrs.evolve(backend, openapi=os.path.normpath(os.path.join(folder, os.path.expanduser(backend.openapi))))
    if not backend.command:
        return backend
    return attrs.evolve(backend, cwd=os.path.normpath(os.path.join(folder, os.path.expanduser(backend.cwd))))


class _Report:
    """Collects problems while tables are read into {field name: value}; a field that was wrong is left out."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[ConfigProblem] = []

    def add(self, where: str, problems: Iterable[SettingProblem]) -> None:
        for problem in problems:
            key = ".".join(part for part in (where, problem.key) if part)
            self.problems.append(ConfigProblem(file=self.file, key=key, found=problem.found, allowed=problem.allowed))

    def raise_if_any(self) -> None:
        if self.problems:
            raise ConfigError(self.problems)

    def as_table(self, where: str, value: Any) -> Mapping[str, Any]:
        if isinstance(value, Mapping):
            return value
        self.add(where, [SettingProblem(key="", found=kind_of(value), allowed="a table")])
        return {}

    def as_tables(self, where: str, value: Any) -> list[Any]:
        if isinstance(value, list) and len(value) <= _MOST_TABLES:
            return value
        found = f"{len(value)} tables" if isinstance(value, list) else kind_of(value)
        self.add(where, [SettingProblem(key="", found=found, allowed=f"up to {_MOST_TABLES} tables, each under [[{where}]]")])
        return []

    def unknown_keys(self, where: str, table: Mapping[str, Any], known: tuple[str, ...]) -> None:
        for key in table:
            if key not in known:
                near = _nearest(key, known)
                allowed = f"{near} (did you mean that?)" if near else ", ".join(known)
                self.add(where, [SettingProblem(key=name_part(key), found="an unknown key", allowed=allowed)])

    def read_table(
        self, where: str, value: Any, settings_class: type[Any], inherited: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Read one table by the rules of its class. `inherited` are defaults that stand before those of the class."""
        if not isinstance(value, Mapping):
            self.as_table(where, value)
            return {}
        fields = attrs.fields_dict(settings_class)
        self.unknown_keys(where, value, tuple(fields))
        values: dict[str, Any] = {}
        for name, field in fields.items():
            default: Any = field.default
            if name in value:
                wrong = list(_rule_of(field).problems(name, value[name]))
                self.add(where, wrong)
                if not wrong:
                    values[name] = value[name]
            elif inherited is not None and name in inherited:
                values[name] = inherited[name]
            elif default is attrs.NOTHING:
                self.add(where, [SettingProblem(key=name, found="nothing", allowed=_rule_of(field).allowed)])
            elif not isinstance(default, attrs.Factory):  # type: ignore[arg-type]
                values[name] = default
            elif not default.takes_self:
                values[name] = default.factory()
        return values

    def read_backend(self, where: str, table: Any, gateway: Mapping[str, Any]) -> dict[str, Any]:
        inherited = {key: gateway[key] for key in ("request_timeout", "pool_size") if key in gateway}
        values = self.read_table(where, table, BackendSettings, inherited)
        if "name" in values and "prefix" not in table:
            values["prefix"] = default_prefix(values["name"], values.get("separator", "__"))
        self.add(where, backend_problems(values))
        if values.get("auth") == "headers" and "headers" in values:
            values["headers"], problems = filled_in(values["headers"], os.environ)
            self.add(where, problems)
        return values

    def read_tables(self, where: str, value: Any, settings_class: type[Any]) -> list[dict[str, Any]]:
        tables = self.as_tables(where, value)
        return [self.read_table(f"{where}[{index}]", table, settings_class) for index, table in enumerate(tables)]

    def read_auth(self, value: Any, gateway: Mapping[str, Any], tls: Mapping[str, Any] | None) -> dict[str, Any]:
        table = dict(self.as_table("auth", value))
        tables = {
            name: self.read_tables(f"auth.{name}", table.pop(name, []), settings_class)
            for name, settings_class in (("issuers", IssuerSettings), ("api_keys", ApiKeySettings))
        }
        values = {**self.read_table("auth", table, AuthSettings), **tables}
        self.add("auth", auth_problems(values, gateway, tls))
        return values


def _auth_settings(values: Mapping[str, Any]) -> AuthSettings:
    issuers = tuple(IssuerSettings(**issuer) for issuer in values["issuers"])
    return AuthSettings(**{**values, "issuers": issuers, "api_keys": tuple(ApiKeySettings(**key) for key in values["api_keys"])})


def _rule_of(field: attrs.Attribute[Any]) -> Rule:
    """The rule that judges a field of a settings class."""
    rule = field.validator
    assert isinstance(rule, Rule), field.name
    return rule


def _nearest(key: object, known: tuple[str, ...]) -> str | None:
    if not isinstance(key, str) or len(key) > 100:
        return None
    import difflib  # only when there is something to complain about

    return next(iter(difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.75)), None)


def read_bytes(file: str) -> bytes:
    """The content of a file of reasonable size. Raises ConfigError."""
    try:
        with open(file, "rb") as stream:
            content = stream.read(_LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise unreadable(file, (error.strerror or "an error").lower(), "a file that can be read") from None
    except ValueError:
        raise unreadable(file, "a file name with NUL", "a file that can be read") from None
    if len(content) > _LARGEST_FILE_BYTES:
        raise unreadable(file, f"more than {_LARGEST_FILE_BYTES} bytes", f"up to {_LARGEST_FILE_BYTES} bytes")
    return content


def _read_text(file: str) -> str:
    """Read UTF-8, with or without a byte order mark."""
    content = read_bytes(file)
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8")
        found = f"byte 0x{content[error.start]:02x}, which is not UTF-8"
        line, column = _position(before)
        raise ConfigError([ConfigProblem(file=file, key="", found=found, allowed="UTF-8", line=line, column=column)]) from None


def _toml_error(file: str, text: str, error: ValueError) -> ConfigError:
    """Turn "Invalid value (at line 3, column 5)" into a problem with a position; tomllib has no other way to tell."""
    message, _, position = str(error).rpartition(" (at ")
    if position == "end of document)":
        line, column = _position(text)
    elif position.startswith("line ") and position.endswith(")"):
        line, column = (int(part.split()[1]) for part in position[:-1].split(", "))
    else:
        return unreadable(file, "an integer of more than 4300 digits", "TOML")
    message = message if message.isprintable() and len(message) <= 200 else "a key or value that TOML refuses"
    found = f"invalid TOML ({message})"
    return ConfigError([ConfigProblem(file=file, key="", found=found, allowed="TOML 1.0", line=line, column=column)])


def _position(text_before: str) -> tuple[int, int]:
    """Line and column, from 1, of what follows this text."""
    return text_before.count("\n") + 1, len(text_before) - text_before.rfind("\n")


def unreadable(file: str, found: str, allowed: str) -> ConfigError:
    """What a file is refused with that cannot be used as a whole."""
    return ConfigError([ConfigProblem(file=file, key="", found=found, allowed=allowed)])
