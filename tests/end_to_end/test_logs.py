"""What a real gateway writes: one line per request where asked for, at the level that an operator chooses, never a secret."""

from __future__ import annotations

import json
from typing import Any

from tests.conftest import StartGateway
from tests.end_to_end.raw_http import ask, ask_modern, open_session, request, tool_call
from tests.end_to_end.running_gateway import RunningGateway, wait_until

DEMO = {"name": "demo", "builtin": "demo"}
GONE = {
    "name": "gone",
    "replicas": ["http://user:hunter22@127.0.0.1:9/mcp?key=s3cr3t"],
    "headers": {"Authorization": "Bearer abc.def.ghi"},
}


def access_lines(gateway: RunningGateway) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in gateway.log.splitlines() if line.startswith("{")]
    return [line for line in lines if "outcome" in line]


def test_each_request_leaves_a_line_that_names_all_it_went_through(start_gateway: StartGateway) -> None:
    with start_gateway("node", [DEMO, GONE], logging={"access": True}, expects_errors=True) as gateway:
        session = open_session(gateway.endpoint())
        assert ask(gateway.endpoint(), tool_call("demo__echo", {"message": "a secret message"}), session).status == 200
        assert ask_modern(gateway.endpoint("gone"), tool_call("x")).status == 502
        wait_until(lambda: len(access_lines(gateway)) >= 4, 5, "four lines")
        lines = {line["target"]: line for line in access_lines(gateway)}
        echo, failed = lines["tools/call/demo__echo"], lines["tools/call/x"]
        assert echo["request_id"].startswith("cell/0#")
        assert (echo["outcome"], echo["backend"], echo["transport"], echo["status"]) == ("ok", "demo", "streamable_http", 200)
        assert 0 < echo["duration_s"] < 5
        assert echo["session"]
        assert (failed["level"], failed["outcome"]) == ("warning", "upstream_failed")
        for secret in ("a secret message", "hunter22", "s3cr3t", "abc.def.ghi"):
            assert secret not in gateway.log


def test_of_what_ends_well_a_share_is_written_and_of_what_fails_everything(start_gateway: StartGateway) -> None:
    with start_gateway("embedded", [DEMO], logging={"access": True, "access_sample": 0}) as gateway:
        for _ in range(20):
            assert ask_modern(gateway.endpoint("demo"), tool_call("echo", {"message": "hi"})).status == 200
            assert ask_modern(gateway.endpoint("demo"), request("resources/read", {"uri": "no://such"})).status >= 400
        wait_until(lambda: len(access_lines(gateway)) >= 20, 5, "lines of what failed")
        assert {line["outcome"] for line in access_lines(gateway)} == {"error"}


def test_by_default_requests_leave_no_line(start_gateway: StartGateway) -> None:
    with start_gateway("embedded", [DEMO]) as gateway:
        for _ in range(5):
            assert ask_modern(gateway.endpoint("demo"), tool_call("echo", {"message": "hi"})).status == 200
        assert access_lines(gateway) == []


def test_the_level_changes_while_it_runs_and_outlives_a_process(start_gateway: StartGateway) -> None:
    with start_gateway("node", [DEMO], logging={"access": True}, expects_errors=True) as gateway:

        def lines_of_a_call() -> int:
            before = len(access_lines(gateway))
            assert ask_modern(gateway.endpoint("demo"), tool_call("echo", {"message": "hi"})).status == 200
            return len(access_lines(gateway)) - before

        wait_until(lambda: lines_of_a_call() == 1, 5, "a line at level info")
        assert gateway.admin("log-level", "loud") == (
            1,
            "mcp-gateway: 'loud' is no level; there are debug, info, warning, error\n",
        )
        assert gateway.admin("log-level", "error") == (0, "log level is error\n")
        wait_until(lambda: lines_of_a_call() == 0, 5, "no line at level error")
        assert gateway.admin("kill", "cell/0")[0] == 0

        def cell_is_back() -> bool:
            cell = gateway.status()["tree"][0]["children"][-1]["children"][-1]
            return bool(cell["restarts"] == 1 and cell["children"])  # it answers for itself

        wait_until(cell_is_back, 10, "another cell")
        wait_until(lambda: lines_of_a_call() == 0, 5, "no line of the new cell either")
        assert gateway.admin("log-level", "info")[0] == 0
        wait_until(lambda: lines_of_a_call() == 1, 5, "a line again")
