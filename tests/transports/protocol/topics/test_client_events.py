"""What a client may publish: refused with a text that says why, or as it is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.topics.client_events import MAX_PAYLOAD_BYTES, check_client_event
from mcp_gateway.transports.protocol.topics.topic_log import TopicLog

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def nested(depth: int) -> dict[str, Any]:
    payload: dict[str, Any] = {}
    for _ in range(depth):
        payload = {"a": payload}
    return payload


@pytest.mark.parametrize("topic", ["client.a", "client.my-app.x_2", "client." + "a" * 193])
def test_topics_of_clients_are_allowed(topic: str) -> None:
    assert check_client_event(topic, {"n": 1}) == (topic, {"n": 1})


@pytest.mark.parametrize(
    ("topic", "text"),
    [
        (None, "is a string"),
        (["client.a"], "is a string"),
        ("", "begin with 'client.'"),
        ("client", "begin with 'client.'"),
        ("all", "begin with 'client.'"),
        ("vsm.algedonic.pain", "begin with 'client.'"),
        ("Client.a", "begin with 'client.'"),
        ("client.", "no topic"),
        ("client.*", "no topic"),
        ("client.A", "no topic"),
        ("client.a b", "no topic"),
        ("client.a\n", "no topic"),
        ("client." + "a" * 194, "no topic"),
    ],
)
def test_other_topics_are_refused(topic: object, text: str) -> None:
    with pytest.raises(Refused, match=text) as caught:
        check_client_event(topic, {})
    assert caught.value.reason == "invalid_params"


@pytest.mark.parametrize("payload", [None, 1, "text", [], {"a": "\ud800"}, {1.5: "a"} | {(): 1}, {"a": object}, nested(5_000)])
def test_what_is_no_json_object_is_refused(payload: object) -> None:
    with pytest.raises(Refused, match="payload of an event is") as caught:
        check_client_event("client.a", payload)
    assert caught.value.reason == "invalid_params"


def test_a_payload_may_be_as_large_as_the_limit_and_no_larger() -> None:
    fits = {"a": "x" * (MAX_PAYLOAD_BYTES - len('{"a":""}'))}
    check_client_event("client.a", fits)
    with pytest.raises(Refused, match="at most 16384 bytes, not 16385") as caught:
        check_client_event("client.a", {"a": fits["a"] + "x"})
    assert caught.value.reason == "too_large"


@given(
    topic=st.text(max_size=20).map(lambda text: f"client.{text}") | st.from_regex(r"client(\.[a-z0-9_-]+)+", fullmatch=True),
    payload=JSON,
)
def test_what_passes_can_be_logged_and_everything_else_is_refused(topic: str, payload: Any) -> None:
    try:
        check_client_event(topic, payload)
    except Refused as refused:
        assert refused.reason in ("invalid_params", "too_large")
        return
    TopicLog(1).append(topic, payload, 0)
