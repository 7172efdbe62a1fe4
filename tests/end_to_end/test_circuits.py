"""A server that failed and is well again: how soon its circuit lets calls through, whatever becomes of the one that tries it."""

from __future__ import annotations

import time

import pytest

from tests.conftest import StartGateway
from tests.doubles.recording_backend import start_recording_backend
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
