"""`[cluster]`: what may be written there."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_gateway.config.cluster_settings import ClusterSettings
from mcp_gateway.config.loader import ConfigError, settings_from_mapping
from mcp_gateway.config.settings import Settings

GIVEN = {"url": "nats://127.0.0.1:4222", "node": "node-a", "key_file": "/etc/cluster.key"}


def problems(**changes: Any) -> list[str]:
    cluster = {name: value for name, value in {**GIVEN, **changes}.items() if value is not None}
    try:
        settings_from_mapping({"cluster": cluster}, "f")
    except ConfigError as error:
        return [f"{problem.key}: {problem.found}; {problem.allowed}" for problem in error.problems]
    return []


def test_a_cluster_needs_servers_a_name_and_a_key_and_the_rest_has_defaults() -> None:
    settings = settings_from_mapping({"cluster": GIVEN}, "f").cluster
    assert settings == ClusterSettings(**GIVEN, name="mcp-gateway", replicas=1)
    for name in GIVEN:
        assert [each.partition(":")[0] for each in problems(**{name: None})] == [f"cluster.{name}"]
    assert Settings().cluster is None


def test_several_servers_are_one_text() -> None:
    several = ClusterSettings(**{**GIVEN, "url": "nats://one:4222,tls://two,nats://[::1]:4222"})
    assert several.urls == ("nats://one:4222", "tls://two", "nats://[::1]:4222")


def test_as_many_servers_as_make_a_majority_keep_what_there_is_unless_it_is_said_otherwise() -> None:
    urls = ["nats://one", "nats://two", "nats://three", "nats://four"]
    assert [ClusterSettings(**{**GIVEN, "url": ",".join(urls[:count])}).replicas for count in (1, 2, 3, 4)] == [1, 1, 3, 3]
    assert ClusterSettings(**{**GIVEN, "url": ",".join(urls), "replicas": 1}).replicas == 1


@pytest.mark.parametrize("url", ["", "http://one", "nats://", "nats://u:p@one", "nats://one,", "nats://one/path", 5])
def test_what_names_no_nats_server_is_refused(url: object) -> None:
    assert [each.partition(":")[0] for each in problems(url=url)] == ["cluster.url"]


@pytest.mark.parametrize("node", ["", "a/b", "a.b", "1a", "a b", "x" * 65])
def test_a_name_that_would_not_be_told_from_a_cells_is_refused(node: str) -> None:
    assert [each.partition(":")[0] for each in problems(node=node)] == ["cluster.node"]
    assert problems(node="x" * 64) == []


@pytest.mark.parametrize("replicas", [0, 2, 4, 7, True, 3.0, "3"])
def test_streams_have_a_majority(replicas: object) -> None:
    assert [each.partition(":")[0] for each in problems(replicas=replicas)] == ["cluster.replicas"]
    assert problems(replicas=3) == []


def test_what_belongs_together_is_given_together() -> None:
    assert problems(user="gateway") == ["cluster.password_file: nothing; a value beside cluster.user"]
    assert problems(tls_key="/key") == ["cluster.tls_certificate: nothing; a value beside cluster.tls_key"]
    assert problems(user="gateway", password_file="/p", tls_key="/k", tls_certificate="/c") == []


def test_an_embedded_gateway_is_alone() -> None:
    mapping = {"cluster": GIVEN, "actor_system": {"base": "simpleSystemBase"}}
    with pytest.raises(ConfigError, match="embedded"):
        settings_from_mapping(mapping, "f")


def test_cells_of_a_cluster_are_named_by_their_node_and_others_as_they_are() -> None:
    assert settings_from_mapping({"cluster": GIVEN}, "f").name_in_cluster("cell/0") == "node-a/cell/0"
    assert Settings().name_in_cluster("cell/0") == "cell/0"
