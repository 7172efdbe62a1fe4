"""What reaches a terminal is what is there: no control, no turned direction, nothing invisible."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.config.shown_text import shown, shown_json, shown_lines

BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"
INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad\U000e0041"
CONTROLS = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0)]))
ANY = st.text(st.characters() | st.sampled_from(BIDI + INVISIBLE + CONTROLS + "\u2028\u2029\ud800"))


def is_harmless(text: str) -> bool:
    return not any(unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp") for each in text)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("", ""),
        ("plain, Grüße, 日本語, 🙂", "plain, Grüße, 日本語, 🙂"),
        ("\x1b[2J\x07", r"\x1b[2J\x07"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("\x9b31m\x7f", r"\x9b31m\x7f"),
        ("\u202eexe.txt\u2066", r"\u202eexe.txt\u2066"),
        ("pay\u200bpal\ufeff", r"pay\u200bpal\ufeff"),
        ("\U000e0041\ud800\u2028", r"\U000e0041\ud800\u2028"),
    ],
)
def test_what_cannot_be_seen_stands_as_its_escape(text: str, seen: str) -> None:
    assert shown(text) == seen


@given(ANY)
def test_whatever_the_text_is_nothing_of_it_moves_a_terminal(text: str) -> None:
    assert is_harmless(shown(text))
    assert shown(shown(text)) == shown(text)
    assert is_harmless(shown_lines(text).replace("\n", ""))
    assert shown_lines(text).count("\n") == text.count("\n")


@given(st.recursive(ANY | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(ANY, inner), max_leaves=6))
def test_json_that_is_shown_is_the_same_value_and_as_harmless(value: object) -> None:
    for indent in (None, 2):
        text = shown_json(value, indent=indent)
        assert is_harmless(text.replace("\n", ""))
        assert json.loads(text) == json.loads(json.dumps(value))
    assert "\n" not in shown_json(value)
