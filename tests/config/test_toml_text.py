"""A gateway.toml that is written is read back as the same settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mcp_gateway.config.backend_settings import BackendSettings, LeftOutServer
from mcp_gateway.config.loader import load_settings
from mcp_gateway.config.toml_text import gateway_toml

BACKENDS = (
    BackendSettings(name="plain", command=("x",), cwd="/srv"),
    BackendSettings(
        name="local",
        title='Wörk "tree"\\',
        command=("x", "", "a\nb", "\x7f\x1b"),
        env={"A B": "é", "C": ""},
        cwd="/",
        instances=2,
    ),
    BackendSettings(
        name="far",
        prefix="f.",
        replicas=("auto+http://h/mcp", "sse+http://h/"),
        headers={"X-K": "v\t"},
        protocol="2025-06-18",
        tools={"allow": ("a*", "b"), "deny": ("c",)},
    ),
    BackendSettings(name="demo", builtin="demo", pool_size=3, request_timeout=1.5, draining=True),
)


def test_every_setting_of_a_backend_is_written_and_read_back(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(gateway_toml(BACKENDS, (), ()), encoding="utf-8")
    assert load_settings(file).backends == BACKENDS


def test_what_a_file_has_by_itself_is_not_written() -> None:
    assert gateway_toml(BACKENDS[:1], (), ()).split("\n\n")[1] == '[[backends]]\nname = "plain"\ncommand = ["x"]\ncwd = "/srv"\n'


def test_what_is_left_out_stands_in_it_as_comments(tmp_path: Path) -> None:
    left_out = LeftOutServer(name="bad", title="Bad\none", reason="m.json: mcpServers.bad: found 3; allowed: a table")
    text = gateway_toml((), (left_out,), ("m.json: a\nwarning",))
    assert "# left out: Bad one\n#   m.json: mcpServers.bad: found 3; allowed: a table\n" in text
    assert "# passed over: m.json: a warning\n" in text
    file = tmp_path / "gateway.toml"
    file.write_text(text, encoding="utf-8")
    assert load_settings(file).backends == ()


TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=8)


@hypothesis_settings(max_examples=100, deadline=None)
@given(
    words=st.lists(TEXT, max_size=3),
    env=st.dictionaries(st.text("AB= é'\"", min_size=1, max_size=3).filter(lambda n: "=" not in n), TEXT),
)
def test_any_words_are_read_back(tmp_path_factory: pytest.TempPathFactory, words: list[str], env: dict[str, str]) -> None:
    backend = BackendSettings(name="a", command=("x", *words), env=env, cwd="/")
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_text(gateway_toml((backend,), (), ()), encoding="utf-8")
    assert load_settings(file).backends == (backend,)
