"""Patterns of policies over names, topics and URIs, and over what stands for many of them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote

from mcp_gateway.transports.protocol.merging.wildcard import Wildcard

_TRIMMED: Final = "".join(map(chr, range(0x21)))
_REMOVED: Final = re.compile("[\t\n\r]")
_PORT: Final = re.compile(r"^([^/]*//[^/]*?):[0-9]*(?=/|$)")
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


def plain_uris(uri: str) -> tuple[str, ...]:
    """The URI as lenient servers read it: no escapes, no dot segments, one slash where there are several, no user before a host.

    As RFC 3986 has it; and as those do for whom all that follows the scheme is a path, out of which dot segments may lead.

    Source: RFC 3986, section 6.2.2, "Syntax-Based Normalization"; for what is removed before anything is read WHATWG URL, "basic
    URL parser", steps 1 to 3.
    """
    uri = _REMOVED.sub("", uri.strip(_TRIMMED))
    scheme, colon, rest = uri.partition(":") if ":" in uri else ("", "", uri)
    rest = unquote(rest).replace("\\", "/")
    begin = f"{scheme.lower()}{colon}"
    if not rest.startswith("//"):
        return (begin + _without_dots(rest),)
    authority, slash, path = rest[2:].partition("/")
    host = authority.rpartition("@")[2].lower()
    found = [f"{begin}//{host}{_without_dots(slash + path)}"]
    if "/.." in path or path.startswith("..") or authority in (".", ".."):
        found.append(f"{begin}//{_without_dots(rest[2:])}")
    return tuple(found)


def bare_uris(uri: str) -> tuple[str, ...]:
    """The same without port, query and fragment, which servers of files and folders pass over: what they may serve by it."""
    return tuple(_PORT.sub(r"\1", each) for each in plain_uris(re.split("[?#]", uri, maxsplit=1)[0]))


def _without_dots(path: str) -> str:
    segments: list[str] = []
    for segment in path.split("/"):
        if segment == ".." and segments:
            segments.pop()
        elif segment not in ("", ".", ".."):
            segments.append(segment)
    begin = "/" if path.startswith("/") else ""
    end = "/" if path.endswith(("/", "/.", "/..")) and segments else ""
    return f"{begin}{'/'.join(segments)}{end}"


def _agree(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)
