"""What opens the circuit of a server, on a real gateway, and how soon one that is well again lets calls through."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.doubles.recording_backend import RecordingBackend, start_recording_backend
from tests.doubles.sdk_server import start_sdk_server
from tests.end_to_end.raw_http import Answer, ask_modern, request, tool_call
from tests.end_to_end.running_gateway import Form, RunningGateway, wait_until

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
        assert [call(client=each).reason for each in (ADA, BOB)] == ["upstream_failed", "upstream_failed"]
        wait_until(lambda: call().reason == "circuit_open", RESET_S, "an open circuit")  # one of them may be the trial
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


class Traffic:
    """Clients of two addresses that call all the time; each keeps (when the call began, when it ended, its reason or "ok")."""

    def __init__(self, gateway: RunningGateway, message: dict[str, Any], client_count: int = 6) -> None:
        self._gateway, self._message = gateway, message
        self._is_over = threading.Event()
        self.seen: list[tuple[float, float, str]] = []
        self._threads = [threading.Thread(target=self._call, args=(number,)) for number in range(client_count)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(30)

    def _call(self, number: int) -> None:
        while not self._is_over.wait(0.01):
            began_s = time.monotonic()
            url = f"{self._gateway.endpoint()}?user_id=user-{number}-{len(self.seen) % 16}"
            answer = ask_modern(url, self._message, source=(ADA, BOB)[number % 2])
            reason = "ok" if answer.status == 200 else answer.reason
            self.seen.append((began_s, time.monotonic(), reason))

    def wait_for(self, reasons: set[str], since_s: float) -> None:
        """Until a call that began then, or later, has ended in one of these ways."""
        wait_until(lambda: any(each[2] in reasons and each[0] >= since_s for each in list(self.seen)), 20, f"one of {reasons}")

    def slowest_s(self, reason: str) -> float:
        """The longest that a call took which ended in this way: as busy as the machine is."""
        return max((ended_s - began_s for began_s, ended_s, each in list(self.seen) if each == reason), default=0.0)

    def turned_away_after(self, at_s: float) -> list[tuple[float, str]]:
        """(seconds since then, reason) of each call that began later and that no server was asked for."""
        turned_away = [each for each in list(self.seen) if each[0] >= at_s and each[2] in ("circuit_open", "no_backend")]
        return [(began_s - at_s, reason) for began_s, _, reason in turned_away]


class FaultyServer:
    """A server that begins to fail, in one way, and is well again. Its probes say so, or say nothing of it."""

    def __init__(self, fault: str) -> None:
        self._fault = fault
        self._life = ExitStack()
        if fault == "hangs":
            self._process = self._life.enter_context(start_sdk_server())
            self.url, self.call = self._process.url, tool_call("whoami")
        else:
            self._server = RecordingBackend()
            self._life.enter_context(start_recording_backend(self._server))
            self.url, self.call = self._server.url, tool_call("work")

    def begin(self) -> None:
        if self._fault == "hangs":
            self._process.pause()
        elif self._fault == "fails at calls":
            self._server.status = 500
        else:
            self._life.close()

    def end(self) -> None:
        if self._fault == "hangs":
            self._process.resume()
        elif self._fault == "fails at calls":
            self._server.status = 200
        else:
            self._life.enter_context(start_recording_backend(self._server))

    def close(self) -> None:
        self._life.close()


@pytest.mark.parametrize("form", ["embedded", "two cells"])
@pytest.mark.parametrize(("fault", "interval_s"), [("is not there", 60.0), ("fails at calls", 60.0), ("hangs", 1.0)])
@pytest.mark.parametrize("length_s", [0.0, 1.5])
def test_no_call_is_refused_a_second_after_the_only_server_is_well_again(
    start_gateway: StartGateway, form: Form, fault: str, interval_s: float, length_s: float
) -> None:
    """`reset_timeout` is 30 s, and as a rule the health monitor has not even noticed. length_s: beyond the first refusal.

    On a machine that is busy with others all steps of it take longer: by four calls at their slowest.
    """
    with closing(FaultyServer(fault)) as server:
        backend = {"name": "b", "prefix": "", "replicas": [server.url], "request_timeout": 1.0}
        with start_gateway(form, [backend], gateway={"health_check_interval": interval_s}) as gateway:
            for _ in range(2):
                with Traffic(gateway, server.call) as traffic:
                    traffic.wait_for({"ok"}, time.monotonic())
                    server.begin()
                    traffic.wait_for({"circuit_open", "no_backend"}, time.monotonic())
                    time.sleep(length_s)
                    server.end()
                    well_s = time.monotonic()
                    traffic.wait_for({"ok"}, well_s + 2.0)
                bound_s = 1.0 + 4 * traffic.slowest_s("ok")
                assert [each for each in traffic.turned_away_after(well_s) if each[0] > bound_s] == []


@pytest.mark.parametrize("form", ["embedded", "two cells"])
@pytest.mark.parametrize("fault", ["is not there", "fails at calls"])
def test_no_safe_call_is_refused_while_one_server_of_two_is_well(start_gateway: StartGateway, form: Form, fault: str) -> None:
    with closing(FaultyServer(fault)) as one, closing(FaultyServer(fault)) as other:
        backend = {"name": "b", "prefix": "", "replicas": [one.url, other.url]}
        with start_gateway(form, [backend], gateway={"health_check_interval": 60.0}) as gateway:
            with Traffic(gateway, request("resources/read", {"uri": "test://r"})) as traffic:
                traffic.wait_for({"ok"}, time.monotonic())
                for server in (one, other, one):
                    server.begin()
                    traffic.wait_for({"ok"}, time.monotonic() + 1.0)
                    server.end()
                    # While its circuit is open yet, the other one is the only server that is well.
                    wait_until(lambda: gateway.metric_sum("mcp_gateway_circuit_state") == 0, 20, "both serve again")
                    traffic.wait_for({"ok"}, time.monotonic())
            assert Counter(reason for _, _, reason in traffic.seen).keys() == {"ok"}


@pytest.mark.parametrize("form", ["embedded", "two cells"])
def test_a_slow_replica_keeps_no_reader_waiting_where_reads_are_hedged(start_gateway: StartGateway, form: Form) -> None:
    with start_recording_backend() as slow, start_recording_backend() as quick:
        slow.delay_s = 8.0
        backend = {"name": "b", "prefix": "", "replicas": [slow.url, quick.url], "hedge_after": 0.1}
        with start_gateway(form, [backend]) as gateway, ThreadPoolExecutor(8) as readers:

            def read(number: int) -> tuple[int, float]:
                began_s = time.monotonic()
                url = f"{gateway.endpoint()}?user_id=user-{number}"
                answer = ask_modern(url, request("resources/read", {"uri": "test://r"}))
                return answer.status, time.monotonic() - began_s

            answers = list(readers.map(read, range(16)))
            assert {status for status, _ in answers} == {200}
            assert max(took_s for _, took_s in answers) < 5.0
            assert gateway.metric_sum("mcp_gateway_retries_total", outcome="sent") > 0
