"""Settings: defaults are those of the contract, and no class can hold a value that its rule refuses."""

import pickle
from pathlib import Path

import attrs
import pytest

from mcp_gateway.config.backend_settings import BackendSettings, RouteSettings
from mcp_gateway.config.setting_rules import InvalidSetting
from mcp_gateway.config.settings import (
    ActorSystemSettings,
    AlertsSettings,
    GatewaySettings,
    HttpSseSettings,
    LimitsSettings,
    LoggingSettings,
    Settings,
    StreamableHttpSettings,
    TelemetrySettings,
    WebSocketSettings,
)

CONTRACT = {
    GatewaySettings: {
        "host": "127.0.0.1",
        "port": 4000,
        "cells": 1,
        "pool_size": 50,
        "max_overflow": 10,
        "checkout_timeout": 5.0,
        "hash_ring_size": 1024,
        "health_check_interval": 5.0,
        "request_timeout": 60.0,
        "drain_timeout": 10.0,
        "max_message_bytes": 4_194_304,
        "http_parser": "llhttp",
        "header_timeout": 10.0,
        "write_timeout": 30.0,
        "max_buffered_bytes": 268_435_456,
        "max_session_bytes": 8_192,
        "max_share_per_address": 0.25,
        "idle_process_timeout": 60.0,
        "state_dir": "~/.local/state/mcp-gateway",
        "public_url": "",
        "allowed_hosts": (),
        "allowed_origins": (),
        "localhost_origins": True,
        "watch_config": False,
        "trusted_proxies": (),
    },
    ActorSystemSettings: {"base": "multiprocTCPBase", "admin_port": 1900, "bind": "127.0.0.1"},
    HttpSseSettings: {"max_connections": 1000, "heartbeat_interval": 30.0, "buffer_size": 100, "retention_events": 10_000},
    StreamableHttpSettings: {"max_connections": 1000, "session_idle_timeout": 1800.0, "max_sessions": 10_000},
    WebSocketSettings: {"max_connections": 1000, "ping_interval": 30.0, "pong_timeout": 10.0, "compression": True},
    LoggingSettings: {"level": "info", "format": "auto", "keep_bytes": 16_777_216, "access": False, "access_sample": 1.0},
    AlertsSettings: {
        "topics": ("vsm.algedonic.*", "mcp.health.failed", "mcp.health.recovered", "mcp.supervisor.escalated"),
        "log": True,
        "webhook_url": "",
        "webhook_secret": "",
        "webhook_timeout": 5.0,
        "queue_size": 1000,
    },
    TelemetrySettings: {"otlp_endpoint": "", "service_name": "mcp-gateway", "sample_ratio": 1.0},
    LimitsSettings: {"requests_per_second": 0.0, "burst": 0, "key": "user|session|ip", "requests_per_day": 0},
}


@pytest.mark.parametrize("settings_class", CONTRACT)
def test_defaults_and_keys_are_those_of_the_contract(settings_class):
    assert attrs.asdict(settings_class()) == CONTRACT[settings_class]


def test_backend_and_route_defaults_are_those_of_the_contract():
    backend = attrs.asdict(BackendSettings(name="files", replicas=("http://127.0.0.1:3001/mcp",)))
    assert backend == {
        "name": "files",
        "separator": "__",
        "prefix": "files__",
        "replicas": ("http://127.0.0.1:3001/mcp",),
        "command": (),
        "env": {},
        "cwd": ".",
        "instances": 1,
        "one_per_cluster": False,
        "openapi": "",
        "base_url": "",
        "grpc": "",
        "builtin": None,
        "protocol": "auto",
        "headers": {},
        "request_timeout": 60.0,
        "pool_size": 50,
        "adaptive_concurrency": False,
        "hedge_after": 0.0,
        "retry_budget": 0.2,
        "draining": False,
        "draining_replicas": (),
        "title": "",
        "tools": {},
        "auth": "none",
        "token_url": "",
        "issuer": "",
        "client_id": "",
        "client_secret_file": "",
        "scopes": (),
        "resource": "",
        "allow_private": False,
        "client_certificate": "",
        "client_key": "",
    }
    assert attrs.asdict(RouteSettings(pattern="tools/call/files__*", backend="files")) == {
        "pattern": "tools/call/files__*",
        "backend": "files",
        "hash_on": "user|session|ip",
        "failure_threshold": 5,
        "reset_timeout": 30.0,
        "max_ejected_share": 0.5,
        "failure_rate_threshold": 0.5,
        "slow_call_rate_threshold": 0.5,
        "slow_call_duration": 0.0,
        "rate_window": 10.0,
        "rate_minimum_calls": 20,
        "panic": False,
        "hash_balance_factor": 0.0,
        "slow_start": 0.0,
        "transports": ("streamable_http", "http_sse", "websocket"),
    }


