"""What opens the circuit of a server, on a real gateway, and how soon one that is well again lets calls through."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import StartGateway
from tests.doubles.recording_backend import start_recording_backend
from tests.doubles.sdk_server import start_sdk_server
from tests.end_to_end.raw_http import Answer, ask_modern, tool_call
from tests.end_to_end.running_gateway import Form, wait_until

RESET_S = 5.0
ADA, BOB = "127.0.0.2", "127.0.0.3"


@pytest.mark.parametrize("form", ["embedded", "node"])
def test_a_trial_whose_client_goes_away_makes_room_for_the_next_call(start_gateway: StartGateway, form: Form) -> None:
    """It would keep the circuit shut for another reset_timeout, once for every client that does not wait."""
    routes = [{"pattern": "tools/call/*", "backend": "b", "failure_threshold": 2, "reset_timeout": RESET_S}]
    with (
        start_recording_backend() as server,
        start_gateway(form, [{"name": "b", "prefix": "", "replicas": [server.url]}], routes=routes) as gateway,
    ):

        def call(timeout_s: float = 10.0, client: str = ADA) -> Answer:
            return ask_modern(gateway.endpoint(), tool_call("work"), timeout_s=timeout_s, source=client)

        # 1. The server fails until the circuit opens.
        server.status = 500
        assert [call(client=each).reason for each in (ADA, BOB, ADA)] == ["upstream_failed", "upstream_failed", "circuit_open"]
        opened_s = time.monotonic()

        # 2. It recovers, but it is slow at first, and the client whose call is the trial does not wait.
        server.status, server.delay_s = 200, 60.0
        seen = len(server.calls)
        while len(server.calls) == seen:
            assert time.monotonic() - opened_s < 2 * RESET_S
            try:
                assert call(timeout_s=0.5).reason == "circuit_open"
                time.sleep(0.05)
            except TimeoutError:
                tried_s = time.monotonic()
        server.delay_s = 0.0

        # 3. The next call is served before the trial would be given up.
        wait_until(lambda: call().status == 200, RESET_S, "served")
        assert time.monotonic() - tried_s < RESET_S - 1
        assert [call().status for _ in range(3)] == [200, 200, 200]


@pytest.mark.parametrize("form", ["embedded", "node"])
def test_slow_calls_of_one_client_keep_nobody_else_from_the_server(start_gateway: StartGateway, form: Form) -> None:
    """A tool's own time is no evidence against its server."""
    with (
        start_sdk_server() as server,
        start_gateway(form, [{"name": "b", "prefix": "", "replicas": [server.url], "request_timeout": 1.0}]) as gateway,
        ThreadPoolExecutor(12) as hanging,
    ):

        def call(client: str, name: str, **arguments: object) -> Answer:
            return ask_modern(gateway.endpoint(), tool_call(name, arguments), source=client)

        slow = [hanging.submit(call, ADA, "slow", seconds=30, tag=f"slow {number}") for number in range(12)]
        assert call(BOB, "whoami").status == 200
        assert {each.result().reason for each in slow} == {"upstream_timeout"}  # in a row: nobody succeeds in between
        assert [call(client, "whoami").status for client in (BOB, ADA)] == [200, 200]
        assert gateway.metric_sum("mcp_gateway_circuit_state") == 0


@pytest.mark.parametrize("form", ["embedded", "node"])
def test_a_killed_server_is_ejected_at_the_fifth_failure_of_one_client_and_serves_within_seconds_of_its_return(
    start_gateway: StartGateway, form: Form
) -> None:
    """Its own probe is what the gateway believes that client for; the monitor's are too far apart to matter here."""
    options = {"gateway": {"health_check_interval": 60.0}}
    with (
        start_sdk_server() as server,
        start_gateway(form, [{"name": "b", "prefix": "", "replicas": [server.url]}], **options) as gateway,
    ):

        def call() -> Answer:
            return ask_modern(gateway.endpoint(), tool_call("whoami"))

        assert call().status == 200
        server.kill()
        refusals = []
        while not refusals or refusals[-1] == "upstream_failed":
            refusals.append(call().reason)
            assert len(refusals) < 30
        # Each cell counts for itself, and the one probe may be slower than a few failures are.
        assert refusals[-1] == "circuit_open"
        assert len(refusals) > 5
        server.start()
        wait_until(lambda: call().status == 200, 10.0, "served, long before reset_timeout")
        assert gateway.metric_sum("mcp_gateway_circuit_state") == 0
