"""What an operator may change while a gateway runs: backends, routes, who has access. Pure: settings in, settings out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from mcp_gateway.actors.messages.node import TAKE_REVOCATIONS, TAKE_SETTINGS
from mcp_gateway.config.backend_settings import BackendSettings, RouteSettings
from mcp_gateway.config.identity_settings import AuthSettings
from mcp_gateway.config.loader import ConfigError, ConfigProblem, backend_from_mapping, raise_list_problems
from mcp_gateway.config.setting_rules import InvalidSetting, quote
from mcp_gateway.config.settings import Settings
from mcp_gateway.transports.protocol.merging.naming import Naming

from .revocation_changes import changed_revocations
from .settings_tables import with_tables

BACKEND_COMMANDS = ("add-backend", "remove-backend", "drain", "undrain", "reload", "revoke", TAKE_REVOCATIONS, TAKE_SETTINGS)
SHARED_COMMANDS: Final = frozenset({"add-backend", "remove-backend", "reload"})
"""Those that all nodes of a cluster follow."""

_FOLLOWING: Final = ("policies", "servers", "search")
_CHANGEABLE: Final = ("backends", "routes", *_FOLLOWING, "revocations", "left_out", "warnings")
_ABSENT: Final = object()


@attrs.frozen(kw_only=True)
class BackendChange:
    """A change that may be made.

    settings: what runs after it.
    events:   (last part of the topic, name of the backend): ("added", "files").
    tables:   other tables of a file that have changed: "policies".
    left:     keys of a file that differ from what runs and cannot follow: "gateway.port".
    orphans:  virtual servers that name a backend which has gone, and have nothing of it any more.
    denied:   who has no access after a revocation or its end, by whichever names.
    """

    settings: Settings
    events: tuple[tuple[str, str], ...]
    tables: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    orphans: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()

    @property
    def outcome(self) -> dict[str, Any]:
        """As the command is answered once all have taken it."""
        told = {"changes": self.events, "tables": self.tables, "left": self.left, "orphans": self.orphans, "denied": self.denied}
        return {"ok": True, **told}


def backend_change(settings: Settings, command: str, arguments: Mapping[str, Any]) -> BackendChange:
    """What one of the BACKEND_COMMANDS changes. A command that finds everything as it wants it changes nothing.

    arguments: {"backend": a [[backends]] table} to add, {"name": of the backend} to remove, drain and undrain,
               {"name", "replica": as status names it} to drain and undrain one alone,
               {"settings": those of the file} to reload, what `changed_revocations` takes to revoke,
               {"revocations": all of them} to take those of a cluster, {"tables": as encoded} to take its settings.

    Raises: ConfigError with everything that is wrong, also where what may change does not fit what may not.
    """
    try:
        return _changed(settings, command, arguments)
    except InvalidSetting as error:
        problem = error.problem
        found = ConfigProblem(file=command, key=problem.key, found=problem.found, allowed=problem.allowed)
        raise ConfigError([found]) from None


def _changed(settings: Settings, command: str, arguments: Mapping[str, Any]) -> BackendChange:
    """Raises: ConfigError, InvalidSetting."""
    if command == "reload":
        return _reloaded(settings, arguments["settings"])
    if command == "revoke":
        revoked = changed_revocations(settings.revocations, arguments)
        denied = (*(settings.auth.denied_subjects if settings.auth is not None else ()), *revoked.subjects)
        return BackendChange(settings=attrs.evolve(settings, revocations=revoked), events=(), denied=denied)
    if command == TAKE_REVOCATIONS:
        return BackendChange(settings=attrs.evolve(settings, revocations=arguments["revocations"]), events=())
    if command == TAKE_SETTINGS:
        return _reloaded(settings, _of_cluster(settings, arguments["tables"]))
    if command == "add-backend":
        backends, routes = _with_backend(settings, arguments["backend"])
    elif command == "remove-backend":
        name = _known_name(settings, command, arguments["name"])
        backends = tuple(backend for backend in settings.backends if backend.name != name)
        # Where none is left each backend is found by its prefix, as with a file that has no routes.
        routes = tuple(route for route in settings.routes if route.backend != name)
        orphans = tuple(each.name for each in settings.servers if any(part.startswith(f"{name}/") for part in each.include))
        return attrs.evolve(_change(settings, backends, routes), orphans=orphans)
    else:
        name = _known_name(settings, command, arguments["name"])
        routes = settings.routes
        if arguments.get("replica"):
            backends = _with_replica_drain(settings.backends, command, name, arguments["replica"])
        else:
            backends = _with_drain(settings.backends, {name}, command == "drain")
    return _change(settings, backends, routes)


def _of_cluster(settings: Settings, tables: bytes) -> Settings:
    """Raises: ConfigError for what another version has written, InvalidSetting."""
    try:
        return with_tables(settings, json.loads(tables))
    except (TypeError, KeyError, ValueError) as error:
        if isinstance(error, InvalidSetting):
            raise
        allowed = "those of nodes of one version"
        raise ConfigError([ConfigProblem(file=TAKE_SETTINGS, key="tables", found=repr(error), allowed=allowed)]) from None


def _with_backend(settings: Settings, table: Mapping[str, Any]) -> tuple[tuple[BackendSettings, ...], tuple[RouteSettings, ...]]:
    """The backend comes last; beside routes it gets its own, by its prefix: without any, it would not be found."""
    backend = backend_from_mapping(table, "add-backend", settings.gateway)
    if len(settings.backends) == 1 and not settings.backends[0].prefix:
        advice = f"remove-backend {settings.backends[0].name}, and add it again after this one, or give it a prefix in its file"
        allowed = f"an empty prefix only with a single backend: {advice}"
        raise ConfigError([ConfigProblem(file="add-backend", key="backends[0].prefix", found="''", allowed=allowed)])
    backends, routes = (*settings.backends, backend), settings.routes
    if routes:
        patterns = Naming(backend.name, backend.prefix).default_patterns
        routes = (*routes, *(RouteSettings(pattern=pattern, backend=backend.name) for pattern in patterns))
    raise_list_problems("add-backend", backends, routes)
    return backends, routes


def _known_name(settings: Settings, command: str, name: object) -> str:
    known = [backend.name for backend in settings.backends]
    if not isinstance(name, str) or name not in known:
        allowed = f"the name of a backend: {', '.join(sorted(known)[:10]) or 'none runs'}"
        raise ConfigError([ConfigProblem(file=command, key="name", found=quote(name), allowed=allowed)])
    return name


def _with_drain(backends: Iterable[BackendSettings], names: set[str], is_draining: bool) -> tuple[BackendSettings, ...]:
    return tuple(attrs.evolve(each, draining=is_draining) if each.name in names else each for each in backends)


def _with_replica_drain(
    backends: Iterable[BackendSettings], command: str, name: str, replica: object
) -> tuple[BackendSettings, ...]:
    """Raises: ConfigError where the backend has no such replica."""

    def drained(backend: BackendSettings) -> BackendSettings:
        if replica not in backend.replica_ids:
            allowed = f"a replica of {name}: {', '.join(backend.replica_ids[:10])}"
            raise ConfigError([ConfigProblem(file=command, key="replica", found=quote(replica), allowed=allowed)])
        others = tuple(each for each in backend.draining_replicas if each != replica)
        return attrs.evolve(backend, draining_replicas=(*others, replica) if command == "drain" else others)

    return tuple(drained(each) if each.name == name else each for each in backends)


def without_drains(settings: Settings) -> Settings:
    """As if no operator had anything drain."""
    return attrs.evolve(
        settings, backends=tuple(attrs.evolve(each, draining=False, draining_replicas=()) for each in settings.backends)
    )


def _reloaded(settings: Settings, wanted: Settings) -> BackendChange:
    """What the file says; but a backend that is draining goes on doing so: an edit of the file elsewhere must not end that.

    Of [auth] it is the keys and who is denied that follow; whom the gateway believes, it was started to believe.
    """
    draining = {backend.name for backend in settings.backends if backend.draining}
    drained = {backend.name: backend.draining_replicas for backend in settings.backends}
    before = settings
    settings = attrs.evolve(
        settings,
        policies=wanted.policies,
        servers=(),  # those of the file, once its backends are there: a name may go from the one to the other
        search=wanted.search,
        auth=_with_keys_of(settings.auth, wanted.auth),
        left_out=wanted.left_out,
        warnings=wanted.warnings,
    )
    backends = (
        attrs.evolve(each, draining_replicas=tuple(dict.fromkeys((*each.draining_replicas, *drained.get(each.name, ())))))
        for each in wanted.backends
    )
    change = _change(settings, _with_drain(backends, draining, True), wanted.routes)
    settings = attrs.evolve(change.settings, servers=wanted.servers)
    tables = tuple(table for table in (*_FOLLOWING, "auth") if getattr(before, table) != getattr(settings, table))
    return attrs.evolve(change, settings=settings, tables=tables, left=tuple(_differences(settings, wanted)))


def _with_keys_of(running: AuthSettings | None, wanted: AuthSettings | None) -> AuthSettings | None:
    if running is None or wanted is None:
        return running
    return attrs.evolve(running, api_keys=wanted.api_keys, denied_subjects=wanted.denied_subjects)


def _differences(settings: Settings, wanted: Settings) -> Iterable[str]:
    """Keys outside of backends and routes. A port of 0 asks for any, and one is in use."""
    running, asked = (_flat(attrs.asdict(each)) for each in (settings, wanted))
    for key, value in asked.items():
        if value != running.get(key, _ABSENT) and not (key in ("gateway.port", "actor_system.admin_port") and value == 0):
            yield key


def _flat(table: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        if not where and key in _CHANGEABLE:
            continue
        found |= _flat(value, f"{where}{key}.") if isinstance(value, Mapping) else {f"{where}{key}": value}
    return found


def _change(settings: Settings, backends: Sequence[BackendSettings], routes: Sequence[RouteSettings]) -> BackendChange:
    before = {backend.name: backend for backend in settings.backends}
    after = {backend.name: backend for backend in backends}
    events = [("added", name) for name in after if name not in before]
    events += [("removed", name) for name in before if name not in after]
    for name in after.keys() & before.keys():
        old, new = before[name], after[name]
        if old.draining != new.draining:
            events.append(("drained" if new.draining else "undrained", name))
        if attrs.evolve(old, draining=new.draining) != new:
            events.append(("changed", name))
    settings = attrs.evolve(settings, backends=tuple(backends), routes=tuple(routes))
    return BackendChange(settings=settings, events=tuple(sorted(events)))
