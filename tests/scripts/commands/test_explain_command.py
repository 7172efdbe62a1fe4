"""`mcp-gateway explain`: who may do what by a file, and which rule says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcp_gateway.scripts.command_line import main

CONFIG = """
[[backends]]
name = "files"
replicas = ["http://127.0.0.1:3001/mcp"]
[[backends]]
name = "mail"
replicas = ["http://127.0.0.1:3002/mcp"]
[[policies]]
effect = "allow"
groups = ["dev"]
tools = ["files__*"]
when = "!has(arguments.path) || arguments.path.startsWith('/public/')"
[[policies]]
effect = "deny"
subjects = ["bob"]
methods = ["tools/*"]
[[policies]]
effect = "allow"
subjects = ["ann"]
scopes = ["mail:send", "mail:read"]
backends = ["mail"]
[[policies]]
effect = "allow"
topics = ["client.*"]
[[policies]]
effect = "deny"
subjects = ["https://id.example intern-*", "api-key ci", "Ann Lee"]
resources = ["*"]
"""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (
            ["--as", "ann", "--group", "dev", "tools/call/files__read"],
            0,
            "'files__read' at backend 'files': allowed by policies[0]",
        ),
        (["--as", "ann", "--group", "dev", "tools/call", "files__read"], 0, "allowed by policies[0]"),
        (
            ["--as", "ann", "--group", "dev", "tools/call/read", "--server", "files"],
            0,
            "'files__read' at backend 'files': allowed",
        ),
        (["--as", "ann", "tools/call/files__read"], 1, "denied by default, as no policy allows it"),
        (["--as", "bob", "--group", "dev", "tools/call/files__read"], 1, "denied by policies[1]"),
        (["--as", "bob", "tools/list"], 1, "tools/list: denied by policies[1]"),
        (["--as", "ann", "tools/list"], 0, "tools/list: allowed, as no policy denies it"),
        (
            ["--as", "ann", "--group", "dev", "tools/call/files__read", "--arguments", '{"path": "/etc/x"}'],
            1,
            "denied by default",
        ),
        (
            ["--as", "ann", "--scope", "mail:read", "tools/call/mail__send"],
            1,
            "insufficient_scope by policies[2], needs mail:send mail:read",
        ),
        (["--as", "ann", "--scope", "mail:read", "--scope", "mail:send", "resources/read/mail+a:b"], 0, "allowed by policies[2]"),
        (["topics/follow/client.*"], 0, "topics/follow of 'client.*': allowed by policies[3]"),
        (["topics/follow/vsm.*"], 1, "topics/follow of 'vsm.*': denied by default"),
        (["topics/publish/all"], 1, "topics/publish of 'all': denied by default"),
        (["topics/follow/all"], 0, "topics/follow of 'all': allowed, with those of its events that may be followed"),
        (["--as", "https://id.example intern-1", "resources/read/mail+a:b"], 1, "denied by policies[4]"),
        (["--as", "intern-1", "--issuer", "https://id.example", "resources/read/mail+a:b"], 1, "denied by policies[4]"),
        (["--as", "api-key ci", "resources/read/mail+a:b"], 1, "denied by policies[4]"),
        (["--as", "Ann Lee", "resources/read/mail+a:b"], 1, "denied by policies[4]"),
        (["--as", "proxy ci", "resources/read/mail+a:b"], 1, "denied by default"),
        (["initialize"], 0, "allowed: no policy is asked for that"),
    ],
)
def test_the_rule_that_decides_is_named(
    words: list[str], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(CONFIG)
    assert main(["explain", "--config", str(file), *words]) == code
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tools/call/a", "--arguments", "{"], "is no request"),
        (["tools/call/a", "--arguments", "[]"], "is no request"),
        (["completion/complete"], "is no request"),
        (["topics/follow/a b"], "is no topic and no pattern"),
        (["tools/call/a", "--server", "other"], "no backend 'other' is configured"),
        (["tools/call/a", "--group", "dev"], "name somebody"),
    ],
)
def test_what_is_no_question_is_refused_in_a_line(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(CONFIG)
    assert main(["explain", "--config", str(file), *words]) == 2
    assert said in capsys.readouterr().err


def test_without_policies_all_is_allowed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--as", "ann", "tools/call/echo"]) == 0
    assert capsys.readouterr().out == "allowed: no policy is asked for that\n"


AUTH = """
[gateway]
trusted_proxies = ["10.0.0.1"]
[auth]
user_header = "X-User"
operators = ["amy"]
[[auth.api_keys]]
name = "ci"
hash = "sha256:%s"
""" % ("0" * 64)
OPERATOR = ["--as", "ann", "--scope", "mcp-gateway:operate"]


@pytest.mark.parametrize(
    ("words", "policies", "code", "said"),
    [
        (["--as", "ann", "topics/follow/all"], "", 1, "for operators, who have the scope mcp-gateway:operate"),
        (["topics/follow/vsm.algedonic.pain"], "", 1, "for operators, and nobody has logged in"),
        ([*OPERATOR, "topics/follow/all"], "", 0, "allowed: no policy is asked for that"),
        (["--as", "proxy amy", "topics/follow/all"], "", 0, "allowed: no policy is asked for that"),
        (["--as", "proxy bob", "topics/follow/all"], "", 1, "for operators, who have the scope"),
        (["--as", "ann", "topics/follow/client.*"], "", 0, "allowed: no policy is asked for that"),
        ([*OPERATOR, "topics/follow/all"], CONFIG, 0, "allowed, with those of its events"),
        ([*OPERATOR, "topics/follow/vsm.*"], CONFIG, 1, "denied by default"),
        (["--as", "ann", "topics/follow/client.*"], CONFIG, 0, "allowed by policies[3]"),
    ],
)
def test_topics_of_the_gateways_own_are_for_operators_whatever_the_policies_say(
    words: list[str], policies: str, code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(policies + AUTH)
    assert main(["explain", "--config", str(file), *words]) == code
    assert said in capsys.readouterr().out


def test_a_pattern_is_allowed_with_what_of_it_is_allowed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the gateway does: a channel for a pattern opens, and has those events."""
    file = tmp_path / "gateway.toml"
    file.write_text('[[policies]]\neffect = "allow"\ntopics = ["client.orders.paid"]\n')
    for pattern, code in (("client.orders.*", 0), ("client.orders.paid", 0), ("client.other.*", 1)):
        assert main(["explain", "--config", str(file), f"topics/follow/{pattern}"]) == code
    first, second, _ = capsys.readouterr().out.splitlines()
    assert "with those of its events" in first
    assert "allowed by policies[0]" in second


VIRTUAL = """
[[backends]]
name = "files"
builtin = "demo"
[[backends]]
name = "other"
builtin = "demo"
[[servers]]
name = "reading"
include = ["files/read_*"]
"""
DENIES = """
[[policies]]
effect = "allow"
tools = ["files__read_*"]
[[policies]]
effect = "deny"
tools = ["files__read_secret"]
"""


@pytest.mark.parametrize(
    ("tool", "policies", "code", "said"),
    [
        ("files__read_a", "", 0, "allowed: no policy is asked for that"),
        ("files__write", "", 1, "denied, as the virtual server 'reading' does not have it"),
        ("other__read_a", "", 1, "denied, as the virtual server 'reading' does not have it"),
        ("files__read_a", DENIES, 0, "allowed by policies[0]"),
        ("files__read_secret", DENIES, 1, "denied by policies[1]"),
    ],
)
def test_a_virtual_server_has_a_part_of_what_the_policies_allow(
    tool: str, policies: str, code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(VIRTUAL + policies)
    assert main(["explain", "--config", str(file), "--server", "reading", f"tools/call/{tool}"]) == code
    assert said in capsys.readouterr().out
