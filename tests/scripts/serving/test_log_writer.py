"""Log lines and those who read them: slowly, later, or never."""

from __future__ import annotations

import fcntl
import functools
import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mcp_gateway.scripts.serving import log_writer
from mcp_gateway.scripts.serving.log_writer import LineHandler, LineWriter

LINE = b"x" * 99 + b"\n"


@contextmanager
def small_pipe() -> Iterator[tuple[int, int]]:
    """(reading end, writing end that does not block) of a pipe that holds 4,096 bytes."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    os.set_blocking(reader, False)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4_096)
    try:
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)


def writer_to(descriptor: int) -> LineWriter:
    return LineWriter(lambda data: os.write(descriptor, data), descriptor)


def test_a_reader_that_never_reads_is_waited_for_once_and_lines_are_left_out() -> None:
    with small_pipe() as (reader, descriptor):
        writer = writer_to(descriptor)
        started_s = time.monotonic()
        written = [writer.write(LINE) for _ in range(1_000)]
        assert time.monotonic() - started_s < 5, "a thousand times the patience would be a hundred seconds"
        assert (written.count(True), written[:40], writer.left_out) == (40, [True] * 40, 960)
        assert writer.take_left_out() == 0, "nobody could read it now"
        assert os.read(reader, 100_000) == LINE * 40
        assert (writer.take_left_out(), writer.take_left_out()) == (960, 0)
        assert writer.write(LINE)
        assert os.read(reader, 100_000) == LINE


def test_a_pipe_of_another_user_is_written_to_only_while_it_takes_a_line() -> None:
    """It cannot be opened anew, and blocks whoever writes to it when it is full."""
    with small_pipe() as (reader, descriptor):
        os.set_blocking(descriptor, True)
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, 65_536)
        writer = LineWriter(functools.partial(log_writer._write_if_ready, descriptor), descriptor)
        written = [writer.write(LINE) for _ in range(1_000)]
        assert 15 * 40 <= written.count(True) < 655
        assert os.read(reader, 100_000) == LINE * written.count(True)
        assert writer.write(LINE)


def test_a_log_says_how_many_lines_were_left_out() -> None:
    with small_pipe() as (reader, descriptor):
        handler = LineHandler(writer_to(descriptor))
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        for number in range(500):
            handler.emit(logging.LogRecord("n", logging.INFO, "", 0, f"line {number} {'x' * 100}", None, None))
        before = os.read(reader, 100_000).splitlines()
        handler.emit(logging.LogRecord("n", logging.INFO, "", 0, "the next", None, None))
        assert os.read(reader, 100_000).splitlines() == [
            b"WARNING %d lines before this one were left out: nobody read them" % (500 - len(before)),
            b"INFO the next",
        ]


def test_what_a_socket_takes_in_part_is_completed_before_the_next_line() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        writer = LineWriter(lambda data: ours.send(data, socket.MSG_DONTWAIT), ours.fileno())
        lines = [b"%06d" % number + b"x" * 3_993 + b"\n" for number in range(400)]
        read = b""
        theirs.setblocking(False)
        for number, line in enumerate(lines):
            writer.write(line)
            if number % 50 == 49:
                while True:
                    try:
                        read += theirs.recv(1_000_000)
                    except BlockingIOError:
                        break
        assert writer.left_out > 0
        assert writer.write(b"the last\n")
        read += theirs.recv(1_000_000)
        whole = set(lines)
        found = read.split(b"\n")
        assert found[-2:] == [b"the last", b""]
        assert all(each + b"\n" in whole for each in found[:-2]), "no line is torn, none is mixed with another"
        assert len(found) - 2 == len(lines) - writer.left_out


def test_a_reader_that_has_gone_costs_nothing() -> None:
    reader, descriptor = os.pipe()
    os.close(reader)
    writer = writer_to(descriptor)
    assert [writer.write(LINE), writer.left_out] == [True, 0]
    os.close(descriptor)


PROGRAM = """
import fcntl, logging, os, sys
from mcp_gateway.config.settings import LoggingSettings
from mcp_gateway.scripts.serving.log_lines import configure_logging
configure_logging(LoggingSettings())
for number in range(int(sys.argv[1])):
    logging.warning("line %d %s", number, "x" * 200)
is_shared_blocking = not fcntl.fcntl(2, fcntl.F_GETFL) & os.O_NONBLOCK
print(type(logging.root.handlers[0]).__name__, is_shared_blocking, flush=True)
"""


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_process_whose_log_nobody_reads_goes_on(kind: str) -> None:
    """Ten times of what fits. What standard error is for others, the shell for one, stays as it was."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "40000"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if kind == "pipe" else theirs,
            text=True,
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "LineHandler True\n"
            if kind == "pipe":
                assert process.stderr is not None
                lines = process.stderr.read().splitlines()
                assert 1_000 < len(lines) < 40_000
                assert [json.loads(line)["text"].split()[1] for line in lines] == [str(each) for each in range(len(lines))]
        finally:
            process.kill()
            process.communicate()


def test_a_file_gets_every_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as log:
        done = subprocess.run([sys.executable, "-c", PROGRAM, "500"], stdout=subprocess.PIPE, stderr=log, timeout=30, check=True)
    assert done.stdout == b"StreamHandler True\n"
    assert len(path.read_text().splitlines()) == 500


def test_a_reader_that_is_only_slow_gets_every_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_writer, "_PATIENCE_S", 5.0)
    reader, descriptor = os.pipe()
    os.set_blocking(descriptor, False)
    fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, 4_096)
    slow = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys,time\nfor line in sys.stdin.buffer: time.sleep(0.0005); sys.stdout.buffer.write(line)",
        ],
        stdin=reader,
        stdout=subprocess.PIPE,
    )
    os.close(reader)
    writer = writer_to(descriptor)
    assert all([writer.write(LINE) for _ in range(200)])
    os.close(descriptor)
    assert slow.communicate(timeout=30)[0] == LINE * 200
