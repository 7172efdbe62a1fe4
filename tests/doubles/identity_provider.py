"""A real identity provider, oidc-provider under Node.js, and what a client does there; see `node/identity_provider.mjs`."""

from __future__ import annotations

import base64
import hashlib
import http.cookiejar
import json
import secrets
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.doubles.ports import free_port
from tests.end_to_end.running_gateway import is_continuous_integration
from tests.node.node_client import install_once

_SCRIPT = Path(__file__).parents[1] / "node" / "identity_provider.mjs"
_TIMEOUT_S = 20.0
CALLBACK = "http://127.0.0.1/callback"
SECRET = "secret"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Where a redirect leads is for the caller to see."""


@attrs.frozen
class IdentityProvider:
    """One that runs. issuer: its URL, as tokens name it."""

    issuer: str

    def token(self, resource: str, scope: str = "mcp:tools", client: str = "service") -> str:
        """An access token by client credentials: a JWT of "service", an opaque one of "opaque-service"."""
        return str(self.ask_token(client, grant_type="client_credentials", resource=resource, scope=scope)["access_token"])

    def exchanged(self, subject_token: str, resource: str) -> str:
        """Another token for the same subject. Source: RFC 8693."""
        grant = "urn:ietf:params:oauth:grant-type:token-exchange"
        kind = "urn:ietf:params:oauth:token-type:access_token"
        form = {"grant_type": grant, "subject_token": subject_token, "subject_token_type": kind, "resource": resource}
        return str(self.ask_token("exchanger", **form)["access_token"])

    def user_token(self, user: str, resource: str, scope: str = "mcp:tools") -> str:
        """An access token of a person: login, consent, code with PKCE."""
        verifier = secrets.token_urlsafe(32)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "client_id": "inspector",
            "response_type": "code",
            "redirect_uri": CALLBACK,
            "scope": scope,
            "resource": resource,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "login_hint": user,
        }
        callback = self.log_in(f"{self.issuer}/auth?{urllib.parse.urlencode(asked)}", CALLBACK)
        (code,) = urllib.parse.parse_qs(urllib.parse.urlsplit(callback).query)["code"]
        form = {"code": code, "redirect_uri": CALLBACK, "code_verifier": verifier, "resource": resource}
        answer = self._post("/token", {"grant_type": "authorization_code", "client_id": "inspector", **form})
        return str(answer["access_token"])

    def log_in(self, authorization_url: str, redirect_uri: str) -> str:
        """Do what a browser does with this URL; gives where it is sent in the end, a URL that begins with redirect_uri."""
        cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        browser, url = urllib.request.build_opener(cookies, _NoRedirect), authorization_url
        for _ in range(10):
            try:
                with browser.open(url, timeout=_TIMEOUT_S) as page:
                    raise AssertionError(page.read())
            except urllib.error.HTTPError as error:
                assert error.code in (302, 303), error.read()
                url = urllib.parse.urljoin(url, error.headers["Location"])
            if url.startswith(redirect_uri):
                return url
        raise AssertionError(f"no end of redirects: {url}")

    def introspected(self, token: str, client: str = "gateway") -> dict[str, Any]:
        return self._post("/token/introspection", {"token": token}, client)

    def revoke(self, token: str, client: str) -> None:
        """Of an opaque token: nobody can take back a JWT here."""
        self._post("/token/revocation", {"token": token}, client)

    def set_ttl(self, seconds: int) -> None:
        """How long tokens are good for that are issued from now on."""
        self._post("/control", json.dumps({"ttl": seconds}).encode())

    def registered(self, **metadata: object) -> str:
        """A new client with this metadata; its id."""
        return str(self._post("/reg", json.dumps(metadata).encode(), content_type="application/json")["client_id"])

    def log_out(self, client: str, user: str) -> None:
        """Send the client the logout token of a user, to where it has registered for such; returns once that was taken."""
        self._post("/control", json.dumps({"logOut": {"client": client, "sub": user, "sid": "a session"}}).encode())

    def rotate_keys(self) -> None:
        """A new key signs, and the old one is no longer named."""
        self._post("/control", json.dumps({"rotate": True}).encode())

    def ask_token(self, client: str, **form: str) -> dict[str, Any]:
        """The token endpoint's answer to a confidential client."""
        return self._post("/token", form, client)

    def _post(
        self, path: str, form: dict[str, str] | bytes, client: str = "", content_type: str = "application/x-www-form-urlencoded"
    ) -> dict[str, Any]:
        body = form if isinstance(form, bytes) else urllib.parse.urlencode(form).encode()
        headers = {"Content-Type": content_type}
        if client:
            headers["Authorization"] = f"Basic {base64.b64encode(f'{client}:{SECRET}'.encode()).decode()}"
        request = urllib.request.Request(f"{self.issuer}{path}", body, headers)
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            read: dict[str, Any] = json.loads(answer.read() or b"{}")
        return read


@contextmanager
def identity_provider() -> Iterator[IdentityProvider]:
    """One for the length of the `with` block; skips the test where Node.js or its packages cannot be had."""
    node = shutil.which("node")
    try:
        assert node, "Node.js is not installed"
        install_once()
    except (AssertionError, subprocess.SubprocessError, OSError) as problem:
        if is_continuous_integration():
            raise
        pytest.skip(f"oidc-provider cannot be had: {problem}")
    command = [node, str(_SCRIPT), str(free_port())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield IdentityProvider(json.loads(process.stdout.readline())["issuer"])
        finally:
            process.kill()
