"""What a server is shown, as a configuration file says it: what is read, and what each mistake is answered with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mcp_gateway.config.backend_settings import BackendSettings
from mcp_gateway.config.loader import ConfigError, settings_from_mapping
from mcp_gateway.config.setting_rules import InvalidSetting
from mcp_gateway.config.settings import Settings

URL = "https://files.example/mcp"
AUTH = {"api_keys": [{"name": "ci", "hash": "sha256:" + "0" * 64}]}
EXCHANGE = {"auth": "token_exchange", "client_id": "gw", "token_url": "https://id.example/token"}


def problems(backend: dict[str, Any], **tables: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        read(backend, **tables)
    return str(raised.value)


def read(backend: dict[str, Any], **tables: Any) -> BackendSettings:
    mapping = {"backends": [{"name": "files", "replicas": [URL], **backend}], **tables}
    return settings_from_mapping(mapping, "f").backends[0]


def test_a_backend_that_says_nothing_of_it_is_shown_its_headers_as_they_are() -> None:
    backend = read({"headers": {"X-Key": "a ${HOME} stays"}})
    assert (backend.auth, backend.gets_tokens, backend.is_per_user) == ("none", False, False)
    assert backend.headers == {"X-Key": "a ${HOME} stays"}


def test_headers_are_filled_in_from_the_environment_and_from_files_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FILES_TOKEN", "${HOME}")
    (tmp_path / "key").write_text("s3cret\n")
    headers = {"Authorization": "Bearer ${FILES_TOKEN}", "X-Key": f"${{file:{tmp_path}/key}}"}
    backend = read({"auth": "headers", "headers": headers})
    assert backend.headers == {"Authorization": "Bearer ${HOME}", "X-Key": "s3cret"}


def test_what_cannot_be_filled_in_is_told_without_any_value(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TWO_LINES", "s3cret\nX-Evil: 1")
    (tmp_path / "large").write_bytes(b"s3cret" * 20_000)
    monkeypatch.delenv("NOBODY", raising=False)
    headers = {"A": "${NOBODY}", "B": "${TWO_LINES}", "C": f"${{file:{tmp_path}/none}}", "D": f"${{file:{tmp_path}/large}}"}
    told = problems({"auth": "headers", "headers": headers})
    assert [line.partition(": found")[0] for line in told.splitlines()] == [f"f: backends[0].headers.{name}" for name in "ABCD"]
    assert "s3cret" not in told


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        ({"auth": "oauth"}, r"auth: found 'oauth'"),
        ({"auth": "headers"}, r"headers: found none; allowed: at least one"),
        ({"scopes": ["read"]}, r"scopes: found set beside auth = 'none'"),
        ({"auth": "headers", "headers": {"A": "b"}, "client_id": "x"}, r"client_id: found set beside auth = 'headers'"),
        ({"auth": "client_credentials"}, r"client_id: found nothing"),
        ({"auth": "token_exchange", "client_id": "gw"}, r"token_url: found nothing"),
        ({"auth": "user", "headers": {"authorization": "Bearer x"}}, r"headers\.Authorization: found set"),
        ({"auth": "user", "replicas": ["wss://files.example/mcp"]}, r"replicas\[0\]: found 'wss:"),
        ({"auth": "user", "replicas": ["http://files.example/mcp"]}, r"replicas\[0\]: .*allow_private = true"),
        ({"auth": "user", "issuer": "http://id.example"}, r"issuer: found 'http://id\.example'; allowed: an https URL"),
        ({"auth": "user", "client_id": "gw", "client_secret_file": "s"}, r"issuer: found nothing; allowed: the authorization"),
        (
            {"auth": "user", "client_id": "gw", "client_secret_file": "s", "token_url": "https://id.example/t"},
            r"issuer: found nothing",
        ),
        ({"auth": "client_credentials", "client_id": "gw", "client_secret_file": "s"}, r"issuer: found nothing"),
        ({"auth": "user", "scopes": ["a b"]}, r"scopes\[0\]: found 'a b'"),
    ],
)
def test_a_mistake_is_told_by_key_with_what_is_allowed(backend: dict[str, Any], expected: str) -> None:
    assert re.search(expected, problems(backend))


def test_a_secret_goes_to_an_authorization_server_that_the_operator_has_named() -> None:
    """The server's metadata says where tokens are given: a server that is not honest would have it sent to itself."""
    secret = {"client_id": "gw", "client_secret_file": "s"}
    assert read({"auth": "client_credentials", "token_url": "https://id.example/t", **secret}).gets_tokens
    for auth in ("client_credentials", "user"):
        assert read({"auth": auth, "issuer": "https://id.example", **secret}).gets_tokens