def test_serving_without_arguments_means_the_demo_server_under_its_own_names():
    (backend,) = Settings.demo().backends
    assert (backend.name, backend.prefix, backend.builtin) == ("demo", "", "demo")


REFUSED = [
    (GatewaySettings, {"host": ""}),
    (GatewaySettings, {"host": "a b"}),
    (GatewaySettings, {"port": -1}),
    (GatewaySettings, {"port": 65_536}),
    (GatewaySettings, {"port": True}),
    (GatewaySettings, {"port": "4000"}),
    (GatewaySettings, {"port": 4000.0}),
    (GatewaySettings, {"cells": 0}),
    (GatewaySettings, {"cells": "many"}),
    (GatewaySettings, {"pool_size": 0}),
    (GatewaySettings, {"max_overflow": -1}),
    (GatewaySettings, {"checkout_timeout": -0.1}),
    (GatewaySettings, {"request_timeout": 0}),
    (GatewaySettings, {"request_timeout": float("nan")}),
    (GatewaySettings, {"request_timeout": float("inf")}),
    (GatewaySettings, {"request_timeout": 10**400}),
    (GatewaySettings, {"health_check_interval": 0}),
    (GatewaySettings, {"health_check_interval": 1e-9}),
    (GatewaySettings, {"state_dir": "a\x00b"}),
    (GatewaySettings, {"allowed_origins": "https://a.example"}),
    (GatewaySettings, {"allowed_origins": ["https://a.example/path"]}),
    (GatewaySettings, {"allowed_origins": ["*"]}),
    (GatewaySettings, {"trusted_proxies": "127.0.0.1"}),
    (GatewaySettings, {"trusted_proxies": ["proxy.example"]}),
    (GatewaySettings, {"trusted_proxies": ["10.0.0.1/8"]}),
    (GatewaySettings, {"trusted_proxies": ["10.0.0.0/33"]}),
    (GatewaySettings, {"trusted_proxies": [10]}),
    (ActorSystemSettings, {"base": "multiprocQueueBase"}),
    (ActorSystemSettings, {"admin_port": 70_000}),
    (HttpSseSettings, {"buffer_size": 0}),
    (StreamableHttpSettings, {"max_sessions": 0}),
    (WebSocketSettings, {"compression": 1}),
    (WebSocketSettings, {"ping_interval": 5.0, "pong_timeout": 6.0}),
    (LimitsSettings, {"requests_per_second": -1}),
    (LimitsSettings, {"requests_per_day": -1}),
    (LimitsSettings, {"requests_per_day": 0.5}),
    (LimitsSettings, {"key": ""}),
    (LimitsSettings, {"key": "user||ip"}),
    (LimitsSettings, {"key": "user|user"}),
    (LimitsSettings, {"key": "argument:path"}),
    (BackendSettings, {"name": "1files", "builtin": "demo"}),
    (BackendSettings, {"name": "a" * 65, "builtin": "demo"}),
    (BackendSettings, {"name": "a b", "builtin": "demo"}),
    (BackendSettings, {"name": "a"}),
    (BackendSettings, {"name": "a", "builtin": "other"}),
    (BackendSettings, {"name": "a", "builtin": "demo", "prefix": "a*"}),
    (BackendSettings, {"name": "a", "builtin": "demo", "command": ["x"]}),
    (BackendSettings, {"name": "a", "builtin": "demo", "env": {"A": "b"}}),
    (BackendSettings, {"name": "a", "builtin": "demo", "instances": 2}),
    (BackendSettings, {"name": "a", "builtin": "demo", "protocol": "2025-01-01"}),
    (BackendSettings, {"name": "a", "command": ["x"], "headers": {"A": "b"}}),
    (BackendSettings, {"name": "a", "command": ["x"], "env": {"A=B": "c"}}),
    (BackendSettings, {"name": "a", "command": [""]}),
    (BackendSettings, {"name": "a", "command": ["x", "\x00"]}),
    (BackendSettings, {"name": "a", "command": ["x", "\ud800"]}),
    (BackendSettings, {"name": "a", "replicas": ["http://h/"], "headers": {"A": "b\r\nC: d"}}),
    (BackendSettings, {"name": "a", "replicas": ["http://h/"], "headers": {"A b": "c"}}),
    (BackendSettings, {"name": "a", "replicas": ["http://h/"], "headers": {"Content-Length": "3"}}),
    (BackendSettings, {"name": "a", "replicas": ["http://h/"], "headers": {"X-A": "1", "x-a": "2"}}),
    (BackendSettings, {"name": "a", "replicas": ["http://h/", "http://h/"]}),
    (RouteSettings, {"pattern": "", "backend": "a"}),
    (RouteSettings, {"pattern": "a", "backend": ""}),
    (RouteSettings, {"pattern": "a", "backend": "a", "hash_on": "cookie"}),
    (RouteSettings, {"pattern": "a", "backend": "a", "hash_on": "header:"}),
    (RouteSettings, {"pattern": "a", "backend": "a", "failure_threshold": 0}),
    (RouteSettings, {"pattern": "a", "backend": "a", "max_ejected_share": -0.1}),
    (RouteSettings, {"pattern": "a", "backend": "a", "max_ejected_share": 1.1}),
    (RouteSettings, {"pattern": "a", "backend": "a", "max_ejected_share": "half"}),
    (RouteSettings, {"pattern": "a", "backend": "a", "failure_rate_threshold": 0.009}),
    (RouteSettings, {"pattern": "a", "backend": "a", "failure_rate_threshold": 1.1}),
    (RouteSettings, {"pattern": "a", "backend": "a", "slow_call_rate_threshold": 1.1}),
    (RouteSettings, {"pattern": "a", "backend": "a", "slow_call_duration": -1.0}),
    (RouteSettings, {"pattern": "a", "backend": "a", "rate_window": 0.9}),
    (RouteSettings, {"pattern": "a", "backend": "a", "rate_minimum_calls": 0}),
    (RouteSettings, {"pattern": "a", "backend": "a", "panic": "yes"}),
    (RouteSettings, {"pattern": "a", "backend": "a", "hash_balance_factor": 1.0}),
    (RouteSettings, {"pattern": "a", "backend": "a", "hash_balance_factor": 101}),
    (RouteSettings, {"pattern": "a", "backend": "a", "slow_start": -1}),
    (BackendSettings, {"name": "a", "builtin": "demo", "draining_replicas": [""]}),
    (BackendSettings, {"name": "a", "grpc": "h:65536"}),
    (BackendSettings, {"name": "a", "grpc": "h:50051", "headers": {"x-bin": "v"}}),
    (BackendSettings, {"name": "a", "replicas": ["grpc://h"]}),
    (BackendSettings, {"name": "a", "replicas": ["grpc://h:1/mcp"]}),
    (BackendSettings, {"name": "a", "replicas": ["grpc://u:p@h:1"]}),
    (BackendSettings, {"name": "a", "replicas": ["grpcs://h:65536"]}),
    (BackendSettings, {"name": "a", "replicas": ["grpc://h:1"], "protocol": "2025-11-25"}),
    (BackendSettings, {"name": "a", "replicas": ["grpc://h:1"], "headers": {"grpc-timeout": "1S"}}),
    (BackendSettings, {"name": "a", "replicas": ["grpc://h:1"], "headers": {"x": "é"}}),
    (BackendSettings, {"name": "a", "replicas": ["grpc://h:1"], "headers": {"x!": "v"}}),
    (RouteSettings, {"pattern": "a", "backend": "a", "transports": []}),
    (RouteSettings, {"pattern": "a", "backend": "a", "transports": ["grpc"]}),
]


