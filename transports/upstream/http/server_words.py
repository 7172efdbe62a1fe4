"""What a server said where it gave no answer, made fit to be shown to clients: bounded, legible and without secrets. Pure."""

from __future__ import annotations

import email.utils
import html
import re
import unicodedata
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlsplit

import msgspec

from mcp_gateway.config.backend_settings import BackendSettings

MAX_CHARACTERS: Final = 500
_READ_CHARACTERS: Final = 8_192
_LARGEST_ERROR_BYTES: Final = 2_000
_LONGEST_RETRY_AFTER_S: Final = 86_400.0
_SHORTEST_VALUE: Final = 6
"""Shorter values of an environment are hardly secrets, and words of their own: "1", "info"."""
_SHORTEST_CREDENTIAL: Final = 4
_SHORTEST_PATH: Final = 6
"""`/mcp` and `/sse` tell nothing."""
_URL: Final = re.compile(r"""([a-z][a-z0-9+.-]{0,20}://)(?:[^\s/@"'<>]{0,200}@)?([^\s?#"'<>]*)([?#][^\s"'<>]*)?""", re.IGNORECASE)
_UNSHOWN: Final = re.compile(r"<(script|style|head)\b.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
_TAG: Final = re.compile(r"<[^<>]*>")


class ServerWords:
    """Cleans what one backend says of everything that it was given in confidence."""

    def __init__(self, backend: BackendSettings) -> None:
        secrets = set(_credentials(backend.headers.values(), backend.replicas))
        secrets |= set(_places(backend.replicas))
        secrets |= {value for value in backend.env.values() if len(value) >= _SHORTEST_VALUE}
        secrets |= {quote(secret, safe="") for secret in secrets}
        self._secrets = sorted(secrets, key=len, reverse=True)

    def text(self, said: str | bytes) -> str:
        """At most `MAX_CHARACTERS` of one line; of a page only what a person would read."""
        text = (said if isinstance(said, str) else said[: 4 * _READ_CHARACTERS].decode(errors="replace"))[:_READ_CHARACTERS]
        if text.lstrip().startswith("<"):
            text = html.unescape(_TAG.sub(" ", _UNSHOWN.sub(" ", text)))
        text = " ".join("".join(_shown(character) for character in text).split())
        for secret in self._secrets:
            text = text.replace(secret, "***")
        text = _URL.sub(lambda found: f"{found[1]}{found[2]}{found[3][0] + '***' if found[3] else ''}", text)
        return text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 4] + " ..."

    def error(self, error: bytes, said: bytes = b"") -> bytes:
        """The JSON-RPC error, or what else was said as a JSON string; b"" where there was nothing.

        error: as JSON, b"" for none.
        """
        if not error:
            text = self.text(said)
            return msgspec.json.encode(text) if text else b""
        try:
            members: dict[str, Any] = msgspec.json.decode(error, type=dict[str, Any])
            cleaned = msgspec.json.encode(self._cleaned(members))
            if len(cleaned) > _LARGEST_ERROR_BYTES:
                short = {name: members[name] for name in ("code", "message") if name in members}
                cleaned = msgspec.json.encode(self._cleaned(short))
        except (msgspec.DecodeError, RecursionError):
            return self.error(b"", error)
        return cleaned if len(cleaned) <= 2 * _LARGEST_ERROR_BYTES else self.error(b"", error)

    def _cleaned(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self._cleaned(each) for each in value]
        if isinstance(value, dict):
            return {self.text(name): self._cleaned(each) for name, each in value.items()}
        return value


def retry_after_s(value: str | None, now_s: float) -> float | None:
    """Seconds to wait from now, from a `Retry-After` header; None where it says nothing that can be read.

    now_s: seconds since the epoch. Source: RFC 9110, section 10.2.3.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), _LONGEST_RETRY_AFTER_S)
    try:
        wait_s = email.utils.parsedate_to_datetime(value).timestamp() - now_s
    except (ValueError, OverflowError, TypeError, OSError):
        return None
    return min(max(wait_s, 0.0), _LONGEST_RETRY_AFTER_S)


def _credentials(header_values: Iterable[str], urls: Iterable[str]) -> Iterable[str]:
    """Whole values, and the part after a scheme such as `Bearer`, which is what a server repeats."""
    found = [part for value in header_values for part in (value.strip(), value.strip().rpartition(" ")[2])]
    for url in urls:
        parts = urlsplit(url)
        found += [parts.query, parts.username or "", parts.password or "", *(value for _, value in parse_qsl(parts.query))]
    return [value for value in found if len(value) >= _SHORTEST_CREDENTIAL]


def _places(urls: Iterable[str]) -> Iterable[str]:
    """Where servers are: one that repeats its request names its host and path. Paths that say nothing are left to be read."""
    for url in urls:
        parts = urlsplit(url)
        yield parts.netloc.rpartition("@")[2]
        if parts.hostname and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            yield parts.hostname
        if len(parts.path) >= _SHORTEST_PATH:
            yield parts.path


def _shown(character: str) -> str:
    """Control characters part words; those of direction, without width or without a meaning are left out."""
    if character.isprintable() or character.isspace():
        return character
    return " " if unicodedata.category(character) == "Cc" else ""
