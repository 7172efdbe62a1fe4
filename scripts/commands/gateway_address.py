"""Where a gateway serves, by which certificate it is known, and what a command shows it of its user."""

from __future__ import annotations

import http.client
import os
import ssl
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import attrs

from mcp_gateway.scripts.serving.start_checks import live_runs

TOKEN_VARIABLE: Final = "MCP_GATEWAY_TOKEN"
"""Of the environment: an access token or an API key of whoever runs the command."""
TOKEN_EPILOG: Final = f"Where the gateway asks who you are, put an access token or an API key into {TOKEN_VARIABLE}."
_CONNECT_S: Final = 5.0
_END: Final = "-----END CERTIFICATE-----"


class NothingToFollow(Exception):
    """There is no gateway, or it has ended; the text is one clear line."""


@attrs.frozen
class GatewayAddress:
    """url:         without a path.
    certificate: PEM file of what the gateway shows over TLS, as its own state directory has it. That one is expected then,
                 whatever names it has and whoever has signed it: a gateway that others know as mcp.example.com is reached at
                 127.0.0.1 here. "" expects one of an authority that this machine trusts (SSL_CERT_FILE), for the host of the url.
    token:       what tells the gateway who asks, or "".

    Known gap: no certificate of the user is shown, so a gateway with `client_required` cannot be asked.
    """

    url: str
    certificate: str = ""
    token: str = attrs.field(default="", repr=False)

    def connection(self) -> http.client.HTTPConnection:
        """One that is not open yet.

        Raises: OSError where the certificate cannot be read
        """
        address = urlsplit(self.url)
        host = address.hostname or ""
        if address.scheme != "https":
            return http.client.HTTPConnection(host, address.port, timeout=_CONNECT_S)
        context = _known_by(self.certificate) if self.certificate else None
        return http.client.HTTPSConnection(host, address.port, timeout=_CONNECT_S, context=context)

    def headers(self) -> dict[str, str]:
        """What each request carries."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


def _known_by(path: str) -> ssl.SSLContext:
    """The file may have the certificates of authorities behind its own; by those a stranger's would be believed, too."""
    own, found, _ = Path(path).read_text(encoding="ascii", errors="replace").partition(_END)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it need not be an authority's to be trusted
    context.load_verify_locations(cadata=own[own.find("-----BEGIN CERTIFICATE-----") :] + found)
    return context


def refusal(text: str, reason: str, gateway: GatewayAddress) -> str:
    """What is said to the user of a command that was refused, with how to show a token where none was shown."""
    return f"{text} ({TOKEN_VARIABLE} has the token to show)" if reason == "unauthorized" and not gateway.token else text


def token_of_user() -> str:
    return os.environ.get(TOKEN_VARIABLE, "").strip()


def find_gateway(state_path: Path | None, admin_port: int | None, usual_port: int) -> GatewayAddress:
    """The gateway that runs with this state directory, and with this admin port where one is named.

    usual_port: the admin port of the settings, which decides between several.

    Raises: NothingToFollow
    """
    if state_path is None:
        raise NothingToFollow('state_dir is "": nothing tells where the gateway serves')
    runs: list[dict[str, Any]] = [run for run in live_runs(state_path) if admin_port in (None, run["admin_port"])]
    if not runs:
        port = "" if admin_port is None else f" and --admin-port {admin_port}"
        raise NothingToFollow(f"no gateway runs with state_dir {state_path}{port}")
    if len(runs) > 1:
        runs = [run for run in runs if run["admin_port"] == usual_port] or runs
    if len(runs) > 1:
        urls = ", ".join(f"{run['url']} (--admin-port {run['admin_port']})" for run in runs)
        raise NothingToFollow(f"several gateways run with state_dir {state_path}: {urls}; name one by --admin-port")
    return GatewayAddress(str(runs[0]["url"]), str(runs[0].get("certificate", "")), token_of_user())
