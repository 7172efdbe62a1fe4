"""Settings of nodes that are one gateway: `[cluster]`. Rules as in `settings`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from .common_rules import LINE, NAME, PATH
from .setting_rules import Rule, SettingProblem, Text, quote

_SERVER = r"(?:nats|tls)://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?"
_SERVERS = Text(
    rf"{_SERVER}(?:,{_SERVER})*",
    "nats:// or tls:// URLs of NATS servers, with commas in between, without user and path",
    longest=2_000,
)


class _Replicas(Rule):
    """How many servers keep each stream: an odd number, so that there is a majority. Source: NATS, "JetStream Clustering"."""

    allowed = "1, 3 or 5"

    def problems(self, key: str, value: object) -> Iterator[SettingProblem]:
        if type(value) is not int or value not in (1, 3, 5):
            yield SettingProblem(key=key, found=quote(value), allowed=self.allowed)

    def json_schema(self) -> dict[str, Any]:
        return {"enum": [1, 3, 5]}


@attrs.frozen(kw_only=True)
class ClusterSettings:
    """`[cluster]`: several nodes as one gateway, joined by NATS JetStream. Without this table the node is alone.

    url:             of the NATS servers.
    node:            the name of this node, another on each.
    key_file:        a secret of at least 32 bytes, the same on all nodes; ids of sessions and what nodes say are sealed with it.
                     Or two to four keys of 32 bytes: the first seals, and what was sealed with any of them is opened.
    name:            of the cluster: those of other names may use the same servers.
    replicas:        NATS servers that keep the keys and events; without a number three, where `url` names as many.
    user:            as which the servers know the gateway, with the content of `password_file`.
    tls_ca:          whose certificates the servers have, where that is not the system's choice.
    tls_certificate: shown to the servers, with `tls_key`.
    """

    url: str = attrs.field(validator=_SERVERS)
    node: str = attrs.field(validator=NAME)
    key_file: str = attrs.field(validator=PATH)
    name: str = attrs.field(default="mcp-gateway", validator=NAME)
    replicas: int = attrs.field(validator=_Replicas())
    user: str = attrs.field(default="", validator=LINE)
    password_file: str = attrs.field(default="", validator=PATH)
    tls_ca: str = attrs.field(default="", validator=PATH)
    tls_certificate: str = attrs.field(default="", validator=PATH)
    tls_key: str = attrs.field(default="", validator=PATH)

    @replicas.default
    def _replicas_of_servers(self) -> int:
        return 3 if str(self.url).count(",") >= 2 else 1

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(self.url.split(","))


def cluster_problems(fields: Mapping[str, Any] | None, actor_system: Mapping[str, Any]) -> Iterator[SettingProblem]:
    """Check `[cluster]` as a whole; None where there is none. Fields that were wrong themselves are not in it."""
    if fields is None:
        return
    if actor_system.get("base") == "simpleSystemBase":
        allowed = "a node of processes (multiprocTCPBase): an embedded gateway is alone"
        yield SettingProblem(key="cluster", found='actor_system.base = "simpleSystemBase"', allowed=allowed)
    for one, other in (("user", "password_file"), ("tls_certificate", "tls_key")):
        if one in fields and other in fields and bool(fields[one]) != bool(fields[other]):
            missing, there = (other, one) if fields[one] else (one, other)
            yield SettingProblem(key=f"cluster.{missing}", found="nothing", allowed=f"a value beside cluster.{there}")
