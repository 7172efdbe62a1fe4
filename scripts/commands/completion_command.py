"""`completion`: what a shell sources to complete commands and options."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, Final

_SHELLS: Final = ("bash", "zsh", "fish")
_ASKED: Final = "_ARGCOMPLETE"
"""Set by the code that a shell has sourced, when it asks this command how to go on."""


def add_completion_command(commands: Any) -> None:
    """commands: what `add_subparsers` returned."""
    parser = commands.add_parser(
        "completion",
        help="print what a shell sources to complete commands and options",
        description='For bash and zsh: eval "$(mcp-gateway completion bash)"; for fish: mcp-gateway completion fish | source',
    )
    parser.add_argument("shell", choices=_SHELLS)
    parser.set_defaults(run=_print_code)


def complete_if_asked(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    """Where a shell asks, answer and exit; otherwise nothing is loaded."""
    if _ASKED in environment:
        import argcomplete

        argcomplete.autocomplete(parser)


def _print_code(options: argparse.Namespace) -> int:
    from argcomplete.shell_integration import shellcode

    print(shellcode(["mcp-gateway"], shell=options.shell))
    return 0
