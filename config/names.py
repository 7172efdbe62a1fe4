"""The names under which servers of other programs' files are served: made of the names as written, by a fixed rule. Pure.

Source: ours. "Framelink MCP for Figma" or "@21st-dev/magic" can stand neither in the name of a tool nor in a route.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import count
from typing import Final

LONGEST_NAME: Final = 30
"""With its two underscores, a prefix has 32 characters: that leaves half of a tool's name to the tool."""

_DIGEST_LENGTH: Final = 6
_NO_LETTER: Final = "mcp"  # stands before a name that begins with a digit, and for one of which nothing can be kept


def served_names(written: Sequence[str], taken: Collection[str] = ()) -> list[str]:
    """A name for each, in their order: lower case, a letter, then letters, digits, "-" and "_", never two of those in a row.

    A name that is so already is kept. Where several come to the same, or one is too long, six digits made of the name as written
    end it; so none depends on what else is in the file, but for those it would be mistaken for.
    taken: names that are in use; those that differ only in case, or in "_" for "-", count as the same.
    """
    plain = [_plain(name) for name in written]
    clashes = Counter(_folded(name) for name in plain)
    used = {_folded(name) for name in taken}
    served: dict[int, str] = {}
    kept = [index for index, name in enumerate(plain) if name == written[index]]
    for index in dict.fromkeys((*kept, *range(len(plain)))):
        name = plain[index]
        is_clear = bool(name) and len(name) <= LONGEST_NAME and (name == written[index] or clashes[_folded(name)] == 1)
        if not is_clear or _folded(name) in used:
            name = next(each for each in _numbered(name, written[index]) if _folded(each) not in used)
        used.add(_folded(name))
        served[index] = name
    return [served[index] for index in range(len(plain))]


def _plain(written: str) -> str:
    """The name in the letters that may be used, of whatever length; "" where there are none."""
    text = unicodedata.normalize("NFKD", written.casefold())
    text = re.sub("[\u0300-\u036f]", "", text)  # the accents that NFKD has parted from their letters
    text = re.sub(r"[^a-z0-9_]+", "-", text)
    text = re.sub(r"[-_]{2,}", lambda run: "-" if "-" in run[0] else "_", text).strip("-_")
    return text if not text or text[0].isalpha() else f"{_NO_LETTER}-{text}"


def _numbered(plain: str, written: str) -> Iterator[str]:
    stem = (plain or _NO_LETTER)[: LONGEST_NAME - _DIGEST_LENGTH - 1].rstrip("-_")
    for attempt in count():
        digest = zlib.crc32(f"{written}{attempt or ''}".encode("utf-8", "surrogatepass"))
        yield f"{stem}-{digest:08x}"[: len(stem) + 1 + _DIGEST_LENGTH]


def _folded(name: str) -> str:
    """What tells backends apart: the scheme of their resources knows neither case nor "_"."""
    return name.lower().replace("_", "-")
