"""What an alert is, what it looks like to whom it is sent, and which of those that wait is sent next. Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections import deque
from collections.abc import Mapping
from enum import Enum
from typing import Any

import attrs
import msgspec

_FIRST_RETRY_S = 0.5
_LONGEST_RETRY_S = 30.0
_CRITICAL_FROM = 0.6


class Severity(Enum):
    """How bad it is; RESOLVED tells the end of something that was told before."""

    CRITICAL = "critical"
    WARNING = "warning"
    RESOLVED = "resolved"


@attrs.frozen(kw_only=True)
class Alert:
    """One event that somebody must know of.

    alert_id: the same for the same event, however often it is sent: receivers recognise repetitions by it.
    """

    alert_id: str
    severity: Severity
    topic: str
    text: str
    payload: Mapping[str, Any] = attrs.field(repr=False)
    timestamp_ms: int

    @property
    def is_urgent(self) -> bool:
        """It goes ahead of others that wait."""
        return self.topic == "vsm.algedonic.emergency"

    def body(self) -> bytes:
        return msgspec.json.encode(
            {
                "type": self.topic,
                "timestamp": self.timestamp_ms,
                "data": {"severity": self.severity.value, "text": self.text, **self.payload},
            }
        )


def alert_of(event_id: int, topic: str, payload: Mapping[str, Any], timestamp_ms: int) -> Alert:
    """The alert that an event is."""
    about = str(payload.get("source") or payload.get("component") or payload.get("child") or payload.get("replica") or "")
    reason = str(payload.get("reason") or payload.get("status") or "")
    word = topic.rpartition(".")[2]
    text = f"{word}: {about}: {reason}" if about and reason else f"{word}: {about or reason or topic}"
    return Alert(
        alert_id=f"{timestamp_ms:x}-{event_id}",
        severity=_severity(topic, payload),
        topic=topic,
        text=text,
        payload=payload,
        timestamp_ms=timestamp_ms,
    )


def _severity(topic: str, payload: Mapping[str, Any]) -> Severity:
    word = topic.rpartition(".")[2]
    if word in ("pleasure", "recovered", "restored", "closed", "improving"):
        return Severity.RESOLVED
    intensity = payload.get("intensity")
    is_strong = isinstance(intensity, (int, float)) and intensity >= _CRITICAL_FROM
    return Severity.CRITICAL if word in ("emergency", "failed", "escalated") or is_strong else Severity.WARNING


def signed_headers(alert: Alert, body: bytes, secret: str, now_s: int) -> dict[str, str]:
    """Headers that name the alert and, with a secret, prove who has sent it.

    The secret is base64 behind "whsec_", or any other text, which is taken as it is.
    Source: Standard Webhooks specification 1.0, "Webhook Metadata" and "Signature scheme".
    """
    headers = {"Content-Type": "application/json", "webhook-id": alert.alert_id, "webhook-timestamp": str(now_s)}
    if secret:
        content = b"%b.%d.%b" % (alert.alert_id.encode(), now_s, body)
        digest = hmac.new(_key(secret), content, hashlib.sha256).digest()
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return headers


def _key(secret: str) -> bytes:
    if secret.startswith("whsec_"):
        try:
            return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except ValueError:
            pass
    return secret.encode()


class AlertQueue:
    """What waits for one sink, and when it may be tried again. Bounded: the oldest is given up for the newest.

    One at a time, in order; an urgent alert goes ahead of all that are not. Times are of the caller's monotonic clock.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._urgent: deque[Alert] = deque()
        self._others: deque[Alert] = deque()
        self._failures = 0
        self._not_before_s = 0.0

    def __len__(self) -> int:
        return len(self._urgent) + len(self._others)

    def add(self, alert: Alert) -> Alert | None:
        """Let an alert wait; gives the one that is given up for it, if any."""
        (self._urgent if alert.is_urgent else self._others).append(alert)
        if len(self) <= self._most:
            return None
        return self._others.popleft() if self._others else self._urgent.popleft()

    @property
    def next(self) -> Alert | None:
        """The alert to send next; None when nothing waits."""
        if self._urgent:
            return self._urgent[0]
        return self._others[0] if self._others else None

    def wait_s(self, now_s: float) -> float:
        """How long the sink is left alone."""
        return max(0.0, self._not_before_s - now_s)

    def sent(self, alert: Alert) -> None:
        """The sink has taken it, or never will: it waits no longer."""
        self._failures, self._not_before_s = 0, 0.0
        for waiting in (self._urgent, self._others):
            if alert in waiting:
                waiting.remove(alert)

    def failed(self, now_s: float) -> float:
        """The sink did not take it; gives the time until the next try, which doubles each time."""
        pause_s = min(_LONGEST_RETRY_S, _FIRST_RETRY_S * 2.0 ** min(self._failures, 10))
        self._failures += 1
        self._not_before_s = now_s + pause_s
        return pause_s
