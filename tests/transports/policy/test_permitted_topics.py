"""What one client may follow of a pattern: of each event anew, by the policies that hold then."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.config.identity_settings import PolicySettings
from mcp_gateway.transports.policy.actions import Names
from mcp_gateway.transports.policy.permissions import Permissions
from mcp_gateway.transports.policy.permitted_topics import PermittedTopics
from mcp_gateway.transports.policy.policies import Policies
from mcp_gateway.transports.ports.principal import Principal
from mcp_gateway.transports.protocol.topics.retained_events import RetainedEvents
from mcp_gateway.transports.protocol.topics.topic_log import Event

ANN, BOB = (Principal(issuer="https://id.example", subject=name) for name in ("ann", "bob"))


def permissions(*tables: dict[str, Any]) -> Permissions:
    policies = Policies([PolicySettings(**{"effect": "allow", **table}) for table in tables])
    return Permissions(policies, Names((), lambda _: ""), knows_clients=True)


def read(pattern: PermittedTopics, *topics: str) -> list[str]:
    """What the log of a cell gives to who follows the pattern."""
    log = RetainedEvents(100)
    for event_id, topic in enumerate(topics, 1):
        log.add(Event(id=event_id, topic=topic, payload_json=b"{}", timestamp_ms=0))
    return [event.topic for event in log.read(0, pattern, 50).events]


@pytest.mark.parametrize("text", ["all", "*", "client.*"])
def test_privilege_by_a_wildcard_gets_what_its_client_may_follow_and_no_more(text: str) -> None:
    """Attack."""
    rules = permissions({"topics": ["client.a", "vsm.*"]}, {"effect": "deny", "topics": ["vsm.secret"]})
    seen = read(PermittedTopics(text, ANN, lambda: rules), "client.a", "client.b", "vsm.pain", "vsm.secret", "mcp.x")
    assert seen == (["client.a"] if text == "client.*" else ["client.a", "vsm.pain"])


def test_other_policies_hold_for_streams_that_are_open() -> None:
    now = [permissions({"topics": ["*"]})]
    pattern = PermittedTopics("all", ANN, lambda: now[0])
    assert pattern.matches("client.a")
    now[0] = permissions({"topics": ["client.b"]})
    assert not pattern.matches("client.a")
    assert pattern.matches("client.b")


def test_two_clients_of_one_pattern_do_not_share_what_was_read_for_one_of_them() -> None:
    rules = permissions({"subjects": ["ann"]})
    ann, bob = (PermittedTopics("all", principal, lambda: rules) for principal in (ANN, BOB))
    assert ann != bob
    assert ann == PermittedTopics("all", ANN, lambda: rules)
    assert hash(ann) == hash(PermittedTopics("all", ANN, lambda: rules))
    assert (ann.matches("client.a"), bob.matches("client.a")) == (True, False)


def test_topics_that_clients_make_up_fill_no_memory() -> None:
    rules = permissions({})
    pattern = PermittedTopics("all", ANN, lambda: rules)
    assert all(pattern.matches(f"client.{number}") for number in range(3_000))
    assert len(pattern._known) <= 1_000


_topics = st.sampled_from(["client.a", "client.b", "vsm.a", "vsm.a.b", "mcp.x"])
_patterns = st.lists(st.sampled_from(["client.*", "vsm.*", "vsm.a", "*a", "*"]), max_size=2, unique=True)


@given(
    tables=st.lists(st.fixed_dictionaries({"effect": st.sampled_from(["allow", "deny"]), "topics": _patterns}), max_size=4),
    text=st.sampled_from(["all", "client.*", "vsm.*", "vsm.a", "vsm.a.*"]),
    topics=st.lists(_topics, max_size=6),
)
def test_each_event_is_judged_as_its_topic_alone(tables: Any, text: str, topics: list[str]) -> None:
    """Whichever part of the log it is read from."""
    rules = permissions(*tables)
    pattern = PermittedTopics(text, ANN, lambda: rules)
    expected = [topic for topic in topics if pattern.matches(topic) and rules.may_follow(ANN, topic)]
    assert read(pattern, *topics) == expected
