"""Patterns of policies over names, topics and URIs, and over what stands for many of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote

from mcp_gateway.transports.protocol.merging.wildcard import Wildcard

_EVERY_TOPIC: Final = ("all", "*")


class NamePatterns:
    """Some patterns, of which one must match; "*" stands for any text."""

    def __init__(self, patterns: Iterable[str]) -> None:
        patterns = tuple(patterns)
        self._exact = frozenset(each for each in patterns if "*" not in each)
        self._wildcards = tuple(Wildcard(each) for each in patterns if "*" in each)
        self._ends = tuple((each.partition("*")[0], each.rpartition("*")[2]) for each in patterns if "*" in each)

    def match(self, text: str) -> bool:
        return text in self._exact or any(each.matches(text) for each in self._wildcards)

    def match_any(self, texts: Iterable[str]) -> bool:
        return any(map(self.match, texts))

    def match_all_from(self, start: str) -> bool:
        """Whether one pattern matches every text that begins so."""
        return any(each.pattern.endswith("*") and each.matches(start) for each in self._wildcards)

    def may_match_between(self, start: str, end: str) -> bool:
        """Whether a pattern could match a text that begins and ends so; sometimes true where none does, never the other way."""
        return any(each.startswith(start) and each.endswith(end) for each in self._exact) or any(
            _agree(head, start) and _agree(tail[::-1], end[::-1]) for head, tail in self._ends
        )


def topics_from(pattern: str) -> str | None:
    """How all topics begin that a pattern of the event bus stands for; None where it is one topic."""
    if pattern in _EVERY_TOPIC:
        return ""
    return pattern.removesuffix("*") if pattern.endswith(".*") else None


def template_ends(template: str) -> tuple[str, str]:
    """What every URI of a template begins and ends with. Source: RFC 6570, section 2: expressions stand in braces."""
    return template.partition("{")[0], template.rpartition("}")[2] if "}" in template else template


def plain_uri(uri: str) -> str:
    """The URI as the most lenient server reads it: no escapes, no dot segments, one slash where there are several.

    Source: RFC 3986, section 6.2.2, "Syntax-Based Normalization".
    """
    scheme, colon, rest = uri.partition(":") if ":" in uri else ("", "", uri)
    rest = unquote(rest).replace("\\", "/")
    authority = ""
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        authority, rest = f"//{host.lower()}", slash + path
    segments: list[str] = []
    for segment in rest.split("/"):
        if segment == ".." and segments:
            segments.pop()
        elif segment not in ("", ".", ".."):
            segments.append(segment)
    path = "/".join(segments)
    begin = "/" if rest.startswith("/") else ""
    end = "/" if rest.endswith(("/", "/.", "/..")) and segments else ""
    return f"{scheme.lower()}{colon}{authority}{begin}{path}{end}"


def _agree(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)
