"""Who loses access while the gateway runs, and who gets it back. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from mcp_gateway.config.identity_settings import LOG_OUTS_KEPT_S, MOST_LOG_OUTS, LogOut, Revocations
from mcp_gateway.config.loader import ConfigError, ConfigProblem
from mcp_gateway.config.setting_rules import InvalidSetting

_KEPT_MS: Final = int((LOG_OUTS_KEPT_S + 3_600) * 1000)  # a little longer than tokens count: clocks and leeways differ


def changed_revocations(revocations: Revocations, arguments: Mapping[str, Any]) -> Revocations:
    """arguments: {"subject": a name or pattern} or {"fingerprint": of a credential}, and "undo" where access is given back; or
    {"log_out": a `LogOut`}.

    Raises: ConfigError where there is no such name, there are too many, or the logout was told before.
    """
    if "log_out" in arguments:
        return attrs.evolve(revocations, log_outs=_with_log_out(revocations.log_outs, arguments["log_out"]))
    table, name = ("subjects", arguments["subject"]) if "subject" in arguments else ("fingerprints", arguments["fingerprint"])
    others = tuple(each for each in getattr(revocations, table) if each != name)
    try:
        return attrs.evolve(revocations, **{table: others if arguments.get("undo") else (*others, name)})
    except InvalidSetting as error:
        problem = error.problem
        raise ConfigError([ConfigProblem(file="revoke", key=table, found=problem.found, allowed=problem.allowed)]) from None


def _with_log_out(log_outs: tuple[LogOut, ...], new: LogOut) -> tuple[LogOut, ...]:
    """One more, without those that no token is old enough for.

    Where they are too many, a tenth of them is forgotten, the oldest, with all tokens of their issuers that are as old.

    Raises: ConfigError. Source: OpenID Connect Back-Channel Logout 1.0, section 2.6, step 8.
    """
    if any((each.issuer, each.token_id) == (new.issuer, new.token_id) for each in log_outs):
        raise ConfigError([ConfigProblem(file="logout", key="jti", found="a token that was used before", allowed="a new one")])
    kept = [each for each in log_outs if each.issued_ms > new.issued_ms - _KEPT_MS]
    if len(kept) >= MOST_LOG_OUTS:
        kept.sort(key=lambda each: each.issued_ms)
        latest_ms = {each.issuer: each.issued_ms for each in kept[: MOST_LOG_OUTS // 10]}
        kept[: MOST_LOG_OUTS // 10] = [LogOut(issuer=issuer, issued_ms=issued_ms) for issuer, issued_ms in latest_ms.items()]
    return (*kept, new)
