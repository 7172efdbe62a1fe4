"""Settings as plain tables, and back."""

from __future__ import annotations

import json

import attrs
import pytest

from mcp_gateway.actors.node.settings_tables import encoded_tables, fingerprint_of, with_tables
from mcp_gateway.config.identity_settings import Revocations
from mcp_gateway.config.settings import Settings

from .test_kept_backends import FULL


def test_tables_make_the_same_settings_of_another_nodes_but_for_what_is_its_own() -> None:
    own = attrs.evolve(Settings.demo(), revocations=Revocations(subjects=("mallory",)))
    taken = with_tables(own, json.loads(encoded_tables(FULL)))
    assert encoded_tables(taken) == encoded_tables(FULL)
    assert (taken.gateway, taken.revocations) == (own.gateway, own.revocations)
    assert attrs.evolve(taken, gateway=FULL.gateway, revocations=FULL.revocations) == FULL


def test_files_are_told_apart_by_what_may_change_in_them() -> None:
    other_port = attrs.evolve(FULL, gateway=attrs.evolve(FULL.gateway, port=5000))
    assert fingerprint_of(other_port) == fingerprint_of(FULL)
    assert fingerprint_of(attrs.evolve(FULL, routes=())) != fingerprint_of(FULL)


@pytest.mark.parametrize("tables", [{}, {"backends": [{"unknown": 1}]}])
def test_what_another_version_has_written_is_an_error(tables: object) -> None:
    with pytest.raises((TypeError, KeyError)):
        with_tables(FULL, tables)  # type: ignore[arg-type]
