"""What a client may say when it opens a session, over every transport: most of it is not kept, and what is has a bound."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from mcp_gateway.transports.protocol.sealed.session import MAX_ID_CHARACTERS
from tests.conftest import StartGateway
from tests.end_to_end.every_transport import WAYS
from tests.end_to_end.python_client import run
from tests.end_to_end.raw_http import LEGACY, Answer, ask, request
from tests.end_to_end.running_gateway import RunningGateway

DEMO = [{"name": "demo", "prefix": "", "builtin": "demo"}]
INFO = {"name": "client", "version": "1"}
PAD = "A" * 4_000_000


@pytest.fixture(scope="module", params=["embedded", "two cells"])
def gateway(request: pytest.FixtureRequest, start_gateway: StartGateway) -> Iterator[RunningGateway]:
    with start_gateway(request.param, DEMO) as gateway:
        yield gateway
        assert gateway.restart_count() == 0


def initialize(**capabilities: Any) -> dict[str, Any]:
    return request("initialize", {"protocolVersion": LEGACY, "capabilities": capabilities, "clientInfo": INFO}, request_id=1)


@pytest.mark.parametrize("way", WAYS)
def test_what_nobody_acts_on_may_be_long(way: str, gateway: RunningGateway) -> None:
    """1 MB where the client's own library bounds a message."""
    answer = run(WAYS[way](gateway.url, initialize(sampling={}, experimental={"x": {"y": PAD[:1_000_000]}})))
    assert "result" in answer, answer


@pytest.mark.parametrize("way", WAYS)
def test_what_a_session_must_keep_is_refused_where_it_has_no_room(way: str, gateway: RunningGateway) -> None:
    for size, is_taken in ((1_000, True), (2_000, False)):
        answer = run(WAYS[way](gateway.url, initialize(sampling={"x": PAD[:size]})))
        assert ("result" in answer) == is_taken, answer
    assert (answer["error"]["code"], answer["error"]["data"]["reason"], answer["id"]) == (4130, "too_large", 1)


def test_a_refusal_over_http_has_its_status(gateway: RunningGateway) -> None:
    assert opened(gateway, sampling={"x": PAD}).status == 413


def opened(gateway: RunningGateway, **capabilities: Any) -> Answer:
    return ask(f"{gateway.url}/mcp", initialize(**capabilities))


def test_many_sessions_of_long_handshakes_cost_little_memory_and_disk(gateway: RunningGateway) -> None:
    """4 MB each. What one cell or the other needs to read such a message once is not what it keeps."""
    opened(gateway, experimental={"x": PAD})
    before_mb = memory_mb(gateway)
    count = 20
    for _ in range(count):
        answer = opened(gateway, experimental={"x": PAD})
        assert len(answer.headers["mcp-session-id"]) <= MAX_ID_CHARACTERS
    journal = [path.stat().st_size for path in gateway.state_dir.glob("sessions.sqlite3*")]
    assert sum(journal) < 5_000_000
    assert memory_mb(gateway) - before_mb < count * 4 / 2


def memory_mb(gateway: RunningGateway) -> float:
    processes = [psutil.Process(gateway.pid), *psutil.Process(gateway.pid).children(recursive=True)]
    found = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found += process.memory_full_info().pss
    return found / 1e6


def test_nobody_else_may_read_what_is_kept(gateway: RunningGateway) -> None:
    opened(gateway)
    kept = [gateway.state_dir, *gateway.state_dir.rglob("*")]
    assert len(kept) > 5
    assert {path: oct(path.stat().st_mode) for path in kept if path.stat().st_mode & 0o077} == {}
