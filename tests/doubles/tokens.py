"""An issuer's keys, and tokens made by them as any test wants them, also such as no issuer would make."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import attrs
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

ISSUER = "https://id.example"
PUBLIC_URL = "https://gateway.example"


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def compact(header: dict[str, Any] | bytes, claims: dict[str, Any] | bytes, signature: bytes) -> str:
    """The three parts as they are, whoever may have signed what."""
    parts = (part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims))
    return ".".join(map(base64url, (*parts, signature)))


@attrs.frozen
class IssuerKey:
    """A key pair. algorithm: what it signs with."""

    key_id: str
    algorithm: str
    private: Any = attrs.field(repr=False)

    @classmethod
    def make(cls, key_id: str, algorithm: str = "ES256") -> IssuerKey:
        if algorithm.startswith("ES"):
            curve = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}[algorithm]()
            return cls(key_id, algorithm, ec.generate_private_key(curve))
        if algorithm == "EdDSA":
            return cls(key_id, algorithm, ed25519.Ed25519PrivateKey.generate())
        return cls(key_id, algorithm, rsa.generate_private_key(65_537, 2_048))

    def jwk(self, **members: Any) -> dict[str, Any]:
        """The public half; a member given as None is left out."""
        own = get_default_algorithms()[self.algorithm].to_jwk(self.private.public_key(), as_dict=True)
        jwk = {**own, "kid": self.key_id, "use": "sig", "alg": self.algorithm, **members}
        jwk.pop("key_ops", None)
        return {name: value for name, value in (jwk | members).items() if value is not None}

    def sign(self, data: bytes, algorithm: str = "") -> bytes:
        return bytes(get_default_algorithms()[algorithm or self.algorithm].sign(data, self.private))

    def token(self, claims: dict[str, Any] | None = None, header: dict[str, Any] | None = None) -> str:
        """A token that is right, but for what is given; a member given as None is left out."""
        head = {"typ": "at+jwt", "alg": self.algorithm, "kid": self.key_id, **(header or {})}
        head = {name: value for name, value in head.items() if value is not None}
        body = {name: value for name, value in (right_claims() | (claims or {})).items() if value is not None}
        signed = compact(head, body, b"").rstrip(".")
        return f"{signed}.{base64url(self.sign(signed.encode()))}"


def right_claims() -> dict[str, Any]:
    now_s = int(time.time())
    return {
        "iss": ISSUER,
        "aud": f"{PUBLIC_URL}/mcp",
        "sub": "alice",
        "client_id": "inspector",
        "exp": now_s + 300,
        "iat": now_s,
        "scope": "mcp:tools files:read",
        "groups": ["staff", "dev"],
    }


def jwks(*keys: IssuerKey) -> bytes:
    return json.dumps({"keys": [key.jwk() for key in keys]}).encode()


def logout_claims(now_s: float) -> dict[str, Any]:
    """Of a logout token for the client "gateway". Source: OpenID Connect Back-Channel Logout 1.0, section 2.4."""
    return {
        "iss": ISSUER,
        "aud": "gateway",
        "sub": "alice",
        "iat": int(now_s),
        "exp": int(now_s) + 120,
        "jti": "once",
        "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
        "client_id": None,
        "scope": None,
        "groups": None,
    }
