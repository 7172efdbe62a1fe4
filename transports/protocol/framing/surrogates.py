"""Escapes of half a character, as programs write them that cut a text in the middle of one.

JSON's grammar has them, and what they mean is open; UTF-8 cannot carry them. Source: RFC 8259, section 8.2.
"""

from __future__ import annotations

import re

_ESCAPE = re.compile(rb"(\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


def without_halves(text: bytes) -> bytes:
    """The JSON with each half replaced by U+FFFD; the same object where there is none."""
    return _ESCAPE.sub(lambda found: found[1] or b"\\ufffd", text) if b"\\u" in text else text
