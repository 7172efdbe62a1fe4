"""Tests of which connection is closed."""

import attrs

from mcp_gateway.transports.upstream.pipes.pipe_pool import idle, least_needed


@attrs.frozen
class Use:
    used_s: float
    is_busy: bool = False
    has_stream: bool = False


def test_a_busy_one_is_never_closed_and_one_that_is_listened_to_only_if_there_is_no_other() -> None:
    busy, listened, fresh, old = Use(0, is_busy=True), Use(1, has_stream=True), Use(3), Use(2)
    assert least_needed([busy, listened, fresh, old]) == old
    assert least_needed([busy, listened, fresh]) == fresh
    assert least_needed([busy, listened]) == listened
    assert least_needed([busy]) is None
    assert least_needed([]) is None


def test_idle_is_who_has_neither_call_nor_listener_for_so_long() -> None:
    pipes = [Use(0), Use(0, is_busy=True), Use(0, has_stream=True), Use(1), Use(1.5)]
    assert idle(pipes, 11.0, 10.0) == [Use(0), Use(1)]
