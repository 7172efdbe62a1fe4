"""What is written of owners."""

from __future__ import annotations

import json
import logging

import pytest

from mcp_gateway.transports.ports.lease_clock import lease_clock_s
from mcp_gateway.transports.ports.owner_history import tell_of_owner


def test_a_line_has_its_mark_and_json_with_both_times(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    began_s = lease_clock_s()
    tell_of_owner("used", "files/stdio:files#0", "a", began_s, fence=7)
    (message,) = caplog.messages
    mark, _, text = message.partition(" ")
    read = json.loads(text)
    assert mark == "owner-record"
    assert began_s == read["began_s"] <= read["ended_s"] <= lease_clock_s()
    assert (read["event"], read["thing"], read["node"], read["fence"]) == ("used", "files/stdio:files#0", "a", 7)
