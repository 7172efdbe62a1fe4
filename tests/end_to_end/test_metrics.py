"""The gateway counts what its clients count, and any cell tells it for the whole node."""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families

from mcp_gateway.transports.telemetry.metrics import BoundedLabel, ConfiguredLabel, ToolLabel
from tests.config.test_operator_files import CONTRACT
from tests.conftest import StartGateway
from tests.doubles.gateway_process import wait_until as wait_through
from tests.end_to_end.raw_http import MODERN, Answer, ask, ask_modern, open_session, request, tool_call
from tests.end_to_end.running_gateway import RunningGateway, wait_until

REQUESTS = "mcp_gateway_requests_total"
OUTCOME_OF_STATUS = {200: "ok", 202: "ok", 504: "upstream_timeout"}


@pytest.fixture(params=["embedded", "node", "two cells"])
def gateway(request: pytest.FixtureRequest, start_gateway: StartGateway) -> Iterator[RunningGateway]:
    backends = [
        {"name": "demo", "builtin": "demo"},
        {"name": "impatient", "builtin": "demo", "request_timeout": 1.0},
    ]
    with start_gateway(request.param, backends) as gateway:
        yield gateway


def test_the_sums_equal_what_the_client_counted(gateway: RunningGateway) -> None:
    counted: Counter[tuple[str, str]] = Counter()

    def note(method: str, outcome: str, answer: Answer, status: int = 200) -> None:
        assert answer.status == status, answer
        counted[method, outcome] += 1

    started_s = time.monotonic()
    for _ in range(5):
        session = open_session(gateway.endpoint())
        counted["initialize", "ok"] += 1
        counted["notifications/initialized", "ok"] += 1
        for _ in range(4):
            note("tools/call", "ok", ask(gateway.endpoint(), tool_call("demo__echo", {"message": "hi"}), session))
        note("ping", "ok", ask(gateway.endpoint(), request("ping"), session))
        note("terminate", "ok", ask(gateway.endpoint(), b"", session, verb="DELETE"))
    for _ in range(30):
        note("tools/call", "ok", ask_modern(gateway.endpoint("demo"), tool_call("echo", {"message": "hi"})))
        note("tools/list", "ok", ask_modern(gateway.endpoint(), request("tools/list")))
    for _ in range(3):
        slow = tool_call("slow", {"seconds": 5})
        note("tools/call", "upstream_timeout", ask_modern(gateway.endpoint("impatient"), slow), 504)
        note("other", "parse_error", ask(gateway.endpoint(), b"{"), 400)
        note("other", "header_mismatch", ask(gateway.endpoint(), *mismatched()), 400)
        note("other", "session_not_found", ask(gateway.endpoint(), request("tools/list"), {"Mcp-Session-Id": "x"}), 404)
    took_s = time.monotonic() - started_s

    for (method, outcome), count in counted.items():
        assert gateway.metric_sum(REQUESTS, method=method, outcome=outcome, transport="streamable_http") == count, (
            method,
            outcome,
        )
    assert gateway.metric_sum(REQUESTS) == counted.total()
    assert gateway.metric_sum("mcp_gateway_request_duration_seconds_count") == counted.total()
    assert 0 < gateway.metric_sum("mcp_gateway_request_duration_seconds_sum") < took_s
    called = gateway.metric_sum(REQUESTS, method="tools/call", backend="impatient", outcome="upstream_timeout")
    assert called == 3


def mismatched() -> tuple[dict[str, object], dict[str, str]]:
    meta = {f"io.modelcontextprotocol/{key}": value for key, value in (("protocolVersion", MODERN), ("clientCapabilities", {}))}
    return request("tools/list", {"_meta": meta}), {"MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call"}


def test_every_scrape_tells_the_same_for_the_whole_node(gateway: RunningGateway) -> None:
    """Each scrape is a new connection, so the kernel gives it to one cell or the other."""
    for _ in range(40):
        assert ask_modern(gateway.endpoint("demo"), tool_call("echo", {"message": "hi"})).status == 200
    assert {gateway.metric_sum(REQUESTS, method="tools/call") for _ in range(16)} == {40.0}


def test_gauges_tell_of_pools_circuits_rings_health_and_sessions(gateway: RunningGateway) -> None:
    sessions = [open_session(gateway.endpoint()) for _ in range(3)]
    wait_until(lambda: gateway.metric_sum("mcp_gateway_sessions", revision="2025-11-25") >= len(sessions), 5, "sessions")
    names = {name for name, _ in gateway.metrics()}
    assert {
        f"mcp_gateway_{name}" for name in ("pool_connections", "ring_members", "health_status", "events_published_total")
    } <= names
    assert gateway.metric_sum("mcp_gateway_ring_members", route="demo") == 1
    wait_until(lambda: gateway.metric_sum("mcp_gateway_health_status", component="router") == 2, 5, "healthy")
    assert gateway.restart_count() == 0


def test_every_metric_of_the_contract_is_there_from_the_start(gateway: RunningGateway) -> None:
    """What has not happened yet is 0: an alert on the first time would miss it otherwise."""
    assert ask_modern(gateway.endpoint("demo"), tool_call("echo", {"message": "hi"})).status == 200
    open_session(gateway.endpoint())

    def missing() -> set[str]:
        names = {name.removeprefix("mcp_gateway_") for name, _ in gateway.metrics()}
        names |= {name.removesuffix("_count") for name in names}
        return set(CONTRACT) - names

    wait_until(lambda: not missing(), 5, "all metrics")


