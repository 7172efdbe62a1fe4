"""What is dropped is counted one by one, and told to the log within a budget."""

from __future__ import annotations

import logging

import pytest

from mcp_gateway.transports.ports.upstream_port import Stray
from mcp_gateway.transports.telemetry import metrics
from mcp_gateway.transports.upstream.http.dropped_messages import DroppedMessages


def test_every_message_is_counted_and_few_are_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    counter = metrics.upstream_messages_dropped_total.labels("flooding", "progress")
    before = counter._value.get()
    dropped = DroppedMessages("flooding", "http://127.0.0.1:1/mcp")
    for _ in range(1000):
        dropped.note(Stray.PROGRESS, "progress of nobody's call")
    assert counter._value.get() - before == 1000
    assert caplog.messages == ["http://127.0.0.1:1/mcp: dropped progress of nobody's call"] * 5
