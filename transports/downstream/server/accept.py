"""What forms of an answer a client takes, by its header Accept. Pure. Source: RFC 9110, section 12.5.1."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

EVENTS = "text/event-stream"
JSON = "application/json"


_LONGEST_KEPT: Final = 500


def quality(accept: str, media_type: str) -> float | None:
    """How much the client likes this media type, from 0 (not at all) to 1; None where its header does not speak of it.

    The most specific range that matches decides.
    """
    return (_kept_quality if len(accept) <= _LONGEST_KEPT else _quality)(accept, media_type)


def _quality(accept: str, media_type: str) -> float | None:
    kind = media_type.partition("/")[0]
    found = dict(_ranges(accept))
    return next((found[each] for each in (media_type, f"{kind}/*", "*/*") if each in found), None)


_kept_quality = lru_cache(maxsize=256)(_quality)  # clients send the same few with every request


def refuses(accept: str, media_type: str) -> bool:
    """Whether the client says that it does not take this; saying nothing of it is no refusal, many clients are sloppy there."""
    return quality(accept, media_type) == 0


def names(accept: str, media_type: str) -> bool:
    """Whether the client asks for this very media type, not only for anything."""
    return (dict(_ranges(accept)).get(media_type) or 0) > 0


def _ranges(accept: str) -> Iterator[tuple[str, float]]:
    for each in accept.lower().split(","):
        media_range, *parameters = (part.strip() for part in each.split(";"))
        yield media_range, next((_weight(part[2:]) for part in parameters if part.startswith("q=")), 1.0)


def _weight(text: str) -> float:
    """What is no number says nothing."""
    digits = text.strip()
    if not digits.isascii() or not digits.replace(".", "", 1).isdigit():
        return 1.0
    return min(1.0, float(digits))
