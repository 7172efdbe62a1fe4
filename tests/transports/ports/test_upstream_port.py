"""What may be registered as a transport, and how replica addresses name theirs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mcp_gateway.transports.ports.strategies import scheme_of, strategy_problem, url_of
from mcp_gateway.transports.upstream.builtin.demo_conversation import BuiltinUpstream
from mcp_gateway.transports.upstream.http.streamable_http import StreamableHttpUpstream


def connect(*_: Any) -> None:
    """Stands for a strategy's own."""


UPSTREAM = {"name": "x", "schemes": frozenset({"x"}), "connect": connect}
DOWNSTREAM = {"name": "x", "paths": ("/x",)}


@pytest.mark.parametrize(
    "strategy", [BuiltinUpstream(), StreamableHttpUpstream(), SimpleNamespace(**UPSTREAM), SimpleNamespace(**DOWNSTREAM)]
)
def test_a_strategy_of_either_kind_is_accepted(strategy):
    assert strategy_problem(strategy) == ""


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        (None, "name"),
        ({}, "name"),
        ({**UPSTREAM, "name": ""}, "name"),
        ({**UPSTREAM, "name": 7}, "name"),
        ({**UPSTREAM, "schemes": frozenset()}, "schemes"),
        ({**UPSTREAM, "schemes": {"x"}}, "schemes"),
        ({**UPSTREAM, "schemes": "x"}, "schemes"),
        ({**UPSTREAM, "schemes": frozenset({1})}, "schemes"),
        ({**UPSTREAM, "connect": "x"}, "connect"),
        ({"name": "x", "schemes": frozenset({"x"})}, "neither"),
        ({"name": "x", "connect": connect}, "neither"),
        ({"name": "x"}, "neither"),
        ({**DOWNSTREAM, "paths": ()}, "paths"),
        ({**DOWNSTREAM, "paths": ["/x"]}, "paths"),
        ({**DOWNSTREAM, "paths": "/x"}, "paths"),
        ({**DOWNSTREAM, "paths": ("x",)}, "paths"),
        ({**DOWNSTREAM, "paths": (1,)}, "paths"),
    ],
)
def test_what_is_wrong_with_a_strategy_is_said(strategy, said):
    problem = strategy_problem(strategy if strategy is None else SimpleNamespace(**strategy))
    assert said in problem


@pytest.mark.parametrize(
    ("replica_id", "scheme"),
    [
        ("http://127.0.0.1:3001/mcp", "http"),
        ("https://a/mcp", "https"),
        ("sse+http://a/sse", "sse+http"),
        ("ws://a", "ws"),
        ("stdio:files#0", "stdio"),
        ("builtin:demo", "builtin"),
    ],
)
def test_an_address_names_the_transport_that_speaks_to_it(replica_id, scheme):
    assert scheme_of(replica_id) == scheme


@pytest.mark.parametrize(
    ("replica", "url"),
    [
        ("http://a/mcp", "http://a/mcp"),
        ("sse+https://a/s+s?x=a+b://c", "https://a/s+s?x=a+b://c"),
        ("auto+http://u+v@a/", "http://u+v@a/"),
    ],
)
def test_the_url_of_an_address_is_what_follows_our_word_for_its_transport(replica, url):
    assert url_of(replica) == url
