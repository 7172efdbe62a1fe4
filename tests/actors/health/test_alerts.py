"""Alerts: what they say, how they are signed, and the order and bounds of those that wait."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.actors.health.alerts import Alert, AlertQueue, Severity, alert_of, signed_headers


def alert(number: int, topic: str = "vsm.algedonic.pain") -> Alert:
    return alert_of(number, topic, {"source": "errors/files", "intensity": 0.4, "reason": "40 % fail"}, 1_800_000_000_000)


@pytest.mark.parametrize(
    ("topic", "payload", "severity", "text"),
    [
        ("vsm.algedonic.pain", {"source": "x", "intensity": 0.3, "reason": "slow"}, Severity.WARNING, "pain: x: slow"),
        ("vsm.algedonic.pain", {"source": "x", "intensity": 0.9, "reason": "slow"}, Severity.CRITICAL, "pain: x: slow"),
        ("vsm.algedonic.pleasure", {"source": "x", "intensity": 0.9, "reason": "slow"}, Severity.RESOLVED, "pleasure: x: slow"),
        ("vsm.algedonic.emergency", {"source": "viability", "reason": "gone"}, Severity.CRITICAL, "emergency: viability: gone"),
        ("mcp.health.failed", {"component": "router", "reason": ""}, Severity.CRITICAL, "failed: router"),
        ("mcp.health.recovered", {"component": "router", "status": "healthy"}, Severity.RESOLVED, "recovered: router: healthy"),
        ("mcp.supervisor.escalated", {"child": "", "reason": "too often"}, Severity.CRITICAL, "escalated: too often"),
        ("client.chat", {}, Severity.WARNING, "chat: client.chat"),
    ],
)
def test_an_event_becomes_an_alert(topic: str, payload: dict[str, object], severity: Severity, text: str) -> None:
    found = alert_of(7, topic, payload, 1)
    assert (found.severity, found.text) == (severity, text)
    assert json.loads(found.body()) == {
        "type": topic,
        "timestamp": 1,
        "data": {**payload, "severity": severity.value, "text": text},
    }


def test_the_same_event_has_the_same_id_whoever_sends_it() -> None:
    assert alert(7).alert_id == alert(7).alert_id != alert(8).alert_id


@pytest.mark.parametrize(
    ("secret", "key"),
    [("plain text", b"plain text"), ("whsec_" + base64.b64encode(b"32 bytes").decode(), b"32 bytes"), ("whsec_!", b"whsec_!")],
)
def test_the_signature_is_that_of_standard_webhooks(secret: str, key: bytes) -> None:
    body = alert(7).body()
    headers = signed_headers(alert(7), body, secret, 1_800_000_000)
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert "webhook-signature" not in signed_headers(alert(7), body, "", 1)


def test_alerts_wait_in_order_and_an_emergency_goes_first() -> None:
    queue = AlertQueue(10)
    first, second, urgent = alert(1), alert(2), alert(3, "vsm.algedonic.emergency")
    for each in (first, second, urgent):
        assert queue.add(each) is None
    order = []
    while (waiting := queue.next) is not None:
        order.append(waiting)
        queue.sent(waiting)
    assert order == [urgent, first, second]


def test_the_pause_doubles_up_to_half_a_minute_and_a_success_ends_it() -> None:
    queue = AlertQueue(10)
    queue.add(alert(1))
    assert [queue.failed(100.0) for _ in range(9)] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert queue.wait_s(110.0) == pytest.approx(20.0)
    queue.sent(alert(1))
    assert queue.wait_s(110.0) == 0.0
    assert queue.failed(0.0) == 0.5


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 10))
def test_at_most_so_many_wait_and_the_newest_are_among_them(urgencies: list[bool], most: int) -> None:
    queue, given_up = AlertQueue(most), 0
    for number, is_urgent in enumerate(urgencies):
        given_up += queue.add(alert(number, "vsm.algedonic.emergency" if is_urgent else "mcp.x")) is not None
        assert len(queue) <= most
    assert given_up == max(0, len(urgencies) - most)
