"""The commands that change which backends a running gateway has: add-backend, remove-backend, drain, undrain, reload."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from setproctitle import setproctitle

from mcp_gateway.config.registry_entry import KINDS, RegistryRefused, registry_server
from mcp_gateway.config.shown_text import shown, shown_lines

from .attaching import EXIT_NOTHING_THERE, EXIT_REFUSED, add_attach_options, ask, say

_LONGEST_FILE_BYTES = 65_536
_TABLE_KEYS = (
    *("builtin", "openapi", "base_url", "allow_private", "grpc", "prefix", "protocol", "pool_size", "request_timeout", "cwd"),
    "instances",
)


def add_backend_commands(commands: Any) -> None:
    """commands: what `add_subparsers` returned."""
    adding = commands.add_parser(
        "add-backend",
        help="add a backend to a running gateway",
        usage="mcp-gateway add-backend NAME [OPTIONS]"
        " (--replica URL ... | --openapi F | --grpc H:P | --builtin demo | -- COMMAND)\n"
        "       mcp-gateway add-backend [NAME] --registry FILE [--kind KIND] [OPTIONS]",
        description="Add a backend to a running gateway. Exactly one kind of server: one of the options, or a command after --.",
    )
    adding.add_argument("name", metavar="NAME", nargs="?", default="", help="a letter, then letters, digits, - and _")
    adding.add_argument(
        "--registry",
        metavar="FILE",
        type=_content,
        help="a server.json of the MCP registry, or - for standard input; what it asks for is read from environment variables",
    )
    adding.add_argument("--kind", metavar="KIND", choices=KINDS, help=f"which of its forms: {', '.join(KINDS)}; the first it has")
    adding.add_argument("--replica", metavar="URL", action="append", help="where a server listens; again for each equal one")
    adding.add_argument("--openapi", metavar="F", help="the OpenAPI description of an HTTP API: a file or an https URL")
    adding.add_argument("--base-url", metavar="URL", help="of that API; what its description says if not given")
    adding.add_argument(
        "--allow-private", action="store_const", const=True, help="that description may be at a private address, over plain HTTP"
    )
    adding.add_argument("--grpc", metavar="H:P", help="a gRPC server that tells its services by reflection")
    adding.add_argument("--builtin", metavar="demo", help="the demo server inside the gateway")
    adding.add_argument("--prefix", metavar="P", help="before the names of its tools and prompts; NAME__ if not given")
    adding.add_argument("--protocol", metavar="REVISION", help="auto, or the one revision that it speaks")
    adding.add_argument(
        "--header",
        metavar="@F",
        type=_given_headers,
        action="append",
        help="sent with each request to a replica: a file of lines NAME: VALUE, or @- for standard input; K=V shows V in ps",
    )
    adding.add_argument("--pool-size", metavar="N", type=int, help="connections to each replica; that of [gateway] if not given")
    adding.add_argument("--request-timeout", metavar="S", type=float, help="seconds; that of [gateway] if not given")
    adding.add_argument("--cwd", metavar="D", help="folder of a command; the current one if not given")
    adding.add_argument(
        "--env",
        metavar="K=V",
        type=_given_variables,
        action="append",
        help="of a command; @F is a file of such lines, @- standard input",
    )
    adding.add_argument("--instances", metavar="N", type=int, help="how many of a command to run")
    removing = commands.add_parser("remove-backend", help="remove a backend from a running gateway; calls that it runs fail")
    draining = commands.add_parser(
        "drain", help="no new sessions and no stateless calls for a backend, or for a node; open sessions go on"
    )
    undraining = commands.add_parser("undrain", help="take a backend in again that was drained")
    for parser in (removing, undraining):
        parser.add_argument("name", metavar="NAME", help="a backend, as `backends` lists it")
    draining.add_argument("name", metavar="NAME", help="a backend; or a node of the cluster, which ends when it has drained")
    for parser in (draining, undraining):
        parser.add_argument("--replica", metavar="ADDRESS", help="only this one of its replicas, as `status` lists it")
    reloading = commands.add_parser("reload", help="have a running gateway take the backends and routes of its changed file")
    for parser, run in (
        (adding, _add_backend),
        (removing, _remove_backend),
        (draining, _drain),
        (undraining, _undrain),
        (reloading, _reload),
    ):
        add_attach_options(parser, with_config=parser is not reloading)
        parser.set_defaults(run=run)
    reloading.add_argument("--config", metavar="F.toml", help="take those of this file instead")


def split_server_command(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """(what argparse reads, the command after `--` of add-backend), which argparse cannot tell from its own options."""
    words = list(arguments)
    if words[:1] != ["add-backend"] or "--" not in words:
        return words, []
    at = words.index("--")
    return words[:at], words[at + 1 :]


@attrs.frozen
class _Given:
    """What one option gives. is_in_sight: it stands among the arguments, which every user of the machine can read."""

    pairs: tuple[tuple[str, str], ...] = attrs.field(repr=False)
    is_in_sight: bool


def _given_headers(text: str) -> _Given:
    return _given(text, ":")


def _given_variables(text: str) -> _Given:
    return _given(text, "=")


def _given(text: str, separator: str) -> _Given:
    """Read NAME=VALUE, or with @ the lines of a file as curl does for headers, and docker with its files of variables."""
    if not text.startswith("@"):
        return _Given((_pair(text, "="),), is_in_sight=True)
    lines = (line.strip() for line in _content(text[1:]).splitlines())
    return _Given(tuple(_pair(line, separator) for line in lines if line), is_in_sight=False)


def _content(path: str) -> str:
    try:
        with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
            content = file.read(_LONGEST_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if len(content) > _LONGEST_FILE_BYTES:
        raise argparse.ArgumentTypeError(f"{path}: longer than {_LONGEST_FILE_BYTES} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise argparse.ArgumentTypeError(f"{path}: not UTF-8") from None


def _pair(text: str, separator: str) -> tuple[str, str]:
    name, found, value = text.partition(separator)
    if not found:  # without the text: it may be a secret
        raise argparse.ArgumentTypeError(f"not of the form NAME{separator if separator == '=' else ': '}VALUE")
    return (name, value) if separator == "=" else (name.strip(), value.strip())


def _add_backend(options: argparse.Namespace) -> int:
    if any(given.is_in_sight for given in options.header or ()):
        setproctitle(f"mcp-gateway: add-backend {options.name}")
        say("--header NAME=VALUE shows the value to every user of this machine; --header @FILE or @- does not", 0)
    if options.registry is None and not options.name:
        return say("the name of the backend is wanted, or --registry FILE", EXIT_REFUSED)
    table: dict[str, Any] = {"name": options.name}
    if options.registry is not None:
        try:
            table = _of_registry(options)
        except RegistryRefused as refused:
            print(shown_lines(str(refused)), file=sys.stderr)
            return EXIT_REFUSED
    table |= {key: value for key in _TABLE_KEYS if (value := getattr(options, key)) is not None}
    table |= {key: value for key, value in (("replicas", options.replica), ("command", options.server_command)) if value}
    for key, given in (("headers", options.header), ("env", options.env)):
        if given:
            table[key] = {**table.get(key, {}), **dict(pair for each in given for pair in each.pairs)}
    if "command" in table or "cwd" in table:
        table["cwd"] = os.path.abspath(os.path.expanduser(table.get("cwd", ".")))
    if "://" not in table.get("openapi", "://"):
        table["openapi"] = os.path.abspath(os.path.expanduser(table["openapi"]))
    return _change(options, "add-backend", {"backend": table})


def _of_registry(options: argparse.Namespace) -> dict[str, Any]:
    """Raises: RegistryRefused"""
    from mcp_gateway.config.json_text import NotJson, read_json

    try:
        document = read_json(options.registry.encode()).value
    except NotJson as error:
        raise RegistryRefused(f"the server.json: {error.found}; wanted: {error.allowed}") from None
    found = registry_server(document, os.environ, name=options.name, kind=options.kind or "")
    taken = [f"it gets the value of {', '.join(found.taken)} in this environment"] if found.taken else []
    for note in (*found.notes, *taken):
        say(note, 0)
    return dict(found.table)


def _remove_backend(options: argparse.Namespace) -> int:
    return _change(options, "remove-backend", {"name": options.name})


def _drain(options: argparse.Namespace) -> int:
    return _change(options, "drain", _drained(options))


def _undrain(options: argparse.Namespace) -> int:
    return _change(options, "undrain", _drained(options))


def _drained(options: argparse.Namespace) -> dict[str, Any]:
    return {"name": options.name} | ({"replica": options.replica} if options.replica else {})


def _change(options: argparse.Namespace, command: str, arguments: dict[str, Any]) -> int:
    return ask(options, lambda client: _report(client.command(command, arguments)))


def _reload(options: argparse.Namespace) -> int:
    """A file that is named says where the gateway is, too, as with every other command."""
    from mcp_gateway.config.environment import variables_of
    from mcp_gateway.config.loader import ConfigError, load_settings

    if options.config is not None:
        try:
            load_settings(options.config, variables_of(os.environ))
        except ConfigError as error:
            print(shown_lines(str(error)), file=sys.stderr)
            return EXIT_REFUSED
    return ask(options, lambda client: _reload_from(client, options.config))


def _reload_from(client: Any, config: str | None) -> int:
    """Read what `serve` read, or another file in its place; the options that `serve` was given still stand over it."""
    from mcp_gateway.config.loader import ConfigError
    from mcp_gateway.config.setting_rules import InvalidSetting
    from mcp_gateway.scripts.serving.settings_source import SettingsSource

    source = SettingsSource.kept(client.run["source"])
    if config is not None:
        source = attrs.evolve(source, config=config, mcp_json=None)
    if not source.names_a_file:
        return say("the gateway was started without a file: name one with --config", EXIT_REFUSED)
    try:
        settings = source.load()
    except ConfigError as error:
        print(shown_lines(str(error)), file=sys.stderr)
        return EXIT_REFUSED
    except InvalidSetting as error:
        return say(str(error), EXIT_REFUSED)
    for server in settings.left_out:
        say(f"server {server.title!r} is left out: {server.reason}", EXIT_REFUSED)
    return _report(client.command("reload", {"settings": settings}))


def _report(answer: Mapping[str, Any]) -> int:
    """One line for each change, and for each setting of a file that could not follow."""
    if "error" in answer:
        return say(str(answer["error"]), EXIT_NOTHING_THERE)
    if "refused" in answer:
        print("\n".join(map(shown, answer["refused"])), file=sys.stderr)
        return EXIT_REFUSED
    from mcp_gateway.scripts.serving.settings_watch import change_lines

    done, left = change_lines(answer)
    print("\n".join(map(shown, done + left)))
    return 0
