"""`mcp-gateway import`: the gateway.toml that other programs' files of servers amount to."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from .attaching import EXIT_REFUSED, say


def add_import_command(commands: Any) -> None:
    """commands: what `add_subparsers` returned."""
    parser = commands.add_parser("import", help="write the gateway.toml that files of other programs' servers amount to")
    parser.add_argument("files", metavar="FILE", nargs="+", help="such a file, or a folder that has some")
    parser.add_argument("--output", metavar="F", help="write it there, for this user only; to standard output if not given")
    parser.set_defaults(run=_import)


def _import(options: argparse.Namespace) -> int:
    from mcp_gateway.config.desktop_loader import load_desktop_files
    from mcp_gateway.config.loader import ConfigError
    from mcp_gateway.config.toml_text import gateway_toml

    try:
        servers = load_desktop_files(options.files)
    except ConfigError as error:
        return say(str(error), EXIT_REFUSED)
    text = gateway_toml(servers.backends, servers.left_out, servers.warnings)
    for server in servers.left_out:
        say(f"server {server.title!r} is left out: {server.reason}", 0)
    if options.output is None:
        print(text, end="")
        return 0
    try:
        _write(options.output, text)
    except (OSError, ValueError) as error:
        return say(f"{options.output}: {getattr(error, 'strerror', None) or error}", EXIT_REFUSED)
    print(f"{options.output}: {len(servers.backends)} served, {len(servers.left_out)} left out", file=sys.stderr)
    return 0


def _write(path: str, text: str) -> None:
    """As a whole or not at all; for this user only, because headers and environments are secrets."""
    fresh = f"{path}.new"
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(fresh, path)
