"""What each kind of fault may be felt of, and by whom."""

from __future__ import annotations

import pytest

from mcp_gateway.scripts.chaos_harness.fault_kinds import (
    ALONE,
    BACKENDS,
    CLUSTER,
    EMBEDDED,
    FAULTS,
    KINDS,
    LOCAL,
    NODE,
    PAIR,
    backend_of,
    hurt_backends,
    leaves_a_replica,
)


@pytest.mark.parametrize(
    ("kind", "target", "hurt", "leaves"),
    [
        ("kill cell", "cell/0", BACKENDS, False),
        ("restart cell", "cell/0", (), False),
        ("rolling restart", "node", (), False),
        ("upgrade", "node", (), False),
        ("kill server", "pair-1", (PAIR,), True),
        ("kill server", "alone-0", (ALONE,), False),
        ("kill process", "local-0", (LOCAL,), False),
        ("slow server", "alone-0", (), False),
        ("full disk", "gateway", (), False),
        ("kill node", "node/1", BACKENDS, False),
        ("slow links", "links", (), False),
    ],
)
def test_a_fault_hurts_the_backend_of_its_server_or_all_or_none(
    kind: str, target: str, hurt: tuple[str, ...], leaves: bool
) -> None:
    assert hurt_backends(KINDS[kind], target) == hurt
    assert leaves_a_replica(KINDS[kind], target) == leaves


def test_every_kind_exists_for_some_form_and_every_target_is_known() -> None:
    for kind in FAULTS:
        assert kind.forms <= {NODE, EMBEDDED, CLUSTER}
        assert kind.forms != {CLUSTER} or {target.partition("/")[0] for target in kind.targets} <= {"node", "nats", "links"}
        assert kind.forms
        if kind.hurts == "target":
            assert all(backend_of(target) in BACKENDS for target in kind.targets)


def test_a_server_that_nobody_has_is_no_backends() -> None:
    with pytest.raises(KeyError):
        backend_of("cell/0")
