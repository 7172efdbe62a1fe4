"""Who can reach it, and what it lacks then: one line each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from mcp_gateway.config.exposure import exposure_warnings
from mcp_gateway.config.identity_settings import AuthSettings, PolicySettings, TlsSettings
from mcp_gateway.config.loader import load_settings
from mcp_gateway.config.settings import GatewaySettings, Settings

NAME, WHO, TLS = "no name of it is known", "nobody is authenticated", "no TLS stands before it"
PROXIED = {"public_url": "https://mcp.example", "trusted_proxies": ["127.0.0.1"]}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, []),
        ({"host": "localhost"}, []),
        ({"host": "::1"}, []),
        ({"host": "127.8.9.1"}, []),
        ({"public_url": "http://localhost:8080"}, []),
        ({"host": "0.0.0.0"}, [NAME, WHO, TLS]),
        ({"host": "::"}, [NAME, WHO, TLS]),
        ({"host": "192.0.2.1"}, [NAME, WHO, TLS]),
        ({"host": "gateway.example"}, [NAME, WHO, TLS]),
        ({"host": "0.0.0.0", "allowed_hosts": ["mcp.example"]}, [WHO, TLS]),
        ({"host": "0.0.0.0", "public_url": "http://mcp.example"}, [WHO, TLS]),
        ({"host": "0.0.0.0", "public_url": "https://mcp.example"}, [WHO]),
        ({"host": "0.0.0.0", "trusted_proxies": ["10.0.0.0/8"]}, [NAME, WHO]),
        (PROXIED, [WHO]),
        ({**PROXIED, "public_url": "http://mcp.example"}, [WHO, TLS]),
        ({**PROXIED, "host": "0.0.0.0"}, [WHO]),
    ],
)
def test_what_others_can_reach_is_warned_of(settings: dict[str, Any], said: list[str]) -> None:
    found = list(exposure_warnings(Settings(gateway=GatewaySettings(**settings))))
    assert len(found) == len(said)
    for line, part in zip(found, said, strict=True):
        assert part in line
        assert line.startswith(("gateway.host: ", "gateway.public_url: "))


def test_the_hardened_set_up_of_readme_is_valid_and_lacks_only_what_the_gateway_cannot_see(tmp_path: Path) -> None:
    chapter = (Path(__file__).parents[2] / "README.md").read_text().partition("## A hardened set-up\n")[2]
    file = tmp_path / "gateway.toml"
    file.write_text(chapter.partition("```toml\n")[2].partition("```\n")[0])
    (warning,) = exposure_warnings(load_settings(str(file)))
    assert f"warning: {warning}\n" in chapter


def test_what_the_gateway_does_itself_is_not_missed() -> None:
    """Plain HTTP beyond loopback is warned of until the gateway speaks TLS; that nobody is authenticated, until somebody is."""
    reached = Settings(gateway=GatewaySettings(host="0.0.0.0", public_url="http://mcp.example"))
    assert [TLS in line for line in exposure_warnings(reached)] == [False, True]
    with_tls = attrs.evolve(reached, tls=TlsSettings(certificate="c.pem", key="k.pem"))
    assert [WHO in line for line in exposure_warnings(with_tls)] == [True]
    assert list(exposure_warnings(attrs.evolve(with_tls, auth=AuthSettings(user_header="X-User")))) == []


def test_an_authentication_that_nobody_needs_is_warned_of_and_what_policies_leave_to_everybody_is_told() -> None:
    optional = AuthSettings(mode="optional")
    reached = Settings(gateway=GatewaySettings(host="0.0.0.0", public_url="https://mcp.example"), auth=optional)
    (warning,) = exposure_warnings(reached)
    assert "auth.mode is 'optional': whoever reaches it may call every tool" in warning
    ruled = attrs.evolve(reached, policies=(PolicySettings(effect="allow", tools=("a",)),))
    for auth in (None, optional):
        (warning,) = exposure_warnings(attrs.evolve(ruled, auth=auth))
        assert "whoever reaches it may call what the policies allow to anybody" in warning
    assert list(exposure_warnings(attrs.evolve(ruled, auth=attrs.evolve(optional, mode="required")))) == []


def test_a_policy_that_names_no_backend_is_told_wherever_the_gateway_is_reached() -> None:
    policies = (
        PolicySettings(effect="allow", backends=("demo", "d*")),
        PolicySettings(effect="deny", backends=("dmeo",)),
    )
    settings = attrs.evolve(Settings.demo(), policies=policies)
    assert list(exposure_warnings(settings)) == [
        "policies[1].backends: 'dmeo' is the name of no backend: this policy is about nothing there"
    ]


@pytest.mark.parametrize(
    ("effects", "is_warned"), [((), False), (("deny",), True), (("deny", "deny"), True), (("deny", "allow"), False)]
)
def test_policies_that_only_deny_are_warned_of_since_they_shut_everybody_out(effects: tuple[str, ...], is_warned: bool) -> None:
    policies = tuple(PolicySettings(effect=effect, tools=("*delete*",)) for effect in effects)
    warnings = list(exposure_warnings(attrs.evolve(Settings.demo(), policies=policies)))
    assert [warning.startswith("policies: all deny") for warning in warnings] == [True] * is_warned
