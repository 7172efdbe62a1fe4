"""The fallback: a cell whose requests Tornado reads itself. What both forms do alike stands in `test_http1_connection.py`."""

from __future__ import annotations

from mcp_gateway.transports.downstream.server.http1_connection import Http1Connection
from mcp_gateway.transports.downstream.server.tornado_connection import TornadoConnection
from tests.doubles.raw_http_client import RawClient, on_cell
from tests.doubles.running_cell import RunningCell


def test_the_setting_chooses_the_form_of_each_connection() -> None:
    for setting, form in (("tornado", TornadoConnection), ("llhttp", Http1Connection)):

        async def body(cell: RunningCell, form: type = form) -> None:
            async with RawClient(cell) as client:
                assert (await client.ask("GET", "/health/live")).status == 200
                assert [type(each) for each in cell.cell._server._server._connections] == [form]

        on_cell(body, gateway={"http_parser": setting})
