"""Finds tools by what somebody wants to do: BM25 over names, descriptions and arguments. Pure, without a model.

Source: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), section 3; fields are weighed as
in BM25F, by counting a word several times. The weights are ours.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw

_SATURATION: Final = 1.2
_LENGTH_MATTERS: Final = 0.5
_NAME, _TITLE, _DESCRIPTION, _ARGUMENT = 4, 3, 2, 1
_MOST_CHARACTERS: Final = 4_096
"""Of a text that are looked at: a server does not come first by saying everything."""
_MOST_AT_ONCE: Final = 2_000_000
"""Characters of all tools together: who builds an index holds up the others. Of very many tools less is looked at of each."""
_MOST_COUNTED: Final = 8
"""Times that a word counts, of however many: what is said again and again is long, but not more to the point."""
_MOST_QUESTION_WORDS: Final = 50
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_WORD: Final = re.compile(r"[^\W_]+")
_EMPTY: Final = (
    "a an and are as at be by can do does for from get have how i if in into is it its me my of on or our please that the their"
    " this to tool use want was what when where which who will with would you your all"
)
_EMPTY_WORDS: Final = frozenset(_EMPTY.split())
_ENDINGS: Final = (("ies", "y"), ("sses", "ss"), ("ches", "ch"), ("shes", "sh"), ("xes", "x"), ("s", ""))


class _Tool(msgspec.Struct):
    name: Any = ""
    title: Any = ""
    description: Any = ""
    inputSchema: Any = None


_decode_tool = msgspec.json.Decoder(_Tool).decode


def words_of(text: str) -> list[str]:
    """The words of a text or a name that tell something, each in one form: `readFiles` and "read a file" have the same."""
    found = (word.lower() for word in _WORD.findall(_CAMEL.sub(" ", text)))
    return [_stem(word) for word in found if word not in _EMPTY_WORDS]


def _stem(word: str) -> str:
    """The singular; longer rules find more and tell less apart."""
    if len(word) <= 3 or word.endswith(("ss", "us", "is")):
        return word
    for ending, instead in _ENDINGS:
        if word.endswith(ending):
            return word[: -len(ending)] + instead
    return word


class ToolIndex:
    """tools: as lists show them, in their order."""

    def __init__(self, tools: Sequence[Mapping[str, Raw]]) -> None:
        self._places: dict[str, list[tuple[int, int]]] = defaultdict(list)  # {word: (tool, how often) of each that has it}
        lengths = []
        room = min(_MOST_CHARACTERS, _MOST_AT_ONCE // max(1, len(tools)))
        for place, tool in enumerate(tools):
            counted = _counted(tool, room)
            lengths.append(sum(counted.values()))
            for word, count in counted.items():
                self._places[word].append((place, min(count, _MOST_COUNTED)))
        average = sum(lengths) / len(lengths) if lengths else 1.0
        self._damping = [_SATURATION * (1 - _LENGTH_MATTERS + _LENGTH_MATTERS * length / (average or 1.0)) for length in lengths]

    def find(self, question: str, most: int) -> list[int]:
        """The places of the tools that fit best, the best first; of equals the first of the list."""
        scores: dict[int, float] = defaultdict(float)
        for word in dict.fromkeys(words_of(question)[:_MOST_QUESTION_WORDS]):
            having = self._places.get(word, ())
            rarity = math.log(1 + (len(self._damping) - len(having) + 0.5) / (len(having) + 0.5))
            for place, count in having:
                scores[place] += rarity * count * (_SATURATION + 1) / (count + self._damping[place])
        return sorted(scores, key=lambda place: (-scores[place], place))[:most]


def _counted(tool: Mapping[str, Raw], room: int) -> Counter[str]:
    """{word: its weight}. room: for characters of the tool; names and titles come first."""
    counted: Counter[str] = Counter()
    read = _decode_tool(msgspec.json.encode(tool))
    texts = [(_NAME, read.name), (_TITLE, read.title), (_DESCRIPTION, read.description)]
    for weight, text in (*texts, *((_ARGUMENT, text) for text in _argument_texts(read.inputSchema))):
        if isinstance(text, str) and room > 0:
            for word in words_of(text[:room]):
                counted[word] += weight
            room -= len(text)
    return counted


def _argument_texts(schema: object) -> Iterator[object]:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    for name, said in properties.items() if isinstance(properties, dict) else ():
        yield name
        yield said.get("description") if isinstance(said, dict) else None
