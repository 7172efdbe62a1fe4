"""`logs`: what a gateway has written to its log, and what it writes."""

from __future__ import annotations

import argparse
from typing import Any, Final

from mcp_gateway.config.shown_text import shown_json

from .attaching import EXIT_NOTHING_THERE, EXIT_REFUSED, Refused, add_attach_options, say, settings_of

_LINES: Final = 100


def add_logs_command(commands: Any) -> None:
    """commands: what `add_subparsers` returned."""
    from mcp_gateway.config.settings import LOG_LEVELS

    parser = commands.add_parser(
        "logs",
        help="the log of a gateway, also of one that has ended",
        description="Print the log that a gateway keeps in its state_dir, whether it runs or not.",
    )
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on with what is written from now on, also after a restart"
    )
    parser.add_argument(
        "-n", "--lines", metavar="N", type=_count, help=f"the newest N only; default {_LINES}, with --request all; 0: none"
    )
    parser.add_argument(
        "--request",
        metavar="ID",
        help="what is about this request; also the id of a trace, a session or a call as the log has it",
    )
    parser.add_argument("--level", choices=LOG_LEVELS, default="debug", help="no less urgent than this")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, for programs")
    add_attach_options(parser, with_config=True)
    parser.set_defaults(run=_run)


def _count(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of lines")
    return int(text)


def _run(options: argparse.Namespace) -> int:
    from mcp_gateway.transports.telemetry.kept_log import kept_lines, line_filter

    from .log_reader import LogFollower, follow, text_of

    try:
        settings = settings_of(options)
    except Refused as refusal:
        return say(str(refusal), EXIT_REFUSED)
    folder = settings.gateway.state_path
    if folder is None:
        return say('state_dir is "": the gateway keeps no log', EXIT_NOTHING_THERE)
    matches = line_filter(options.request, options.level)
    most = options.lines if options.lines is not None else None if options.request else _LINES
    show = shown_json if options.json else text_of
    follower = LogFollower(folder) if options.follow else None
    has_shown = False
    try:
        for line in kept_lines(folder, matches, most, None if follower is None else follower.began_bytes):
            print(show(line))
            has_shown = True
    except FileNotFoundError:
        if follower is None:
            return say(f"no gateway has kept a log in {folder}", EXIT_NOTHING_THERE)
    except OSError as error:
        return say(f"the log in {folder} cannot be read: {error.strerror}", EXIT_NOTHING_THERE)
    if follower is not None:
        print(end="", flush=True)
        for line in follow(follower, matches):
            print(show(line), flush=True)
    elif options.request and most != 0 and not has_shown:
        return say(f"nothing in the log is about {options.request!r}", EXIT_NOTHING_THERE)
    return 0
