"""Log lines: one JSON object each, never longer than a pipe writes whole."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from typing import Any

import pytest

from mcp_gateway.config.settings import LoggingSettings
from mcp_gateway.scripts.serving.log_lines import (
    LONGEST_LINE_BYTES,
    HumanFormatter,
    JsonLineFormatter,
    configure_logging,
    redacted,
)


def line_of(text: str, error: BaseException | None = None, **extra: Any) -> dict[str, Any]:
    record = logging.LogRecord("name", logging.WARNING, "path", 1, text, (), (type(error), error, None) if error else None)
    record.__dict__.update(extra)
    line = JsonLineFormatter().format(record)
    assert "\n" not in line
    assert len(line.encode()) <= LONGEST_LINE_BYTES
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_line_names_the_actor_and_its_fields() -> None:
    line = line_of("text", actor="cell/0/router", fields={"request_id": "r1"})
    assert (line["level"], line["actor"], line["text"], line["request_id"]) == ("warning", "cell/0/router", "text", "r1")


def test_of_a_long_error_the_end_is_kept() -> None:
    assert line_of("text", ValueError("x" * 9000 + "the end"))["error"].endswith("the end")


@pytest.mark.parametrize("letter", ["x", "é", "\n", '"', "\U0001f600"])
def test_a_text_of_any_length_and_any_letters_fits(letter: str) -> None:
    assert line_of(letter * 9000)["level"] == "warning"
    assert line_of(letter * 9000, ValueError(letter * 9000))["error"]


def test_fields_that_are_too_long_are_left_out() -> None:
    assert "payload" not in line_of("text", fields={"payload": "x" * 9000})


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("sent Authorization: Bearer abcdef.123456-xyz to it", "abcdef.123456-xyz"),
        ("cannot reach https://user:hunter22@example.com/mcp", "hunter22"),
        ("url ?access_token=s3cr3ts3cr3t&x=1", "s3cr3ts3cr3t"),
        ('{"api_key": "k-123456789"}', "k-123456789"),
        ("password = correct-horse", "correct-horse"),
        ("Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ("no answer of URL('http://127.0.0.1:1/mcp?key=s3cr3t&x=1')", "s3cr3t"),
        ("no answer of http://u:p@h/mcp?s3cr3t", "s3cr3t"),
    ],
)
@pytest.mark.parametrize("formatter", [JsonLineFormatter(), HumanFormatter()])
def test_no_secret_is_written_wherever_it_stands(formatter: logging.Formatter, text: str, secret: str) -> None:
    error = ValueError(text)
    record = logging.LogRecord("name", logging.ERROR, "path", 1, text, (), (ValueError, error, None))
    record.__dict__.update(fields={"reason": text, "authorization": secret, "webhook_secret": secret})
    line = formatter.format(record)
    assert secret not in line
    assert "…" in line or "\\u2026" in line


@pytest.mark.parametrize("text", ["a token bucket is empty", "author: Ada", "tokens used 17", "https://example.com/a@b"])
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text


def test_a_person_reads_one_short_line() -> None:
    record = logging.LogRecord("name", logging.WARNING, "path", 1, "slow \x1b[31m", (), None)
    record.__dict__.update(actor="cell/0/router", fields={"route": "r", "token": "x"})
    line = HumanFormatter().format(record)
    assert line[8:] == " warning cell/0/router: slow \\x1b[31m  route=r token=…"


def test_neither_a_field_nor_an_error_moves_the_terminal_of_who_reads_it() -> None:
    try:
        raise ValueError("it said \x1b[2J\u202e")
    except ValueError:
        record = logging.LogRecord("name", logging.ERROR, "path", 1, "failed", (), sys.exc_info())
    record.__dict__.update(actor="a\x07", fields={"na\x1bme": "va\u2066lue\nand a line of its own"})
    text = HumanFormatter().format(record)
    assert all(line.isprintable() for line in text.split("\n"))
    first, *rest = text.split("\n")
    assert first.endswith(r"a\x07: failed  na\x1bme=va\u2066lue\nand a line of its own")
    assert rest[-1] == r"ValueError: it said \x1b[2J\u202e"


@pytest.mark.parametrize(
    ("form", "is_terminal", "kind"),
    [
        ("auto", True, HumanFormatter),
        ("auto", False, JsonLineFormatter),
        ("json", True, JsonLineFormatter),
        ("human", False, HumanFormatter),
    ],
)
def test_lines_are_for_whoever_reads_them(form: str, is_terminal: bool, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    before = logging.root.handlers[:], logging.root.level
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal, raising=False)
    try:
        configure_logging(LoggingSettings(format=form, level="error"))
        (handler,) = logging.root.handlers
        assert isinstance(handler.formatter, kind)
        assert logging.root.level == logging.ERROR
    finally:
        logging.root.handlers[:] = before[0]
        logging.root.setLevel(before[1])


_SPEAKS_GRPC = """
import asyncio
from mcp_gateway.scripts.serving.log_lines import configure_logging

configure_logging()
import grpc

async def wait(data, context):
    await asyncio.sleep(60)

class Waits(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_stream_rpc_method_handler(wait)

async def scene():
    for _ in range(10):
        server = grpc.aio.server(handlers=[Waits()])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            calls = [asyncio.ensure_future(channel.unary_unary("/a/b")(b"").code()) for _ in range(5)]
            await asyncio.sleep(0.05)
            await server.stop(0)
            await asyncio.gather(*calls)

asyncio.run(scene())
"""


def test_a_server_that_ends_its_connection_puts_no_lines_of_grpc_between_those_of_the_log() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    done = subprocess.run([sys.executable, "-c", _SPEAKS_GRPC], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
