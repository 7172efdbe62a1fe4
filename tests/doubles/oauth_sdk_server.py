"""An MCP server of the official SDK that wants OAuth: run as a program, with the issuer whose JWTs it takes.

It has one tool, `whoami`, which says for whom its token was made out.
"""

from __future__ import annotations

import argparse
from typing import Any

import jwt
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import MCPServer
from pydantic import AnyHttpUrl

from tests.doubles.everything_server import listen_and_serve


class JwtVerifier:
    """Takes the issuer's tokens for this very server."""

    def __init__(self, issuer: str, resource: str) -> None:
        self._issuer, self._resource = issuer, resource
        self._keys = jwt.PyJWKClient(f"{issuer}/jwks")

    async def verify_token(self, token: str) -> AccessToken | None:
        try:
            key = self._keys.get_signing_key_from_jwt(token).key
            claims: dict[str, Any] = jwt.decode(token, key, ["ES256"], audience=self._resource, issuer=self._issuer)
        except jwt.PyJWTError:
            return None
        return AccessToken(
            token=token,
            client_id=claims["client_id"],
            scopes=claims.get("scope", "").split(),
            expires_at=claims["exp"],
            resource=self._resource,
            subject=claims.get("sub"),
        )


def build(issuer: str, url: str) -> MCPServer[Any]:
    auth = AuthSettings(
        issuer_url=AnyHttpUrl(issuer),
        resource_server_url=AnyHttpUrl(url),
        required_scopes=["files:read"],
        validate_token_resource=True,
    )
    server: MCPServer[Any] = MCPServer("files", token_verifier=JwtVerifier(issuer, url), auth=auth)

    @server.tool()
    def whoami() -> str:
        """For whom the token was made out."""
        token = get_access_token()
        return "nobody" if token is None else str(token.subject)

    return server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--issuer", required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    server = build(options.issuer, f"http://127.0.0.1:{options.port}/mcp")
    listen_and_serve(server.streamable_http_app(), options.port)


if __name__ == "__main__":
    main()
