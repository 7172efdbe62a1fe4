"""What an authorization server answers at its token endpoint, and what is kept of it. Pure.

Source: RFC 6749, sections 5.1, 5.2 and 6; RFC 8693, section 2.2.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

_SOON_MS: Final = 30_000
"""A token that ends within that time is as good as none: the request would arrive after its end."""

_LONGEST_TOKEN: Final = 16_384
_LONGEST_LIFE_S: Final = 10 * 365 * 86_400
_WORDS: Final = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]{0,100}")
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class TokenRefused(Exception):
    """The authorization server gives no token. code: its own word for it ("invalid_grant"), or "" where it said nothing clear.

    The text is for people and holds nothing that came from it but the code.
    """

    def __init__(self, text: str, code: str = "") -> None:
        super().__init__(text)
        self.code = code

    @property
    def is_final(self) -> bool:
        """Whether what was shown is worth nothing any more, rather than that the server fails today."""
        return self.code in ("invalid_grant", "invalid_client", "unauthorized_client", "invalid_target", "invalid_scope")


class Tokens(msgspec.Struct, frozen=True, array_like=True):
    """What a user, or the gateway, has at a server. expires_ms: of the access token, since the epoch; 0 where nobody knows."""

    access: str
    refresh: str
    scopes: tuple[str, ...]
    expires_ms: int

    def __repr__(self) -> str:
        return "Tokens(…)"

    def ends_soon(self, now_ms: int) -> bool:
        return bool(self.expires_ms) and now_ms >= self.expires_ms - _SOON_MS

    @property
    def authorization(self) -> str:
        """As the header `Authorization` has it. Source: RFC 6750, section 2.1."""
        return f"Bearer {self.access}"


def read_tokens(status: int, body: bytes, now_ms: int, *, asked: tuple[str, ...], former: Tokens | None = None) -> Tokens:
    """What a token request has brought. asked: the scopes it asked for, which hold where the answer names none; former: whose
    refresh token it has used, which goes on where the answer has no new one.

    Raises: TokenRefused.
    """
    try:
        document = _decode(body)
    except (msgspec.DecodeError, RecursionError):
        raise TokenRefused(f"the authorization server answered with status {status} and no JSON object") from None
    if status != 200:
        code = document.get("error")
        code = code if isinstance(code, str) and _WORDS.fullmatch(code) else ""
        raise TokenRefused(f"the authorization server refuses: {code or f'status {status}'}", code)
    access, kind, scope = document.get("access_token"), document.get("token_type"), document.get("scope")
    if not isinstance(access, str) or len(access) > _LONGEST_TOKEN or _VISIBLE.fullmatch(access) is None:
        raise TokenRefused("the authorization server's answer has no valid access_token")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise TokenRefused("the authorization server gives tokens that are no bearer tokens")
    refresh = document.get("refresh_token")
    if not isinstance(refresh, str) or not refresh or len(refresh) > _LONGEST_TOKEN:
        refresh = former.refresh if former is not None else ""
    return Tokens(access, refresh, tuple(scope.split()) if isinstance(scope, str) else asked, _end_ms(document, now_ms))


def _end_ms(document: dict[str, Any], now_ms: int) -> int:
    life_s = document.get("expires_in")
    if isinstance(life_s, str) and life_s.isascii() and life_s.isdigit() and len(life_s) < 12:
        life_s = int(life_s)  # some write it as a string
    if isinstance(life_s, bool) or not isinstance(life_s, int | float) or not 0 <= life_s <= _LONGEST_LIFE_S:
        return 0
    return now_ms + int(life_s * 1_000)
