"""What stays behind of a connection that has ended; `test_accepting.py` has what its client sees."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
from types import FrameType

import pytest

from mcp_gateway.transports.telemetry import metrics
from mcp_gateway.transports.telemetry.tallies import write_tallies
from tests.doubles.raw_http_client import on_cell
from tests.doubles.running_cell import DEMO, RunningCell
from tests.end_to_end.raw_http import BOTH_ANSWERS, modern, tool_call

pytestmark = pytest.mark.usefixtures("each_http_parser")

SIZE = 1_900_000


def test_nothing_is_kept_of_an_answer_whose_client_has_left() -> None:
    """The error of the failed write would hold whoever wrote, answer included, in a circle, and a cell seldom collects those."""
    body, headers = modern(tool_call("echo", {"message": "x" * SIZE}))
    content = json.dumps(body).encode()
    shown = {"Content-Type": "application/json", "Accept": BOTH_ANSWERS, **headers, "Content-Length": str(len(content))}

    async def leave(cell: RunningCell) -> None:
        loop = asyncio.get_running_loop()
        lines = [f"{name}: {value}" for name, value in {"Host": f"127.0.0.1:{cell.settings.gateway.port}", **shown}.items()]
        head = "\r\n".join([f"POST /mcp/servers/{DEMO['name']} HTTP/1.1", *lines, "", ""]).encode()
        before = answered_count()
        gc.disable()
        try:
            for _ in range(3):
                with socket.socket() as client:
                    client.setblocking(False)
                    await loop.sock_connect(client, ("127.0.0.1", cell.settings.gateway.port))
                    await loop.sock_sendall(client, head + content)
            async with asyncio.timeout(10):
                while answered_count() < before + 3 or large_count() > 0:
                    await asyncio.sleep(0.05)
        finally:
            gc.enable()

    on_cell(leave, gateway={"max_message_bytes": 4_194_304})


def answered_count() -> float:
    write_tallies()
    samples = [sample for family in metrics.requests_total.collect() for sample in family.samples]
    return sum(sample.value for sample in samples if sample.labels.get("method") == "tools/call" and "created" not in sample.name)


def large_count() -> int:
    """How many frames of others, the finished ones that a traceback keeps above all, hold something as large as the answer."""
    frames = [each for each in gc.get_objects() if isinstance(each, FrameType) and each.f_code.co_filename != __file__]
    return sum(isinstance(each, bytes) and len(each) > SIZE for frame in frames for each in gc.get_referents(frame))
