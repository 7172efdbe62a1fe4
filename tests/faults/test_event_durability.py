"""Events and their ids outlive every process of the gateway: followers come back and have each event once, in order."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
import signal
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mcp_gateway.actors.runtime.packet_seal import MAX_PACKET_BYTES
from tests.doubles.gateway_process import GatewayProcess, is_gone, wait_until
from tests.doubles.ports import free_port
from tests.doubles.topic_follower import TopicFollower

BACKEND = '[[backends]]\nname = "demo"\nprefix = ""\nbuiltin = "demo"\n'


class Publisher:
    """Publishes numbers one after the other, and knows which of them the gateway has confirmed as stored."""

    def __init__(self, url: str, topic: str = "client.numbers") -> None:
        self._url = url
        self._topic = topic
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.next_number = 0
        self.confirmed: dict[int, int] = {}  # {number: event id}

    def __enter__(self) -> Publisher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._is_over.is_set():
            self.publish()

    def publish(self) -> None:
        number, self.next_number = self.next_number, self.next_number + 1
        try:
            self.confirmed[number] = get(self._url, f"/publish?topic={self._topic}&n={number}")["id"]
        except (OSError, http.client.HTTPException, ValueError):
            self._is_over.wait(0.02)  # nobody is there, or went away with it: whether it was stored, nobody knows

    def until_confirmed(self, count: int) -> None:
        """So many more."""
        wanted = len(self.confirmed) + count
        wait_until(lambda: len(self.confirmed) >= wanted, 20, f"{count} more events are confirmed")


def get(url: str, path: str, timeout_s: float = 5) -> dict[str, int]:
    with urllib.request.urlopen(url + path, timeout=timeout_s) as answer:
        found: dict[str, int] = json.load(answer)
    return found


def tells_health(url: str) -> bool:
    with urllib.request.urlopen(url + "/metrics", timeout=5) as answer:
        return b"mcp_gateway_health_status{" in answer.read()


@contextlib.contextmanager
def running(directory: Path, *arguments: str, cells: int = 1, settings: str = "") -> Iterator[GatewayProcess]:
    text = f"[gateway]\ncells = {cells}\ndrain_timeout = 1.0\n{settings}\n{BACKEND}"
    with GatewayProcess(directory / "state", *arguments, cell_factory="publishing_cell:make_cell", settings=text) as gateway:
        yield gateway


def check_everything(follower: TopicFollower, publisher: Publisher) -> None:
    """Every confirmed event once, with the id that was confirmed; all ids without holes, in order."""
    last_number = max(publisher.confirmed)
    wait_until(follower.has_seen("client.numbers", last_number), 10, f"number {last_number} has been read")
    ids = [event.event_id for event in follower.events]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    numbered = [(event.payload["n"], event.event_id) for event in follower.events if event.topic == "client.numbers"]
    assert {number: event_id for number, event_id in numbered if number in publisher.confirmed} == publisher.confirmed
    assert len({number for number, _ in numbered}) == len(numbered)
    assert follower.gaps == []
    assert follower.refusals == []


@pytest.mark.parametrize(
    ("name", "cells"), [("event-log", 1), ("event-log", 2), ("cell/0", 2), ("cell/0", 1), ("node-supervisor", 2), ("admin", 1)]
)
def test_no_event_is_lost_or_doubled_when_this_process_is_killed(name: str, cells: int, tmp_path: Path) -> None:
    with running(tmp_path, cells=cells) as gateway:
        with TopicFollower(gateway.url) as one, TopicFollower(gateway.url) as two:
            wait_until(lambda: one.connects and two.connects, 5, "both follow")
            with Publisher(gateway.url) as publisher:
                for _ in range(2):
                    publisher.until_confirmed(20)
                    pid = gateway.pid(name)
                    os.kill(pid, signal.SIGKILL)
                    gateway.wait_for_another(name, pid, 10)
                publisher.until_confirmed(20)
            for follower in (one, two):
                check_everything(follower, publisher)


@pytest.mark.parametrize("form", ["node", "embedded"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_event_is_lost_or_doubled_when_the_whole_gateway_is_ended_and_started_again(
    form: str, number: signal.Signals, tmp_path: Path
) -> None:
    port = free_port()
    arguments = ["--port", str(port), *(["--embedded"] if form == "embedded" else [])]
    url = f"http://127.0.0.1:{port}"
    publisher = Publisher(url)
    with TopicFollower(url) as follower:
        for start in range(3):
            with running(tmp_path, *arguments) as gateway:
                if start == 0:
                    wait_until(lambda: follower.connects, 5, "it follows")
                    publisher.__enter__()
                publisher.until_confirmed(20)
                gateway.note_processes()
                gateway.end(number)
                wait_until(lambda gateway=gateway: all(is_gone(each) for each in gateway.left_over()), 5, "it has ended")
        with running(tmp_path, *arguments):
            publisher.until_confirmed(20)
            publisher.__exit__()
            check_everything(follower, publisher)


@pytest.mark.parametrize("form", ["node", "embedded"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_flood_of_clients_pushes_nothing_of_the_gateways_own_out_also_over_a_start(
    form: str, number: signal.Signals, tmp_path: Path
) -> None:
    retention = "[transports.http_sse]\nretention_events = 50\n"
    arguments = ["--embedded"] if form == "embedded" else []

    def check(url: str, own: list[int], gap_of_clients: tuple[int, int]) -> None:
        with TopicFollower(url, "mcp.own?last_event_id=0") as one, TopicFollower(url, "client.*?last_event_id=0") as other:
            wait_until(lambda: one.seen("mcp.own") == own, 10, "the gateway's own are read")
            wait_until(lambda: len(other.seen("client.flood")) == 50, 10, "the clients' newest are read")
        assert (one.gaps, other.gaps) == ([], [gap_of_clients])
        assert other.seen("client.flood") == list(range(150, 200))

    with running(tmp_path, *arguments, settings=retention) as gateway:
        for first in range(5):
            get(gateway.url, f"/publish?topic=mcp.own&n={first}")
        last_id = get(gateway.url, "/publish?topic=client.flood&n=0&count=200", timeout_s=30)["id"]
        check(gateway.url, list(range(5)), (1, last_id - 50))
        if form == "node":
            pid = gateway.pid("cell/0")
            os.kill(pid, signal.SIGKILL)
            gateway.wait_for_another("cell/0", pid, 10)
            check(gateway.url, list(range(5)), (1, last_id - 50))
        gateway.note_processes()
        gateway.end(number)
        wait_until(lambda: all(is_gone(each) for each in gateway.left_over()), 5, "it has ended")
    with running(tmp_path, *arguments, settings=retention) as gateway:
        check(gateway.url, list(range(5)), (1, last_id - 50))
        get(gateway.url, "/publish?topic=mcp.own&n=5")
        check(gateway.url, list(range(6)), (1, last_id - 50))


def test_a_cell_that_starts_again_holds_the_log_of_before(tmp_path: Path) -> None:
    with running(tmp_path, cells=2) as gateway:
        publisher = Publisher(gateway.url)
        for _ in range(10):
            publisher.publish()
        for name in ("cell/0", "cell/1"):
            pid = gateway.pid(name)
            os.kill(pid, signal.SIGKILL)
            gateway.wait_for_another(name, pid, 10)
        follower = TopicFollower(gateway.url, "client.*?last_event_id=0")
        with follower:
            wait_until(follower.has_seen("client.numbers", 9), 10, "all is read from a new cell")
        assert follower.seen("client.numbers") == list(range(10))


def test_a_cell_that_starts_again_is_given_more_than_one_message_could_carry(tmp_path: Path) -> None:
    size, count, at_once = 16_000, 4_500, 500
    assert size * count > MAX_PACKET_BYTES
    with running(tmp_path, cells=2) as gateway:
        for first in range(0, count, at_once):
            last_id = get(gateway.url, f"/publish?topic=client.numbers&n={first}&count={at_once}&size={size}", timeout_s=30)["id"]
        for name in ("cell/0", "cell/1"):
            pid = gateway.pid(name)
            os.kill(pid, signal.SIGKILL)
            gateway.wait_for_another(name, pid, 10)
        with TopicFollower(gateway.url, "client.*?last_event_id=0") as follower:
            wait_until(follower.has_seen("client.numbers", count - 1), 20, "all is read from a new cell")
        assert follower.seen("client.numbers") == list(range(count))
        assert follower.events[-1].event_id == last_id


@pytest.mark.parametrize("form", ["node", "embedded"])
def test_a_broken_file_is_moved_aside_and_the_gateway_serves(form: str, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / "events.sqlite3").write_bytes(b"this is no database" * 500)
    with running(tmp_path, *(["--embedded"] if form == "embedded" else [])) as gateway:
        publisher = Publisher(gateway.url)
        with TopicFollower(gateway.url, "all?last_event_id=17") as follower:  # of the log that is lost
            for _ in range(5):
                publisher.publish()
            wait_until(follower.has_seen("client.numbers", 4), 10, "events are read")
        ((first_id, last_id),) = follower.gaps
        assert first_id == 18
        assert last_id == follower.events[0].event_id - 1
        assert "events.sqlite3 was moved to" in gateway.errors
        assert (tmp_path / "state" / "events.sqlite3.unreadable").read_bytes().startswith(b"this is no database")


@pytest.mark.parametrize("form", ["node", "embedded"])
def test_what_a_full_disk_never_took_is_a_gap_to_who_has_seen_it(form: str, tmp_path: Path) -> None:
    """The gateway ends by SIGKILL while events are in memory alone: no id is given twice, nobody reads on as if nothing were."""
    port = free_port()
    arguments = ["--port", str(port), *(["--embedded"] if form == "embedded" else [])]
    publisher = Publisher(f"http://127.0.0.1:{port}")
    with TopicFollower(publisher._url, "client.*") as follower:
        with running(tmp_path, *arguments) as gateway:
            wait_until(lambda: follower.connects, 5, "it follows")
            publisher.publish()
            # A full disk leaves memory alone, and this limit does not: what would be counted there then has its file before.
            wait_until(lambda: tells_health(gateway.url), 20, "the health of all is measured")
            for process in gateway.note_processes():
                process.rlimit(psutil.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
            for _ in range(5):
                publisher.publish()
            wait_until(follower.has_seen("client.numbers", 5), 10, "they are given out nevertheless")
            gateway.end(signal.SIGKILL)
            wait_until(lambda: all(is_gone(each) for each in gateway.left_over()), 5, "it has ended")
        with running(tmp_path, *arguments):
            for _ in range(3):
                publisher.publish()
            wait_until(follower.has_seen("client.numbers", max(publisher.confirmed)), 15, "what is new is read")
    last_seen = publisher.confirmed[5]
    ((first_id, last_id),) = follower.gaps
    assert first_id == last_seen + 1
    assert last_id < min(event_id for number, event_id in publisher.confirmed.items() if number > 5)
    assert sorted(follower.seen("client.numbers")) == sorted(publisher.confirmed)


def test_a_second_gateway_with_the_same_state_directory_leaves_the_first_ones_file_alone(tmp_path: Path) -> None:
    with running(tmp_path, "--embedded") as first:
        publisher = Publisher(first.url)
        publisher.publish()
        with running(tmp_path, "--embedded") as second:
            other = Publisher(second.url)
            other.publish()
            assert other.confirmed
            assert "another gateway keeps its events in" in second.errors
        publisher.publish()
        assert publisher.confirmed[0] < publisher.confirmed[1] < publisher.confirmed[0] + 100  # in the first one's own order


@pytest.mark.parametrize("form", ["node", "embedded"])
def test_without_a_state_directory_events_are_kept_in_memory(form: str, tmp_path: Path) -> None:
    with running(tmp_path, "--state-dir", "", *(["--embedded"] if form == "embedded" else [])) as gateway:
        publisher = Publisher(gateway.url)
        for _ in range(3):
            publisher.publish()
        with TopicFollower(gateway.url, "client.*?last_event_id=0") as follower:
            wait_until(follower.has_seen("client.numbers", 2), 10, "all are read")
        assert follower.seen("client.numbers") == [0, 1, 2]
    assert not list(tmp_path.rglob("*.sqlite3*"))
