"""What the commands share that talk to a running gateway: where it is, the conversation, and how they report."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mcp_gateway.config.shown_text import shown

if TYPE_CHECKING:
    from mcp_gateway.config.settings import Settings
    from mcp_gateway.scripts.serving.settings_source import SettingsSource

EXIT_NOTHING_THERE = 1
EXIT_REFUSED = 2


class Refused(Exception):
    """What the user asked for cannot be done; one or more clear lines."""


def add_attach_options(parser: argparse.ArgumentParser, *, with_config: bool) -> None:
    parser.add_argument("--state-dir", metavar="D", help="where the gateway keeps its state and the key of its actor system")
    parser.add_argument("--admin-port", metavar="N", type=int, help="port of its actor system (default 1900)")
    if with_config:
        parser.add_argument("--config", metavar="F.toml", help="read both from the file it was started with")


def source_of(options: argparse.Namespace) -> SettingsSource:
    """Where options and environment say that the settings are."""
    from mcp_gateway.config.environment import variables_of
    from mcp_gateway.scripts.serving.settings_source import SettingsSource

    names = ("config", "mcp_json", "host", "port", "state_dir", "admin_port")
    given = {name: getattr(options, name, None) for name in names}
    return SettingsSource(**given, is_embedded=getattr(options, "embedded", False), variables=variables_of(os.environ))


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings of the file, or those of the demo, with the options put over them.

    Raises: Refused
    """
    from mcp_gateway.config.loader import ConfigError
    from mcp_gateway.config.setting_rules import InvalidSetting

    try:
        return source_of(options).load()
    except (ConfigError, InvalidSetting) as error:
        raise Refused(str(error)) from error


def ask(options: argparse.Namespace, conversation: Callable[[Any], int]) -> int:
    """Talk to the gateway that the options name; the exit code."""
    try:
        settings = settings_of(options)
    except Refused as refusal:
        return say(str(refusal), EXIT_REFUSED)
    from .admin_client import AttachFailed, attach

    try:
        with attach(settings) as client:
            return conversation(client)
    except AttachFailed as failure:
        return say(str(failure), EXIT_NOTHING_THERE)


def report(answer: dict[str, Any], done_text: str) -> int:
    """Tell what became of a command."""
    if "error" in answer:
        return say(str(answer["error"]), EXIT_NOTHING_THERE)
    print(shown(done_text))
    return 0


def say(text: str, exit_code: int) -> int:
    """Texts of a running gateway, and what they quote, are written by others."""
    for line in text.split("\n"):
        print(f"mcp-gateway: {shown(line)}", file=sys.stderr)
    return exit_code
