"""The fixture `mcp_gateway` for tests of programs that speak MCP; pytest finds it by itself where the gateway is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mcp_gateway import Gateway


@pytest.fixture
def mcp_gateway() -> Iterator[Callable[..., Gateway]]:
    """`mcp_gateway(backends, **tables)` is a gateway that runs until the test is over, see `mcp_gateway.Gateway`.

    It has a thread of its own, so that tests may be functions or coroutines, whatever runs them.
    """
    from mcp_gateway import Gateway

    with ExitStack() as gateways:

        def start(*arguments: Any, **tables: Any) -> Gateway:
            return gateways.enter_context(Gateway(*arguments, **tables))

        yield start