def test_openmetrics_is_given_to_who_takes_it(gateway: RunningGateway) -> None:
    assert ask_modern(gateway.endpoint("demo"), tool_call("echo", {"message": "hi"})).status == 200
    text = gateway.openmetrics()
    assert text.endswith("# EOF\n")
    families = {family.name for family in openmetrics_families(text)}
    assert {"mcp_gateway_requests", "mcp_gateway_request_duration_seconds"} <= families


def test_tools_are_counted_by_name(gateway: RunningGateway) -> None:
    for _ in range(7):
        assert ask_modern(gateway.endpoint(), tool_call("demo__echo", {"message": "hi"})).status == 200
    assert ask_modern(gateway.endpoint("impatient"), tool_call("slow", {"seconds": 5})).status == 504
    calls = "mcp_gateway_tool_calls_total"
    assert gateway.metric_sum(calls, backend="demo", tool="demo__echo", outcome="ok") == 7
    assert gateway.metric_sum(calls, backend="impatient", tool="slow", outcome="upstream_timeout") == 1


def test_time_spent_waiting_for_a_server_is_not_taken_for_the_gateways_own(gateway: RunningGateway) -> None:
    assert ask_modern(gateway.endpoint("impatient"), tool_call("slow", {"seconds": 5})).status == 504
    assert gateway.metric_sum("mcp_gateway_gateway_latency_seconds_sum", stage="upstream") >= 0.99
    assert gateway.metric_sum("mcp_gateway_gateway_latency_seconds_sum", stage="gateway") < 0.9


def test_what_a_cell_has_counted_outlives_its_death_and_its_gauges_do_not(start_gateway: StartGateway) -> None:
    with start_gateway("two cells", [{"name": "demo", "builtin": "demo"}], expects_errors=True) as gateway:
        served = 0

        def serve(count: int) -> None:
            nonlocal served
            for _ in range(count):
                assert ask_modern(gateway.endpoint("demo"), tool_call("echo", {"message": "hi"})).status == 200
                served += 1

        # 1. Both cells serve; one dies, hard.
        serve(40)
        sessions = [open_session(gateway.endpoint()) for _ in range(8)]
        wait_through(lambda: gateway.metric_sum("mcp_gateway_sessions") >= len(sessions), 5, "the sessions of both cells")
        for name, count in (("cell/0", 1), ("cell/1", 1), ("cell/0", 2)):
            assert gateway.admin("kill", name)[0] == 0
            restarts = functools.partial(gateway.metric_sum, "mcp_gateway_restarts_total", child=name)
            wait_through(lambda restarts=restarts, count=count: restarts() == count, 10, "restarted")  # type: ignore[misc]
            wait_through(lambda: gateway.health()["status"] == "healthy", 10, "healthy")
        serve(40)
        # 2. Nothing that was counted is lost, and nothing counts twice.
        assert gateway.metric_sum(REQUESTS, method="tools/call") == served
        assert gateway.metric_sum("mcp_gateway_request_duration_seconds_count", method="tools/call") == served
        assert gateway.metric_sum("mcp_gateway_tool_calls_total") == served
        wait_through(lambda: gateway.metric_sum("mcp_gateway_restarts_total") == 3, 5, "three restarts")
        # 3. The sessions that the dead cells had seen are nobody's now.
        wait_through(lambda: gateway.metric_sum("mcp_gateway_sessions") == 0, 5, "no ghost")
        # 4. A cell that is restarted in good order leaves no more behind.
        sessions = [open_session(gateway.endpoint()) for _ in range(8)]
        wait_through(lambda: gateway.metric_sum("mcp_gateway_sessions") >= len(sessions), 5, "the sessions of both cells")
        for name in ("cell/0", "cell/1"):
            assert gateway.admin("restart", name)[0] == 0
        wait_through(lambda: gateway.health()["status"] == "healthy", 10, "healthy")
        wait_through(lambda: gateway.metric_sum("mcp_gateway_sessions") == 0, 5, "no ghost")
        assert gateway.metric_sum(REQUESTS, method="tools/call") == served
        # 5. The death of the whole system is survived by the same rule.
        assert gateway.admin("kill", "node-supervisor")[0] == 0
        wait_through(lambda: gateway.admin("status", "--json")[0] == 0, 20, "another node supervisor")
        wait_through(lambda: gateway.health()["status"] == "healthy", 10, "its cells serve")
        open_session(gateway.endpoint())
        wait_through(lambda: gateway.metric_sum("mcp_gateway_sessions") == 1, 5, "the new session alone")
        assert gateway.metric_sum(REQUESTS, method="tools/call") == served


def test_names_beyond_the_bound_share_one_label() -> None:
    bounded = BoundedLabel(2)
    assert [bounded(name) for name in ("a", "b", "c", "a", "d", "b")] == ["a", "b", "other", "a", "other", "b"]


def test_what_nobody_configured_shares_one_label() -> None:
    known = ConfiguredLabel()
    known.learn(["files"])
    assert [known(name) for name in ("", "files", "made-up", "files/..")] == ["", "files", "other", "other"]


def test_listed_tools_have_their_names_and_only_a_few_others() -> None:
    labels = ToolLabel(most_listed=2, most_unlisted=1, longest=5)
    labels.learn("a", ["one", "two", "toolong"])
    assert [labels("a", name) for name in ("x", "y", "x", "one", "two", "toolong")] == ["x", "other", "x", "one", "two", "other"]
    assert labels("b", "y") == "y"  # the storm at one backend hides nothing of another
    labels.learn("a", ["three"])  # a server that lists others again and again
    assert [labels("a", name) for name in ("three", "one")] == ["other", "one"]
