"""Route table: the most literal pattern wins, and no target makes matching slow or memory grow."""

import time

from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_gateway.actors.routing.route_table import Route, RouteTable, configured_routes, default_routes
from mcp_gateway.config.backend_settings import BackendSettings, RouteSettings
from mcp_gateway.config.settings import Settings
from mcp_gateway.transports.protocol.merging.wildcard import Wildcard


def table_of(*patterns):
    """One backend per pattern, named by its place."""
    return RouteTable(Route(pattern=pattern, backend=str(index)) for index, pattern in enumerate(patterns))


def backend_for(table, target, transport="streamable_http"):
    route = table.match(target, transport)
    return route and route.backend


def test_most_literal_pattern_wins_then_the_one_declared_first():
    table = table_of("*", "tools/call/*", "tools/call/files__*", "*/call/files__read", "tools/*/files__*", "tools/call/*l")
    assert backend_for(table, "ping") == "0"
    assert backend_for(table, "tools/call/x") == "1"
    assert backend_for(table, "tools/call/files__write") == "2"
    assert backend_for(table, "tools/call/files__read") == "2"
    assert backend_for(table, "x/call/files__read") == "3"
    assert backend_for(table, "tools/get/files__read") == "4"
    assert backend_for(table, "tools/call/al") == "5"
    assert backend_for(table_of("a*", "*a"), "aa") == "0"
    assert backend_for(table_of("*a", "a*"), "aa") == "0"


def test_a_client_over_grpc_is_routed_like_one_over_streamable_http():
    """Ours: it speaks the same revision, and no file that names transports need be written anew."""
    table = RouteTable([Route(pattern="*", backend="http", transports=frozenset({"streamable_http"}))])
    assert backend_for(table, "tools/call/a", "grpc") == "http"
    assert backend_for(RouteTable([Route(pattern="*", backend="ws", transports=frozenset({"websocket"}))]), "a", "grpc") is None


def test_a_route_serves_its_transports_only():
    table = RouteTable(
        [
            Route(pattern="tools/call/*", backend="sockets", transports=frozenset({"websocket"})),
            Route(pattern="*", backend="rest"),
        ]
    )
    assert backend_for(table, "tools/call/a", "websocket") == "sockets"
    assert backend_for(table, "tools/call/a", "http_sse") == "rest"


def test_nothing_matches_nothing():
    assert backend_for(RouteTable([]), "tools/call/a") is None
    assert backend_for(table_of("tools/*"), "ping") is None


def test_default_routes_find_each_backend_by_its_prefix():
    backends = [BackendSettings(name=name, builtin="demo") for name in ("files", "mail")]
    table = RouteTable(default_routes(backends))
    for kind in ("tools/call", "prompts/get", "resources/read"):
        assert backend_for(table, f"{kind}/files__read") == "files"
        assert backend_for(table, f"{kind}/mail__read") == "mail"
        assert backend_for(table, f"{kind}/read") is None
    assert backend_for(table, "resources/read/mail+inbox://today") == "mail"
    assert backend_for(table, "resources/read/ui://mail/board/main.html") == "mail"
    assert backend_for(table, "resources/read/ui://mailbox/main.html") is None


def test_a_single_backend_without_prefix_gets_everything():
    table = RouteTable(configured_routes(Settings.demo().backends, ()))
    assert backend_for(table, "tools/call/echo") == "demo"
    assert backend_for(table, "resources/read/demo://x/y") == "demo"


def test_routes_of_the_configuration_stand_before_default_ones():
    route = RouteSettings(
        pattern="*",
        backend="demo",
        hash_on="header:X|ip",
        failure_threshold=2,
        reset_timeout=1.5,
        max_ejected_share=0.3,
        failure_rate_threshold=0.2,
        slow_call_rate_threshold=0.9,
        slow_call_duration=2.5,
        rate_window=30.0,
        rate_minimum_calls=7,
        panic=True,
        hash_balance_factor=1.5,
        slow_start=9.0,
        transports=["websocket"],
    )
    assert configured_routes(Settings.demo().backends, (route,)) == (
        Route(
            pattern="*",
            backend="demo",
            hash_on=("header:X", "ip"),
            failure_threshold=2,
            reset_timeout_s=1.5,
            max_ejected_share=0.3,
            failure_rate_threshold=0.2,
            slow_call_rate_threshold=0.9,
            slow_call_duration_s=2.5,
            rate_window_s=30.0,
            rate_minimum_calls=7,
            panic=True,
            hash_balance_factor=1.5,
            slow_start_s=9.0,
            transports=frozenset({"websocket"}),
        ),
    )


def test_hostile_targets_fill_no_memory():
    table = table_of("*")
    for number in range(6_000):
        table.match(f"tools/call/{number}", "websocket")
        table.is_routed(f"tools/call/{number}")
    table.match("x" * 1_000_000, "websocket")
    table.is_routed("x" * 1_000_000)
    for cached in (table._cached_find, table._cached_is_routed):
        info = cached.cache_info()
        assert info.currsize == info.maxsize == 4_096


def test_hostile_targets_take_no_time():
    """The same pattern as a backtracking expression would not end within a lifetime."""
    table = table_of("a*" * 25 + "b*", "a*" * 25 + "ab*c")
    started_s = time.thread_time()
    assert table.match("a" * 1_000_000, "websocket") is None
    assert table.match("a" * 1_000_000 + "c", "websocket") is None
    assert time.thread_time() - started_s < 1.0


@settings(max_examples=200, deadline=None)
@given(
    patterns=st.lists(st.tuples(st.text(alphabet="ab*", max_size=4), st.sampled_from(["websocket", "http_sse"])), max_size=6),
    targets=st.lists(st.tuples(st.text(alphabet="ab", max_size=5), st.sampled_from(["websocket", "http_sse"])), max_size=8),
)
def test_the_winner_is_the_most_literal_of_all_that_match(patterns, targets):
    routes = [
        Route(pattern=pattern, backend=str(index), transports=frozenset({transport}))
        for index, (pattern, transport) in enumerate(patterns)
    ]
    table = RouteTable(routes)
    for target, transport in targets * 2:
        candidates = [route for route in routes if transport in route.transports and Wildcard(route.pattern).matches(target)]
        best = max((len(route.pattern.replace("*", "")) for route in candidates), default=0)
        expected = next((route for route in candidates if len(route.pattern.replace("*", "")) == best), None)
        assert table.match(target, transport) == expected