@pytest.mark.parametrize(("settings_class", "values"), REFUSED, ids=lambda part: str(part)[:60] if isinstance(part, dict) else "")
def test_values_outside_their_rule_are_refused(settings_class, values):
    with pytest.raises(InvalidSetting) as refusal:
        settings_class(**values)
    assert "allowed:" in str(refusal.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:3001/mcp",
        "https://mcp.example.com",
        "sse+http://localhost:80/sse",
        "sse+https://h/sse?x=1",
        "auto+http://h/sse",
        "auto+https://h:1/mcp",
        "ws://h:65535/",
        "wss://[::1]:1/mcp",
        "https://user:pass@h/mcp",
        "http://h?x",
    ],
)
def test_replica_urls_of_every_kind_are_taken(url):
    assert BackendSettings(name="a", replicas=[url]).replicas == (url,)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h:3001",
        "ftp://h/",
        "http://",
        "http:///mcp",
        "http://h:65536/",
        "http://h:/",
        "http://h h/",
        "http://h/#x",
        "sse+ws://h/",
    ],
)
def test_what_is_no_replica_url_is_refused(url):
    with pytest.raises(InvalidSetting):
        BackendSettings(name="a", replicas=[url])


def test_whole_seconds_are_taken_as_float():
    assert type(GatewaySettings(request_timeout=5).request_timeout) is float


