"""The `mcp-gateway` command: reads its arguments and hands over to what serves, checks or asks.

Imports stand inside the commands: `serve` sets the environment before some modules may be imported, and asking should not load a
web server.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from typing import Any

from mcp_gateway.config.shown_text import shown, shown_json, shown_lines
from mcp_gateway.scripts.commands.approve_command import add_approve_command
from mcp_gateway.scripts.commands.attaching import (
    EXIT_NOTHING_THERE,
    EXIT_REFUSED,
    Refused,
    add_attach_options,
    ask,
    report,
    say,
    settings_of,
    source_of,
)
from mcp_gateway.scripts.commands.audit_command import add_audit_command
from mcp_gateway.scripts.commands.backend_commands import add_backend_commands, split_server_command
from mcp_gateway.scripts.commands.command_parser import CommandParser
from mcp_gateway.scripts.commands.completion_command import add_completion_command, complete_if_asked
from mcp_gateway.scripts.commands.credentials_command import add_credentials_command
from mcp_gateway.scripts.commands.doctor_command import add_doctor_command
from mcp_gateway.scripts.commands.explain_command import add_explain_command
from mcp_gateway.scripts.commands.gateway_address import TOKEN_EPILOG, NothingToFollow, find_gateway
from mcp_gateway.scripts.commands.import_command import add_import_command
from mcp_gateway.scripts.commands.init_command import add_init_command
from mcp_gateway.scripts.commands.logs_command import add_logs_command
from mcp_gateway.scripts.commands.restart_command import add_restart_command
from mcp_gateway.scripts.commands.revoke_command import add_revoke_command
from mcp_gateway.scripts.commands.sessions_command import add_sessions_command
from mcp_gateway.scripts.commands.top_command import add_top_command
from mcp_gateway.scripts.commands.upgrade_command import add_upgrade_command
from mcp_gateway.scripts.commands.use_commands import add_use_commands

DEFAULT_CELL_FACTORY = "mcp_gateway.actors.cell.cell:make_cell"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0 done, 1 nothing runs there or it failed, 2 refused (argparse too)."""
    words, server_command = split_server_command(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    complete_if_asked(parser, os.environ)
    options = parser.parse_args(words, argparse.Namespace(server_command=server_command))
    run: Callable[[argparse.Namespace], int] = options.run
    _open_standard_files()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without the lines of a tree, or a name that it cannot write
    try:
        return run(options)
    except BrokenPipeError:  # `mcp-gateway status | head -1`
        sys.stderr.close()
        return EXIT_NOTHING_THERE
    except KeyboardInterrupt:
        return 130


def _open_standard_files() -> None:
    """Where one of them is closed, the next file or socket would get its number, and be written to."""
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))


