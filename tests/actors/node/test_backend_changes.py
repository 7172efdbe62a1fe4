"""What an operator's commands make of the settings that run: tables of cases, then random histories."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.actors.node.backend_changes import BackendChange, backend_change
from mcp_gateway.config.backend_settings import LeftOutServer
from mcp_gateway.config.curation_settings import ServerSettings
from mcp_gateway.config.identity_settings import PolicySettings
from mcp_gateway.config.loader import ConfigError, settings_from_mapping
from mcp_gateway.config.settings import Settings

FILES = {"name": "files", "replicas": ["http://127.0.0.1:3001/mcp"]}
DEMO = {"name": "demo", "builtin": "demo"}
ROUTE = {"pattern": "tools/call/files__*", "backend": "files"}


def settings_of(*backends: dict[str, Any], routes: tuple[dict[str, Any], ...] = (), **tables: Any) -> Settings:
    return settings_from_mapping({**tables, "backends": list(backends), "routes": list(routes)}, "test")


RUNNING = settings_of(FILES, DEMO)


def add(settings: Settings, **table: Any) -> BackendChange:
    return backend_change(settings, "add-backend", {"backend": table})


def problems(settings: Settings, command: str, **arguments: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        backend_change(settings, command, arguments)
    return [f"{problem.file}: {problem.key}" for problem in caught.value.problems]


# ---- add


def test_an_added_backend_comes_last_with_the_defaults_of_the_gateway_that_runs() -> None:
    running = settings_of(FILES, gateway={"pool_size": 7, "request_timeout": 3.0})
    change = add(running, name="new", replicas=["ws://127.0.0.1:1"], headers={"A": "b"})
    assert [backend.name for backend in change.settings.backends] == ["files", "new"]
    new = change.settings.backends[1]
    assert (new.prefix, new.pool_size, new.request_timeout, new.headers) == ("new__", 7, 3.0, {"A": "b"})
    assert (change.events, change.left) == ((("added", "new"),), ())
    assert change.settings.backends[0] is running.backends[0]
    assert attrs.evolve(change.settings, backends=running.backends) == running


def test_beside_routes_an_added_backend_gets_its_own_and_takes_them_along_when_it_goes() -> None:
    running = settings_of(FILES, DEMO, routes=(ROUTE,))
    change = add(running, name="new", builtin="demo")
    assert change.settings.routes[0] == running.routes[0]
    assert {(route.pattern, route.backend) for route in change.settings.routes[1:]} == {
        ("tools/call/new__*", "new"),
        ("prompts/get/new__*", "new"),
        ("resources/read/new__*", "new"),
        ("resources/read/new+*", "new"),
        ("resources/read/ui://new/*", "new"),
    }
    assert backend_change(change.settings, "remove-backend", {"name": "new"}).settings == running


@pytest.mark.parametrize(
    ("table", "keys"),
    [
        ({"name": "files", "builtin": "demo"}, ["backends[2].name"]),
        ({"name": "FILES", "builtin": "demo"}, ["backends[2].name"]),
        ({"name": "new", "builtin": "demo", "prefix": ""}, ["backends[2].prefix"]),
        ({"name": "new", "builtin": "demo", "prefix": "files_"}, ["backends[2].prefix"]),
        ({"name": "new"}, [""]),
        ({"name": "new", "builtin": "demo", "instances": 2}, ["instances"]),
        ({"name": "2", "replicas": ["x", "ftp://y"], "pool_size": 0}, ["name", "replicas[0]", "replicas[1]", "pool_size"]),
        ({"name": 3, "builtin": "none", "nonsense": 1}, ["nonsense", "name", "builtin"]),
    ],
)
def test_every_mistake_in_an_added_backend_is_told(table: dict[str, Any], keys: list[str]) -> None:
    assert problems(RUNNING, "add-backend", backend=table) == [f"add-backend: {key}" for key in keys]


def test_a_backend_that_has_all_names_to_itself_shares_them_with_nobody() -> None:
    table = {"name": "new", "builtin": "demo"}
    assert problems(Settings.demo(), "add-backend", backend=table) == ["add-backend: backends[0].prefix"]


# ---- remove, drain


def test_a_removed_backend_is_gone_and_the_last_one_may_go() -> None:
    change = backend_change(RUNNING, "remove-backend", {"name": "files"})
    assert ([backend.name for backend in change.settings.backends], change.events) == (["demo"], (("removed", "files"),))
    assert backend_change(change.settings, "remove-backend", {"name": "demo"}).settings.backends == ()


def test_virtual_servers_that_name_a_backend_which_goes_are_told() -> None:
    servers = [ServerSettings(name="some", include=["files/read_*"]), ServerSettings(name="all", include=["*/*", "demo/x"])]
    change = backend_change(attrs.evolve(RUNNING, servers=tuple(servers)), "remove-backend", {"name": "files"})
    assert (change.orphans, change.outcome["orphans"]) == (("some",), ("some",))
    assert change.settings.servers == tuple(servers), "it may come back"


def test_a_drain_and_its_end_change_one_flag_once() -> None:
    drained = backend_change(RUNNING, "drain", {"name": "files"})
    assert [backend.draining for backend in drained.settings.backends] == [True, False]
    assert drained.events == (("drained", "files"),)
    again = backend_change(drained.settings, "drain", {"name": "files"})
    assert (again.settings, again.events) == (drained.settings, ())
    undrained = backend_change(drained.settings, "undrain", {"name": "files"})
    assert (undrained.settings, undrained.events) == (RUNNING, (("undrained", "files"),))
    assert backend_change(RUNNING, "drain", {"name": "files", "replica": ""}) == drained, "as the dashboard says the whole of it"


def test_one_replica_is_drained_and_taken_in_again_and_a_reload_leaves_it_drained() -> None:
    running = RUNNING
    (one,) = running.backends[0].replica_ids
    drained = backend_change(running, "drain", {"name": "files", "replica": one})
    assert [backend.draining_replicas for backend in drained.settings.backends] == [(one,), ()]
    assert drained.events == (("changed", "files"),)
    assert backend_change(drained.settings, "drain", {"name": "files", "replica": one}).events == ()
    reloaded = backend_change(drained.settings, "reload", {"settings": running})
    assert reloaded.settings.backends[0].draining_replicas == (one,)
    undrained = backend_change(reloaded.settings, "undrain", {"name": "files", "replica": one})
    assert undrained.settings == running
    assert problems(running, "drain", name="files", replica="another") == ["drain: replica"]


@pytest.mark.parametrize("command", ["remove-backend", "drain", "undrain"])
@pytest.mark.parametrize("name", ["nobody", "", None, 7, ["files"]])
def test_a_name_that_nobody_has_is_refused(command: str, name: object) -> None:
    assert problems(RUNNING, command, name=name) == [f"{command}: name"]


# ---- reload


def reload(running: Settings, file: Settings) -> BackendChange:
    return backend_change(running, "reload", {"settings": file})


def test_a_reload_takes_in_other_policies() -> None:
    """A right that is taken away in the file is gone, and nothing is said to be left as it was."""
    policies = (PolicySettings(effect="allow", tools=("a",)),)
    change = reload(RUNNING, attrs.evolve(RUNNING, policies=policies))
    assert (change.settings.policies, change.left) == (policies, ())
    assert reload(change.settings, RUNNING).settings == RUNNING


def test_a_reload_names_what_came_went_and_changed() -> None:
    change = reload(RUNNING, settings_of({**FILES, "pool_size": 3}, {"name": "new", "builtin": "demo"}))
    assert change.events == (("added", "new"), ("changed", "files"), ("removed", "demo"))
    assert change.settings.backends[0].pool_size == 3
    assert reload(RUNNING, RUNNING) == BackendChange(settings=RUNNING, events=())


def test_what_a_file_leaves_out_follows_it_and_is_no_setting_that_was_left() -> None:
    left_out = LeftOutServer(name="bad", title="Bad one", reason="m.json: found 3; allowed: a table")
    change = reload(RUNNING, attrs.evolve(RUNNING, left_out=(left_out,), warnings=("m.json: unknown keys",)))
    assert (change.settings.left_out, change.events, change.left) == ((left_out,), (), ())
    assert add(change.settings, name="new", builtin="demo").settings.left_out == (left_out,)
    assert reload(change.settings, RUNNING).settings == RUNNING


def test_routes_follow_the_file() -> None:
    change = reload(RUNNING, settings_of(FILES, DEMO, routes=(ROUTE,)))
    assert (len(change.settings.routes), change.events) == (1, ())
    assert reload(change.settings, RUNNING).settings == RUNNING


def test_what_cannot_follow_is_named_and_left() -> None:
    tables = {
        "gateway": {"port": 4001, "cells": 2},
        "actor_system": {"admin_port": 1901},
        "transports": {"websocket": {"compression": False}},
        "limits": {"burst": 3},
        "logging": {"level": "debug"},
        "alerts": {"webhook_secret": "s3cret"},
    }
    change = reload(RUNNING, settings_of(FILES, DEMO, **tables))
    assert change.settings == RUNNING
    assert change.left == (
        "gateway.port",
        "gateway.cells",
        "actor_system.admin_port",
        "transports.websocket.compression",
        "limits.burst",
        "logging.level",
        "alerts.webhook_secret",
    )


def test_a_file_that_leaves_the_port_open_does_not_differ() -> None:
    assert reload(RUNNING, settings_of(FILES, DEMO, gateway={"port": 0}, actor_system={"admin_port": 0})).left == ()


def test_a_backend_that_an_operator_has_drained_drains_on_and_one_that_the_file_drains_begins() -> None:
    drained = backend_change(RUNNING, "drain", {"name": "files"}).settings
    change = reload(drained, settings_of(FILES, {**DEMO, "draining": True}))
    assert ([backend.draining for backend in change.settings.backends], change.events) == ([True, True], (("drained", "demo"),))


# ---- histories

NAMES = st.sampled_from(["a", "b", "c", "A", "2", ""])
STEPS = st.one_of(
    st.tuples(st.just("add-backend"), NAMES.map(lambda name: {"backend": {"name": name, "builtin": "demo"}})),
    st.tuples(st.sampled_from(["remove-backend", "drain", "undrain"]), NAMES.map(lambda name: {"name": name})),
    st.tuples(
        st.just("reload"),
        st.dictionaries(st.sampled_from(["a", "b", "c"]), st.booleans()).map(
            lambda file: {
                "settings": settings_of(*({"name": name, "builtin": "demo", "draining": drains} for name, drains in file.items()))
            }
        ),
    ),
)


@given(st.lists(STEPS, max_size=20), st.booleans())
def test_events_tell_every_change_and_nothing_else(steps: list[tuple[str, dict[str, Any]]], has_routes: bool) -> None:
    routes = ({"pattern": "tools/call/a__*", "backend": "a"},) if has_routes else ()
    settings = settings_of({"name": "a", "builtin": "demo"}, routes=routes)
    known = {"a": False}  # {name: whether it is draining}, from events alone
    for command, arguments in steps:
        try:
            change = backend_change(settings, command, arguments)
        except ConfigError as error:
            assert error.problems
            continue
        settings = change.settings
        for kind, name in change.events:
            if kind == "added":
                added = next(backend for backend in settings.backends if backend.name == name)
                known[name] = added.draining
            elif kind == "removed":
                del known[name]
            else:
                known[name] = kind == "drained"
        assert known == {backend.name: backend.draining for backend in settings.backends}
        # What runs is always something that could stand in a file.
        assert attrs.evolve(settings) == settings


def test_a_table_that_comes_or_goes_is_told_as_what_was_left() -> None:
    with_auth = settings_of(FILES, DEMO, auth={"mode": "optional"})
    assert "auth.mode" in backend_change(RUNNING, "reload", {"settings": with_auth}).left
    assert "auth" in backend_change(with_auth, "reload", {"settings": RUNNING}).left


@pytest.mark.parametrize("command", ["reload", "add-backend"])
def test_a_backend_that_needs_what_only_a_new_start_brings_is_refused(command: str) -> None:
    """Nothing else may come of it: whoever carries the change out would end, and everything below with it."""
    user = {"name": "mine", "replicas": ["https://server.example/mcp"], "auth": "user"}
    gateway = {"public_url": "https://gateway.example"}
    running = settings_of(DEMO, gateway=gateway)
    keys = [{"name": "ci", "hash": "sha256:" + "0" * 64}]
    wanted = settings_of(DEMO, user, gateway=gateway, auth={"api_keys": keys})
    arguments = {"settings": wanted} if command == "reload" else {"backend": user}
    with pytest.raises(ConfigError) as caught:
        backend_change(running, command, arguments)
    assert "[auth] beside it" in str(caught.value)