def test_origins_are_spelled_as_browsers_send_them():
    origins = ["https://App.Example.com:443", "http://a:80", "http://a:443", "vscode-webview://x", "https://app.example.com"]
    expected = ("https://app.example.com", "http://a", "http://a:443", "vscode-webview://x")
    assert GatewaySettings(allowed_origins=origins).allowed_origins == expected


def test_key_sources_are_read_in_order_of_preference():
    route = RouteSettings(pattern="*", backend="a", hash_on="header:X-Tenant | argument:path|user")
    assert route.hash_sources == ("header:X-Tenant", "argument:path", "user")
    assert LimitsSettings(key="header:X-Api-Key|ip").key_sources == ("header:X-Api-Key", "ip")


def test_state_dir_is_below_the_home_directory_or_nowhere(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert GatewaySettings().state_path == Path("/home/someone/.local/state/mcp-gateway")
    assert GatewaySettings(state_dir="").state_path is None


def test_auto_cells_is_one_per_usable_core():
    assert GatewaySettings(cells="auto").cell_count >= 1
    assert GatewaySettings(cells=3).cell_count == 3


def backends(*prefixes):
    return tuple(BackendSettings(name=f"b{index}", prefix=prefix, builtin="demo") for index, prefix in enumerate(prefixes))


@pytest.mark.parametrize("prefixes", [("a__", "a__"), ("a__", "a__b__"), ("ab", "a"), ("", "a__"), ("x", "a", "y", "ab")])
def test_prefixes_that_could_mean_two_backends_are_refused(prefixes):
    with pytest.raises(InvalidSetting, match="prefix"):
        Settings(backends=backends(*prefixes))


@pytest.mark.parametrize("prefixes", [(), ("",), ("a__", "b__"), ("a_", "ab"), ("x", "a", "y")])
def test_prefixes_that_tell_backends_apart_are_taken(prefixes):
    assert len(Settings(backends=backends(*prefixes)).backends) == len(prefixes)


def test_names_of_backends_are_unique():
    twin = BackendSettings(name="b0", prefix="other__", builtin="demo")
    with pytest.raises(InvalidSetting, match=r"backends\[1\].name: found 'b0'"):
        Settings(backends=(*backends("a__"), twin))


def test_a_route_needs_a_backend_that_exists():
    with pytest.raises(InvalidSetting, match=r"routes\[0\].backend: found 'files'.* demo"):
        Settings(backends=Settings.demo().backends, routes=(RouteSettings(pattern="*", backend="files"),))


def test_a_route_that_nothing_can_reach_is_refused():
    route = RouteSettings(pattern="tools/*", backend="demo", transports=["websocket", "http_sse"])
    later = RouteSettings(pattern="tools/*", backend="demo", transports=["websocket"])
    with pytest.raises(InvalidSetting, match=r"routes\[1\].pattern"):
        Settings(backends=Settings.demo().backends, routes=(route, later))
    Settings(backends=Settings.demo().backends, routes=(later, route))


def test_clients_and_actors_never_share_a_port():
    gateway, actor_system = GatewaySettings(port=1900), ActorSystemSettings()
    with pytest.raises(InvalidSetting, match="admin_port"):
        Settings(gateway=gateway, actor_system=actor_system)
    Settings(gateway=gateway, actor_system=attrs.evolve(actor_system, base="simpleSystemBase"))
    Settings(gateway=GatewaySettings(port=0), actor_system=ActorSystemSettings(admin_port=0))


def test_no_secret_shows_in_the_text_of_settings():
    remote = BackendSettings(name="a", replicas=["https://joe:hunter2@h/mcp?token=hunter2"], headers={"Authorization": "hunter2"})
    local = BackendSettings(name="b", command=["server", "--key=hunter2"], env={"KEY": "hunter2"})
    assert "hunter2" not in repr(Settings(backends=(remote, local)))


def test_settings_survive_the_way_to_another_process():
    remote = BackendSettings(name="a", replicas=["https://h/mcp"], headers={"Authorization": "x"})
    settings = Settings(backends=(remote,), routes=(RouteSettings(pattern="*", backend="a"),))
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert hash(settings) == hash(pickle.loads(pickle.dumps(settings)))


@pytest.mark.parametrize(("one", "other"), [("a_b", "a-b"), ("Files", "files"), ("A_b", "a-B")])
def test_names_that_would_be_one_scheme_are_refused(one: str, other: str):
    """A merged server shows `a_b`'s resources under the scheme `a-b+`: case and "_" do not survive in a scheme."""
    with pytest.raises(InvalidSetting, match="differs from backends"):
        Settings(backends=(BackendSettings(name=one, builtin="demo"), BackendSettings(name=other, builtin="demo")))


@pytest.mark.parametrize(
    ("settings_class", "values", "key"),
    [
        (LoggingSettings, {"level": "verbose"}, "level"),
        (LoggingSettings, {"format": "xml"}, "format"),
        (LoggingSettings, {"access_sample": 1.5}, "access_sample"),
        (LoggingSettings, {"keep_bytes": -1}, "keep_bytes"),
        (AlertsSettings, {"topics": []}, "topics"),
        (AlertsSettings, {"topics": ["Not A Topic"]}, "topics[0]"),
        (AlertsSettings, {"webhook_url": "ftp://x/"}, "webhook_url"),
        (AlertsSettings, {"webhook_url": "https://user:pass@x/"}, "webhook_url"),
        (AlertsSettings, {"webhook_secret": "two\nlines"}, "webhook_secret"),
        (AlertsSettings, {"queue_size": 0}, "queue_size"),
        (TelemetrySettings, {"otlp_endpoint": "127.0.0.1:4318"}, "otlp_endpoint"),
        (TelemetrySettings, {"sample_ratio": 2}, "sample_ratio"),
    ],
)
def test_what_observes_has_rules_too_and_shows_no_secret(settings_class, values, key):
    with pytest.raises(InvalidSetting) as refused:
        settings_class(**values)
    assert refused.value.problem.key == key
    assert "pass" not in str(refused.value)
    assert "two" not in str(refused.value)


def test_the_secret_of_a_webhook_is_never_shown():
    settings = AlertsSettings(webhook_url="https://example.com/hook?key=abc", webhook_secret="s3cr3t")
    assert "s3cr3t" not in repr(settings)
    assert "abc" not in repr(settings)


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"replicas": ["https://a/mcp"], "client_certificate": "c.pem", "client_key": "k.pem"}, ""),
        ({"replicas": ["sse+https://a", "wss://a"], "client_certificate": "c.pem", "client_key": "k.pem"}, ""),
        ({"replicas": ["grpcs://a:1"], "client_certificate": "c.pem", "client_key": "k.pem"}, ""),
        ({"grpc": "https://a:1", "client_certificate": "c.pem", "client_key": "k.pem"}, ""),
        ({"grpc": "a:1", "client_certificate": "c.pem", "client_key": "k.pem"}, "client_certificate"),
        ({"replicas": ["https://a/mcp"], "client_certificate": "c.pem"}, "client_key"),
        ({"replicas": ["https://a/mcp"], "client_key": "k.pem"}, "client_certificate"),
        ({"replicas": ["http://a/mcp"], "client_certificate": "c.pem", "client_key": "k.pem"}, "client_certificate"),
        ({"replicas": ["https://a", "auto+https://a"], "client_certificate": "c", "client_key": "k"}, "client_certificate"),
        ({"builtin": "demo", "client_certificate": "c.pem", "client_key": "k.pem"}, "client_certificate"),
    ],
)
def test_a_certificate_is_shown_to_servers_over_tls_and_comes_with_its_key(table, problem):
    if not problem:
        assert BackendSettings(name="a", **table).client_key == "k.pem"
        return
    with pytest.raises(InvalidSetting) as caught:
        BackendSettings(name="a", **table)
    assert caught.value.problem.key.endswith(problem)
