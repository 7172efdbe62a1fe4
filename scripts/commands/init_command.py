"""`init`: writes a first gateway.toml, with the servers that desktop programs on this machine have already."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from mcp_gateway.config.desktop_files import KNOWN_FILES
from mcp_gateway.config.shown_text import shown

from .attaching import EXIT_REFUSED, say

AT_HOME: Final = (
    ".cursor/mcp.json",
    ".config/Claude/claude_desktop_config.json",
    "Library/Application Support/Claude/claude_desktop_config.json",
    ".codeium/windsurf/mcp_config.json",
)
"""Files of a user, below the home folder."""

_FIRST_LINES: Final = """\
# The settings of this gateway. `mcp-gateway check-config` and `doctor` look at them, `schema` is for editors.
# A line with a "#" before it shows a default; all others are in config/gateway.toml of the gateway.

[gateway]
host = {host}
port = {port}
# cells = 1                                # processes that serve clients; "auto" is one per core
# state_dir = "~/.local/state/mcp-gateway" # sessions and events outlive the gateway in there
# public_url = ""                          # "https://mcp.example.com": how others reach it
# watch_config = false                     # true: a change of this file is taken in by itself

# [auth]                                   # who clients are; without it everybody who reaches the gateway may use all of it
# [[auth.api_keys]]
# name = "ci"
# hash = "sha256:..."                      # printf %s "$KEY" | sha256sum

# [[policies]]                             # who may do what; with one of them, what none allows is denied
# effect = "allow"
# tools = ["*__read_*"]

"""
_DEMO: Final = """\
# No servers yet: the demo stands in for them. `command`, or `replicas` with URLs, name your own.
[[backends]]
name = "demo"
builtin = "demo"
"""


def add_init_command(commands: Any) -> None:
    """commands: what `add_subparsers` returned."""
    parser = commands.add_parser(
        "init",
        help="write a first gateway.toml, with the servers that programs here have",
        description="At a terminal it asks which files of desktop programs to take; elsewhere it takes those of --from alone.",
    )
    parser.add_argument("--output", metavar="F", default="gateway.toml", help="the file to write (default gateway.toml)")
    parser.add_argument("--from", metavar="F", dest="files", action="append", help="take the servers of this file; ask nothing")
    parser.add_argument("--host", metavar="H", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", metavar="P", type=int, default=4000, help="port to listen on")
    parser.set_defaults(run=_init)


def _init(options: argparse.Namespace) -> int:
    from mcp_gateway.config.desktop_loader import load_desktop_files
    from mcp_gateway.config.loader import ConfigError, settings_from_mapping

    output = Path(options.output)
    if output.exists():
        return say(f"{output} is there already: name another with --output, or move it away", EXIT_REFUSED)
    try:
        settings_from_mapping({"gateway": {"host": options.host, "port": options.port}}, "init")
        found = [] if options.files else found_files(Path.cwd(), Path.home())
        files = options.files or (_asked_for(found, _read_line) if sys.stdin.isatty() else [])
        servers = load_desktop_files(files) if files else None
    except ConfigError as error:
        return say(str(error), EXIT_REFUSED)
    text = first_file(options.host, options.port, servers)
    try:
        with os.fdopen(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        return say(f"{output}: {error.strerror}", EXIT_REFUSED)
    for server in () if servers is None else servers.left_out:
        say(f"server {server.title!r} is left out: {server.reason}", 0)
    count = 0 if servers is None else len(servers.backends)
    print(shown(f"{output}: {count or 'no'} server{'' if count == 1 else 's'} of yours"))
    for path in found if not files else ():
        print(shown(f"not taken: the servers of {path}, which --from {path} takes"))
    print(shown(f"next: mcp-gateway doctor --config {output} && mcp-gateway serve --config {output}"))
    return 0


def found_files(here: Path, home: Path) -> list[Path]:
    """Files of other programs' servers that are there, those of the project first."""
    candidates = [*(here / name for name in KNOWN_FILES), *(home / name for name in AT_HOME)]
    return [path for path in dict.fromkeys(candidates) if path.is_file()]


def _asked_for(paths: Sequence[Path], read: Callable[[str], str]) -> list[str]:
    return [str(path) for path in paths if read(shown(f"take the servers of {path}? [Y/n] ")).strip().lower() in ("", "y", "yes")]


def _read_line(prompt: str) -> str:
    """At the end of the input nothing more is taken."""
    print(prompt, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline() or "n"


def first_file(host: str, port: int, servers: Any) -> str:
    """The whole file. servers: a `DesktopServers`, None for the demo."""
    from mcp_gateway.config.toml_text import backends_toml, toml_value

    head = _FIRST_LINES.format(host=toml_value(host), port=toml_value(port))
    if servers is None or not servers.backends:
        return head + _DEMO
    return head + backends_toml(servers.backends, servers.left_out, servers.warnings)
