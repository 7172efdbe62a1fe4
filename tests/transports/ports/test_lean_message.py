"""Messages of which there are several for every call."""

from __future__ import annotations

import copy
import pickle
from typing import ClassVar

import pytest

from mcp_gateway.transports.ports.lean_message import LeanMessage


class Told(LeanMessage, frozen=True, kw_only=True):
    HIDDEN: ClassVar[frozenset[str]] = frozenset({"secret"})
    number: int
    secret: str = ""
    name: str


TOLD = Told(number=1, secret="password", name="one")


def test_what_is_hidden_is_not_shown() -> None:
    assert str(TOLD) == repr(TOLD) == "Told(number=1, name='one')"


def test_nobody_changes_a_message() -> None:
    with pytest.raises(AttributeError):
        TOLD.number = 2  # type: ignore[misc]


def test_a_message_survives_the_way_to_another_process() -> None:
    for way in (copy.copy, copy.deepcopy, lambda told: pickle.loads(pickle.dumps(told))):
        assert way(TOLD) == TOLD
