"""Who loses access while the gateway runs, and who gets it back. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from mcp_gateway.config.identity_settings import Revocations
from mcp_gateway.config.loader import ConfigError, ConfigProblem
from mcp_gateway.config.setting_rules import InvalidSetting


def changed_revocations(revocations: Revocations, arguments: Mapping[str, Any]) -> Revocations:
    """arguments: {"subject": a name or pattern} or {"fingerprint": of a credential}, and "undo" where access is given back.

    Raises: ConfigError where there is no such name, or there are too many.
    """
    table, name = ("subjects", arguments["subject"]) if "subject" in arguments else ("fingerprints", arguments["fingerprint"])
    others = tuple(each for each in getattr(revocations, table) if each != name)
    try:
        return attrs.evolve(revocations, **{table: others if arguments.get("undo") else (*others, name)})
    except InvalidSetting as error:
        problem = error.problem
        raise ConfigError([ConfigProblem(file="revoke", key=table, found=problem.found, allowed=problem.allowed)]) from None
