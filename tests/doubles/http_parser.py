"""With which parser the gateways of tests read their clients' requests: the default, or what the environment says."""

from __future__ import annotations

import os
from typing import Final

from mcp_gateway.config.settings import LLHTTP, TORNADO, GatewaySettings

VARIABLE: Final = "MCP_GATEWAY_TEST_HTTP_PARSER"
OTHER: Final = LLHTTP if GatewaySettings().http_parser == TORNADO else TORNADO
"""The one that is not the default."""


def http_parser_setting() -> dict[str, str]:
    """Of the table [gateway]; nothing for the default."""
    chosen = os.environ.get(VARIABLE)
    return {"http_parser": chosen} if chosen else {}


def with_http_parser(settings: str) -> str:
    """The text of a configuration file with the setting in it."""
    lines = "".join(f'{name} = "{value}"\n' for name, value in http_parser_setting().items())
    if not lines:
        return settings
    table = "[gateway]\n"
    return settings.replace(table, table + lines, 1) if table in settings else f"{table}{lines}{settings}"
