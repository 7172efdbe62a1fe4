"""`top`: what a running gateway does now, and what hurts; live on a terminal."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from mcp_gateway.config.shown_text import shown, shown_json

from .attaching import EXIT_NOTHING_THERE, EXIT_REFUSED, Refused, add_attach_options, say, settings_of
from .gateway_address import TOKEN_EPILOG, GatewayAddress, NothingToFollow, find_gateway, refusal

if TYPE_CHECKING:
    from rich.console import Group

_LARGEST_ANSWER_BYTES: Final = 1 << 26
_AWAY_S: Final = 5.0
"""A gateway that starts again is back by then."""

Clients = Callable[[], Sequence[Mapping[str, Any]] | None]


def add_top_command(commands: Any) -> None:
    """commands: what `add_subparsers` returned."""
    parser = commands.add_parser(
        "top",
        help="live: calls, latency and errors by backend, tool, method and client, and what hurts",
        description="On a terminal a live view until Ctrl-C; elsewhere, or with --once, one look. With --json one object a line.",
    )
    parser.epilog = TOKEN_EPILOG
    parser.add_argument("--once", action="store_true", help="look for one interval, print and end")
    parser.add_argument("--json", action="store_true", help="for programs; without --once an object for each interval")
    parser.add_argument("--interval", metavar="S", type=_seconds, default=2.0, help="seconds between two looks; default 2")
    add_attach_options(parser, with_config=True)
    parser.set_defaults(run=_run)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.2 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0.2 to 3600")
    return seconds


def _run(options: argparse.Namespace) -> int:
    try:
        settings = settings_of(options)
        gateway = find_gateway(settings.gateway.state_path, options.admin_port, settings.actor_system.admin_port)
        with _clients_of(settings) as clients:
            views = _views(gateway, options.interval, clients)
            if options.once or (not options.json and not sys.stdout.isatty()):
                return _print(next(views), options.json)
            if options.json:
                for seen in views:
                    _print(seen, as_json=True)
            else:
                _show_live(views, gateway.url)
    except Refused as refused:
        return say(str(refused), EXIT_REFUSED)
    except NothingToFollow as end:
        return say(str(end), EXIT_NOTHING_THERE)
    return 0


@contextlib.contextmanager
def _clients_of(settings: Any) -> Iterator[Clients]:
    """Who is here, through the admin port; an embedded gateway has none, and then nobody is shown."""
    from .admin_client import AttachFailed, attach
    from .sessions_command import asked_cells, merged

    with contextlib.ExitStack() as stack:
        try:
            client = stack.enter_context(attach(settings))
        except AttachFailed:
            yield lambda: None
            return

        def here() -> Sequence[Mapping[str, Any]] | None:
            try:
                answers = asked_cells(client)
            except AttachFailed:
                return None
            return merged(answers)["clients"] if answers else None

        yield here


def _views(gateway: GatewayAddress, interval_s: float, clients: Clients) -> Iterator[dict[str, Any]]:
    """One view an interval.

    Raises: NothingToFollow
    """
    from .top_view import Look, view

    served_s = time.monotonic()
    before: Look | None = None
    while True:
        try:
            now = Look.of(_get(gateway, "/metrics").decode(), time.monotonic())
            state = json.loads(_get(gateway, "/metrics/dashboard/state"))
        except (OSError, http.client.HTTPException, ValueError) as error:
            if time.monotonic() - served_s > _AWAY_S or before is None:
                raise NothingToFollow(f"the gateway on {gateway.url} cannot be read ({error or type(error).__name__})") from error
        else:
            served_s = time.monotonic()
            if before is not None:
                yield view(before, now, state, clients())
            before = now
        time.sleep(interval_s)


def _get(gateway: GatewayAddress, path: str) -> bytes:
    """Raises: NothingToFollow where it is refused; OSError, HTTPException."""
    connection = gateway.connection()
    try:
        connection.request("GET", path, headers={name: value.encode() for name, value in gateway.headers().items()})
        answer = connection.getresponse()
        body = answer.read(_LARGEST_ANSWER_BYTES)
    finally:
        connection.close()
    if answer.status in (401, 403):
        reason = "unauthorized" if answer.status == 401 else "forbidden"
        raise NothingToFollow(refusal(f"{path} is for operators", reason, gateway))
    if answer.status != 200:
        raise OSError(f"{path}: HTTP status {answer.status}")
    return body


def _print(seen: Mapping[str, Any], as_json: bool) -> int:
    print(shown_json(seen) if as_json else "\n".join(map(shown, lines_of(seen))), flush=True)
    return 0


def lines_of(seen: Mapping[str, Any]) -> list[str]:
    """A view as plain tables."""
    from .status_table import table_lines
    from .top_view import head_lines, tables

    lines = head_lines(seen)
    for columns, rows in tables(seen):
        lines += ["", *table_lines(columns, rows)]
    return lines


def _show_live(views: Iterator[dict[str, Any]], url: str) -> None:
    from rich.live import Live
    from rich.text import Text

    with Live(Text(f"looking at {url} ..."), screen=True, auto_refresh=False) as live:
        for seen in views:
            live.update(_rendered(seen, url), refresh=True)


def _rendered(seen: Mapping[str, Any], url: str) -> Group:
    """For a terminal; names of servers and clients are text, never markup."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from .top_view import head_lines, tables

    head, *aches = head_lines(seen)
    moment = time.strftime("%H:%M:%S")
    parts: list[Any] = [
        Text(f"{url}   {moment}   {shown(head)}", style="bold"),
        *(Text(shown(ache), style="red") for ache in aches),
    ]
    for columns, rows in tables(seen):
        table = Table(*columns, box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
        at = columns.index("ERRORS") if "ERRORS" in columns else None
        for row in rows:
            hurts = at is not None and row[at] != "0%"
            table.add_row(*(Text(shown(cell)) for cell in row), style="yellow" if hurts else None)
        parts += [Text(""), table]
    return Group(*parts)
