"""Backends that were changed, as the actor system after one that died finds them."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from mcp_gateway.actors.node.kept_backends import Taken, keep_backends, kept_taken, with_kept_backends
from mcp_gateway.actors.node.settings_tables import fingerprint_of
from mcp_gateway.config.backend_settings import LeftOutServer
from mcp_gateway.config.identity_settings import Revocations
from mcp_gateway.config.loader import settings_from_mapping
from mcp_gateway.config.settings import Settings

FULL = settings_from_mapping(
    {
        "gateway": {"port": 4001},
        "backends": [
            {"name": "web", "replicas": ["http://u:p@127.0.0.1:1/mcp", "ws://127.0.0.1:2"], "headers": {"A": "\u00e9"}},
            {"name": "local", "command": ["python", "x.py"], "env": {"A": "b"}, "cwd": "/tmp", "instances": 2, "pool_size": 3},
            {"name": "demo", "builtin": "demo", "request_timeout": 0.5, "draining": True},
            {
                "name": "curated",
                "builtin": "demo",
                "tools": {
                    "allow": ["a*"],
                    "rename": {"a": "b"},
                    "pin": "warn",
                    "check": ["results"],
                    "guard": {"callable": "a:b", "phases": ["after"]},
                    "overrides": {"a": {"fixed": {"x": [1, {"y": None}]}}},
                },
            },
        ],
        "routes": [{"pattern": "tools/*", "backend": "web", "hash_on": "header:X", "transports": ["websocket"]}],
        "auth": {
            "mode": "optional",
            "denied_subjects": ["mallory"],
            "issuers": [{"issuer": "https://id.example", "audience": ["x"], "leeway": 5}],
            "api_keys": [{"name": "ci", "hash": f"sha256:{'0' * 64}", "scopes": ["a"]}],
        },
        "servers": [{"name": "part", "include": ["web/*"], "exclude": ["web/x"], "instructions": "Look."}],
        "search": {"above": 3, "pinned": ["web__*"]},
        "policies": [{"effect": "allow", "tools": ["web__*"], "when": "arguments.a == 1"}],
    },
    "test",
)


LEFT_OUT = Settings(left_out=(LeftOutServer(name="bad", title="Bad one", reason="m.json: found 3; allowed: a table"),))


REVOKED = Settings(revocations=Revocations(subjects=("alice",), fingerprints=("0" * 32,)))


TAKEN = Taken(number=7, file="abc")


@pytest.mark.parametrize("kept", [FULL, Settings(), Settings.demo(), LEFT_OUT, REVOKED])
def test_what_was_kept_comes_back_as_it_was_over_the_settings_of_the_start(kept: Settings, tmp_path: Path) -> None:
    started = attrs.evolve(Settings.demo(), gateway=FULL.gateway)
    path = tmp_path / "backends.json"
    keep_backends(path, kept, TAKEN)
    expected = attrs.evolve(started, backends=kept.backends, routes=kept.routes, policies=kept.policies, left_out=kept.left_out)
    expected = attrs.evolve(expected, auth=kept.auth, revocations=kept.revocations, servers=kept.servers, search=kept.search)
    assert with_kept_backends(path, started) == expected
    keep_backends(path, FULL, TAKEN)  # again: the last one counts
    assert with_kept_backends(path, started).backends == FULL.backends
    assert [each.name for each in tmp_path.iterdir()] == ["backends.json"]


def test_which_settings_of_its_cluster_a_node_has_outlives_its_actor_system_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "backends.json"
    assert kept_taken(path, FULL) == Taken(0, fingerprint_of(FULL))
    keep_backends(path, FULL, TAKEN)
    assert kept_taken(path, Settings()) == TAKEN


def test_where_nothing_was_changed_all_is_as_at_the_start(tmp_path: Path) -> None:
    assert with_kept_backends(tmp_path / "backends.json", FULL) is FULL


def test_what_cannot_be_written_leaves_what_was_kept_before(tmp_path: Path) -> None:
    path = tmp_path / "backends.json"
    keep_backends(path, FULL, TAKEN)
    (tmp_path / "backends.new").mkdir()
    with pytest.raises(OSError, match="directory"):
        keep_backends(path, Settings(), TAKEN)
    assert with_kept_backends(path, Settings()).backends == FULL.backends
