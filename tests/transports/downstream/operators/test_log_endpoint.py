"""The log on the dashboard: harmless, bounded, about one request where that is asked for, and for who may see what others do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mcp_gateway.transports.downstream.operators.log_endpoint import LOG_PATH, MOST_LINES
from mcp_gateway.transports.telemetry.kept_log import FILE_NAME
from tests.doubles.known_clients import KnownClients, bearer, on_guarded_cell
from tests.doubles.raw_http_client import RawClient, on_cell
from tests.doubles.running_cell import RunningCell


def texts(body: bytes) -> list[str]:
    return [line["text"] for line in json.loads(body)["lines"]]


def write(folder: Path, *lines: dict[str, Any]) -> None:
    (folder / FILE_NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_newest_lines_are_shown_clean_and_those_of_one_request_alone(tmp_path: Path) -> None:
    write(
        tmp_path,
        *({"level": "info", "actor": "a", "text": f"{number}"} for number in range(MOST_LINES)),
        {
            "level": "warning",
            "actor": "cell/0/edge",
            "text": "a\x1b[2J\u202eb",
            "request_id": "cell/0#7",
            "error": "T\nValueError",
        },
    )

    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            answer = await client.ask("GET", LOG_PATH)
            assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
            assert texts(answer.body)[0] == "1", "the oldest has made room"
            line = json.loads(answer.body)["lines"][-1]
            assert "\x1b" not in line["text"]
            assert "\u202e" not in line["text"]
            assert (line["fields"], line["error"]) == ([["request_id", "cell/0#7"]], "T\nValueError")
            assert texts((await client.ask("GET", f"{LOG_PATH}?request=cell/0%237")).body) == [line["text"]]
            assert texts((await client.ask("GET", f"{LOG_PATH}?request=cell/0%238")).body) == []
            assert texts((await client.ask("GET", f"{LOG_PATH}?level=warning")).body) == [line["text"]]
            assert (await client.ask("GET", f"{LOG_PATH}?level=loud")).reason == "invalid_params"
            assert (await client.ask("POST", LOG_PATH)).status == 405
            assert (await client.ask("GET", LOG_PATH, X_Forwarded_For="192.0.2.7")).reason == "forbidden"

    on_cell(body, gateway={"state_dir": str(tmp_path)})


def test_where_there_is_no_log_the_page_reads_why(tmp_path: Path) -> None:
    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            found = json.loads((await client.ask("GET", LOG_PATH)).body)
            assert (found["lines"], "log" in found["problem"]) == ([], True)

    on_cell(body)
    on_cell(body, gateway={"state_dir": str(tmp_path)})


def test_it_is_for_operators(tmp_path: Path) -> None:
    async def body(cell: RunningCell, _: KnownClients) -> None:
        async with RawClient(cell) as client:
            assert (await client.ask("GET", LOG_PATH)).reason == "unauthorized"
            assert (await client.ask("GET", LOG_PATH, **bearer("ada"))).reason == "insufficient_scope"
            assert (await client.ask("GET", LOG_PATH, **bearer("ops"))).status == 200

    on_guarded_cell(body)