def _have_an_environment() -> None:
    """A process that was started without any has no room for its title, by which the launcher knows its processes."""
    with open("/proc/self/environ", "rb") as given:
        if not given.read(1):
            os.execve(sys.executable, sys.orig_argv, {"LC_CTYPE": "C.UTF-8", **os.environ})


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="mcp-gateway",
        description="A supervised actor gateway for the Model Context Protocol: any client, any server, one endpoint.",
    )
    parser.add_argument("--version", action="version", version=f"mcp-gateway {version('mcp-gateway')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    serve = commands.add_parser("serve", help="serve in the foreground; without a file, the built-in demo server")
    serve.add_argument("--config", metavar="F.toml", help="configuration file")
    serve.add_argument(
        "--mcp-json",
        metavar="F.json",
        action="append",
        help="a file in which another program has its servers, or a folder with such files: more backends; may be given again",
    )
    serve.add_argument("--host", metavar="H", help="address to listen on")
    serve.add_argument("--port", metavar="P", type=int, help="port to listen on; 0 takes a free one")
    serve.add_argument("--embedded", action="store_true", help="one cell in this process, no actor ports")
    serve.add_argument("--cell-factory", default=DEFAULT_CELL_FACTORY, help=argparse.SUPPRESS)  # tests put a stand-in here
    add_attach_options(serve, with_config=False)
    serve.set_defaults(run=_serve)

    check = commands.add_parser("check-config", help="read a configuration file and tell everything that is wrong with it")
    check.add_argument(
        "file", metavar="F", help="one of the gateway (TOML), or one in which another program has its servers (JSON)"
    )
    check.set_defaults(run=_check_config)
    schema = commands.add_parser("schema", help="print the JSON Schema of a configuration file, for editors")
    schema.set_defaults(run=_schema)
    add_completion_command(commands)
    add_doctor_command(commands)
    add_init_command(commands)
    add_import_command(commands)
    add_explain_command(commands)
    add_audit_command(commands)
    add_approve_command(commands)
    add_credentials_command(commands)

    status = commands.add_parser("status", help="the supervision tree, backends, sessions and clients of a running gateway")
    status.add_argument("--json", action="store_true", help="for programs")
    backends = commands.add_parser("backends", help="the backends of a running gateway and their replicas")
    backends.add_argument("--json", action="store_true", help="for programs")
    events = commands.add_parser("events", help="follow the events of a running gateway")
    events.epilog = TOKEN_EPILOG
    events.add_argument("topic", metavar="TOPIC", nargs="?", default="all", help="a topic, vsm.* or all (default)")
    events.add_argument("--since", metavar="ID", type=_event_id, help="start after this event instead of now; 0: with the oldest")
    events.add_argument("--json", action="store_true", help="one JSON object a line, for programs")
    kill = commands.add_parser("kill", help="fault injection: a signal to a process, or the crash of an in-process actor")
    kill.add_argument(
        "child", metavar="CHILD", help="cell/0, event-log, node-supervisor, admin, logger, cell/0/router; NODE/cell/0"
    )
    kill.add_argument("--signal", metavar="N", type=int, help="for a process; default 9")
    log_level = commands.add_parser("log-level", help="change what a running gateway writes to its log")
    log_level.add_argument("level", metavar="LEVEL", help="debug, info, warning, error")
    attached = (
        (status, _status),
        (backends, _backends),
        (events, _events),
        (kill, _kill),
        (log_level, _log_level),
    )
    for parser_of_command, run in attached:
        add_attach_options(parser_of_command, with_config=True)
        parser_of_command.set_defaults(run=run)
    add_sessions_command(commands)
    add_top_command(commands)
    add_logs_command(commands)
    add_use_commands(commands)
    add_restart_command(commands)
    add_upgrade_command(commands)
    add_revoke_command(commands)
    add_backend_commands(commands)
    return parser


def _serve(options: argparse.Namespace) -> int:
    from mcp_gateway.scripts.serving.start_checks import StartRefused

    _have_an_environment()
    try:
        settings = settings_of(options)
        if settings.actor_system.is_embedded:
            from mcp_gateway.scripts.serving.embedded import serve
        else:
            from mcp_gateway.scripts.serving.launcher import serve
        return serve(settings, options.cell_factory, source_of(options))
    except (Refused, StartRefused) as refusal:
        return say(str(refusal), EXIT_REFUSED)


def _check_config(options: argparse.Namespace) -> int:
    from mcp_gateway.config.desktop_loader import is_desktop_file, load_desktop_files
    from mcp_gateway.config.environment import variables_of
    from mcp_gateway.config.exposure import exposure_warnings
    from mcp_gateway.config.loader import ConfigError, load_settings
    from mcp_gateway.scripts.serving.start_checks import StartRefused, check_cluster, check_tls

    try:
        if is_desktop_file(options.file):
            servers = load_desktop_files([options.file])
            _warn(servers.warnings)
            if servers.problems:
                raise ConfigError(servers.problems)
            print(f"{shown(options.file)}: valid ({_count(servers.backends, 'backend')})")
            return 0
        settings = load_settings(options.file, variables_of(os.environ))
    except ConfigError as error:
        print(shown_lines(str(error)), file=sys.stderr)
        return EXIT_REFUSED
    _warn(exposure_warnings(settings))
    try:
        check_tls(settings)
        check_cluster(settings)
    except StartRefused as refusal:  # no mistake of the file: it may be for another machine
        _warn([f"{refusal}; a gateway does not start so"])
    counts = ", ".join(_count(table, name) for table, name in ((settings.backends, "backend"), (settings.routes, "route")))
    print(f"{shown(options.file)}: valid ({counts})")
    return 0


def _schema(_: argparse.Namespace) -> int:
    from mcp_gateway.config.json_schema import json_schema

    print(json.dumps(json_schema(), indent=2))
    return 0


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        print(f"warning: {shown(warning)}", file=sys.stderr)


def _count(table: Sequence[object], name: str) -> str:
    return f"{len(table)} {name}{'' if len(table) == 1 else 's'}"


def _status(options: argparse.Namespace) -> int:
    return ask(options, lambda client: _show_status(client, options.json))


def _show_status(client: Any, as_json: bool) -> int:
    from mcp_gateway.scripts.commands.status_table import status_lines

    return _print(client.status(), lambda status: status_lines({**status, "url": client.run["url"]}), as_json)


def _backends(options: argparse.Namespace) -> int:
    return ask(options, lambda client: _show_backends(client, options.json))


def _show_backends(client: Any, as_json: bool) -> int:
    from mcp_gateway.scripts.commands.status_table import backend_lines

    return _print(client.status()["backends"], backend_lines, as_json)


def _event_id(text: str) -> int:
    from mcp_gateway.transports.protocol.topics.topic_events import parse_event_id

    event_id = parse_event_id(text)
    if event_id is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not the id of an event, a whole number")
    return event_id


def _events(options: argparse.Namespace) -> int:
    from mcp_gateway.scripts.commands.event_follower import TopicRefused, follow, human_line, json_line
    from mcp_gateway.transports.protocol.topics.topic_log import InvalidTopic, TopicPattern

    line_of = json_line if options.json else human_line
    try:
        TopicPattern(options.topic)
        settings = settings_of(options)
        gateway = find_gateway(settings.gateway.state_path, options.admin_port, settings.actor_system.admin_port)
        for event in follow(gateway, options.topic, options.since):
            print(line_of(event), flush=True)
    except (Refused, InvalidTopic) as refusal:
        return say(str(refusal), EXIT_REFUSED)
    except (NothingToFollow, TopicRefused) as end:
        return say(str(end), EXIT_NOTHING_THERE)
    return 0


def _kill(options: argparse.Namespace) -> int:
    arguments = {"child": options.child} | ({} if options.signal is None else {"signal": options.signal})
    return ask(options, lambda client: report(client.command("kill", arguments), f"{options.child} killed"))


def _log_level(options: argparse.Namespace) -> int:
    arguments = {"level": options.level}
    return ask(options, lambda client: report(client.command("log-level", arguments), f"log level is {options.level}"))


def _print(value: Any, lines_of: Callable[[Any], list[str]], as_json: bool) -> int:
    print(shown_json(value, indent=2) if as_json else "\n".join(map(shown, lines_of(value))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