@pytest.mark.parametrize("scheme", ["sse+https", "wss"])
def test_connections_that_all_share_show_a_token_of_the_gateways_own_and_none_of_a_user(scheme: str) -> None:
    own = {"auth": "client_credentials", "client_id": "gw", "token_url": "https://id.example/t"}
    assert read({**own, "replicas": [f"{scheme}://files.example/mcp"]}).gets_tokens
    for auth in ({"auth": "user"}, EXCHANGE):
        told = problems({**auth, "replicas": [f"{scheme}://files.example/mcp"]}, auth=AUTH)
        assert "as other connections are shared by all users" in told
    for url in (f"{scheme[:-1]}://files.example/mcp", "auto+https://files.example/mcp"):
        assert "backends[0].replicas[0]: found" in problems({**own, "replicas": [url]})
    assert read({**own, "replicas": [f"{scheme[:-1]}://files.example/mcp"], "allow_private": True}).gets_tokens


def test_a_grpc_server_is_shown_the_gateways_own_token_over_tls_from_where_the_operator_says() -> None:
    """It has no 401 by which HTTP servers say where tokens are given out."""
    token = {"client_id": "gw", "token_url": "https://id.example/t"}
    for where, open_one in (
        ({"replicas": ["grpcs://files.example:1"]}, {"replicas": ["grpc://files.example:1"]}),
        ({"replicas": [], "grpc": "https://files.example:1"}, {"replicas": [], "grpc": "files.example:1"}),
    ):
        own = {"auth": "client_credentials", **token}
        assert read({**own, **where}).gets_tokens
        assert "allow_private = true" in problems({**own, **open_one})
        assert read({**own, **open_one, "allow_private": True}).gets_tokens
        assert "token_url: found nothing" in problems({**own, **where, "token_url": "", "issuer": "https://id.example"})
        for auth in ("user", "token_exchange"):
            told = problems({**token, **where, "auth": auth}, auth=AUTH)
            assert "backends[0].auth: found" in told or "backends[0].replicas[0]: found" in told


def test_a_process_is_shown_no_token() -> None:
    assert "auth: found 'user'; allowed: only beside replicas" in problems({"auth": "user", "command": ["x"], "replicas": []})


def test_an_http_api_is_shown_the_gateways_own_token_where_the_operator_says_that_it_is() -> None:
    """Its description, which may come from elsewhere, must not say where tokens go."""
    api = {"openapi": "pets.json", "replicas": [], "client_id": "gw", "token_url": "https://id.example/t"}
    own = {**api, "auth": "client_credentials"}
    assert read({**own, "base_url": "https://api.example/v1"}).gets_tokens
    assert "base_url: found nothing" in problems(own)
    assert "allow_private = true" in problems({**own, "base_url": "http://api.example/v1"})
    assert read({**own, "base_url": "http://api.example/v1", "allow_private": True}).gets_tokens
    for auth in ("user", "token_exchange"):
        told = problems({**api, "auth": auth, "base_url": "https://api.example/v1"}, auth=AUTH)
        assert f"auth: found '{auth}'; allowed: auth = \"client_credentials\" beside openapi" in told


def test_users_are_told_apart_wherever_others_reach_the_gateway() -> None:
    """On one's own machine there is one user: nobody else reaches it."""
    assert read({"auth": "user"}).is_per_user
    public = {"public_url": "https://mcp.example.com"}
    for gateway in (public, {"host": "0.0.0.0", **public}):
        assert "backends[0].auth: found 'user'; allowed: [auth]" in problems({"auth": "user"}, gateway=gateway)
        assert read({"auth": "user"}, gateway=gateway, auth=AUTH).is_per_user
    assert "backends[0].auth: found 'user'; allowed: a gateway.public_url" in problems(
        {"auth": "user"}, gateway={"host": "::"}, auth=AUTH
    )
    assert "backends[0].auth: found 'token_exchange'; allowed: [auth]" in problems(EXCHANGE)
    assert read(EXCHANGE, auth=AUTH).is_per_user


def test_what_users_have_consented_to_is_kept_where_all_cells_find_it() -> None:
    assert read({"auth": "user"}, gateway={"state_dir": "", "cells": 1}).is_per_user
    assert "backends[0].auth: found 'user'; allowed: a gateway.state_dir" in problems(
        {"auth": "user"}, gateway={"state_dir": "", "cells": 2}
    )


def test_a_backend_that_comes_later_keeps_the_same_rules() -> None:
    backend = BackendSettings(name="files", prefix="", replicas=(URL,), **{**EXCHANGE, "scopes": ["read"]})
    with pytest.raises(InvalidSetting, match=r"\[auth\]"):
        Settings(backends=(backend,))
