"""A service manager is told on the socket that it has named, and nobody else is."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcp_gateway.scripts.serving.service_manager import ServiceManager


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "notify"))
        bound.setblocking(False)
        yield bound


def manager(listener: socket.socket, **more: str) -> ServiceManager:
    return ServiceManager.taken_from({"NOTIFY_SOCKET": listener.getsockname(), **more})


def told(listener: socket.socket) -> list[str]:
    return listener.recv(4096).decode().split("\n")


def test_each_state_is_told_in_the_words_of_the_protocol(listener: socket.socket) -> None:
    service = manager(listener)
    service.ready("listening on\nhttp://x")
    assert told(listener) == ["READY=1", "STATUS=listening on http://x"]
    service.reloading()
    first, second = told(listener)
    assert (first, second.partition("=")[0]) == ("RELOADING=1", "MONOTONIC_USEC")
    service.stopping()
    assert told(listener) == ["STOPPING=1", "STATUS=draining"]
    service.says("x" * 1_000)
    assert told(listener) == ["STATUS=" + "x" * 300]


def test_a_socket_without_a_file_is_found(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        name = f"mcp-gateway-test-{os.getpid()}"
        bound.bind(f"\0{name}")
        bound.setblocking(False)
        ServiceManager.taken_from({"NOTIFY_SOCKET": f"@{name}"}).says("here")
        assert told(bound) == ["STATUS=here"]


def test_the_variables_are_gone_for_whatever_is_started_from_here(listener: socket.socket) -> None:
    environment = {
        "NOTIFY_SOCKET": listener.getsockname(),
        "WATCHDOG_USEC": "2000000",
        "WATCHDOG_PID": str(os.getpid()),
        "HOME": "/",
    }
    assert ServiceManager.taken_from(environment).watchdog_s == 1.0
    assert environment == {"HOME": "/"}


@pytest.mark.parametrize("variables", [{}, {"NOTIFY_SOCKET": "/nowhere/notify"}])
def test_without_somebody_who_listens_nothing_happens(variables: dict[str, str]) -> None:
    service = ServiceManager.taken_from(variables)
    service.ready("x")
    service.alive(0.0)
    assert service.watchdog_s is None


@pytest.mark.parametrize(
    "variables",
    [{}, {"WATCHDOG_USEC": ""}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "5", "WATCHDOG_PID": "1"}],
)
def test_a_watchdog_that_is_not_meant_for_this_process_is_none(listener: socket.socket, variables: dict[str, str]) -> None:
    assert manager(listener, **variables).watchdog_s is None


def test_life_is_told_twice_in_each_period_at_most(listener: socket.socket) -> None:
    service = manager(listener, WATCHDOG_USEC="4000000")  # half of it is what sd_watchdog_enabled(3) recommends
    heard = 0
    for tenth in range(41):
        service.alive(tenth / 10)
        try:
            assert told(listener) == ["WATCHDOG=1"]
            heard += 1
        except BlockingIOError:
            pass
    assert heard == 5  # at 0, 1, 2, 3 and 4 seconds
