"""What a setting may be: rules that judge one value and word what is wrong for the person who wrote the file."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import attrs

_LONGEST_QUOTE = 60
_LARGEST_PLAIN_INTEGER = 10**18
# Everything up to the last "@" may be a user and a password, everything after "?" or "#" may be a token.
_BEFORE_AT = re.compile(r"^(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)?.*@", re.DOTALL)
_AFTER_PATH = re.compile(r"[?#].*", re.DOTALL)


@attrs.frozen(kw_only=True)
class SettingProblem:
    """One thing wrong with one setting.

    key:     where, relative to whoever found it ("pool_size", "replicas[0]"); "" is the table itself.
    found:   what is there, quoted and short; never a secret.
    allowed: what may be there, as a phrase.
    """

    key: str
    found: str
    allowed: str

    def __str__(self) -> str:
        verdict = f"found {self.found}; allowed: {self.allowed}"
        return f"{self.key}: {verdict}" if self.key else verdict


class InvalidSetting(ValueError):
    """A settings class was built from values that its rules refuse. `problem` is the first of them."""

    def __init__(self, problem: SettingProblem) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return str(self.problem)


def kind_of(value: object) -> str:
    """Name the kind of a value without showing it; the only description a secret gets."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a number"
        case str():
            return "a string" if value else "an empty string"
        case list() | tuple():
            return "an array" if value else "an empty array"
        case Mapping():
            return "a table"
        case _:
            return "a date or time" if type(value).__module__ == "datetime" else "a value of another kind"


def quote(value: object) -> str:
    """Show a value on one short line, spelled as in the file; never raises, whatever its size."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() if abs(value) > _LARGEST_PLAIN_INTEGER:
            return "a huge integer"  # repr() refuses more than 4300 digits
        case int() | float():
            return repr(value)
        case str():
            return repr(value) if len(value) <= _LONGEST_QUOTE else f"{value[:_LONGEST_QUOTE]!r}…"
        case _:
            return kind_of(value)


def quote_url(value: object) -> str:
    """Show a URL without the user, the password and the query it may carry."""
    if not isinstance(value, str):
        return quote(value)
    return quote(_AFTER_PATH.sub("?…", _BEFORE_AT.sub(lambda match: (match["scheme"] or "") + "…@", value)))


class Rule:
    """Judges one value. Serves as an attrs validator; the loader asks `problems` to collect them all."""

    allowed: str = ""

    def problems(self, key: str, value: object) -> Iterator[SettingProblem]:
        """Yield what is wrong with the value; nothing when it may be used."""
        raise NotImplementedError

    def json_schema(self) -> dict[str, Any]:
        """What JSON Schema can say of it, for editors: never less than may be used."""
        raise NotImplementedError

    def __call__(self, instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        for problem in self.problems(attribute.name, value):
            raise InvalidSetting(problem)


class Whole(Rule):
    """An integer of a range; `word` is one string allowed instead ("auto"). A boolean is not an integer."""

    def __init__(self, lowest: int, highest: int, *, word: str | None = None) -> None:
        self.lowest, self.highest, self.word = lowest, highest, word
        self.allowed = f"an integer from {lowest} to {highest}" + (f' or "{word}"' if word else "")

    def problems(self, key: str, value: object) -> Iterator[SettingProblem]:
        if self.word is not None and isinstance(value, str) and value == self.word:
            return
        if isinstance(value, bool) or not isinstance(value, int) or not self.lowest <= value <= self.highest:
            yield SettingProblem(key=key, found=quote(value), allowed=self.allowed)

    def json_schema(self) -> dict[str, Any]:
        number = {"type": "integer", "minimum": self.lowest, "maximum": self.highest}
        return number if self.word is None else {"anyOf": [number, {"const": self.word}]}


class Number(Rule):
    """A finite number of a range, such as a duration in seconds; 0 as well where it means "off" or "at once"."""

    def __init__(self, lowest: float, highest: float, *, unit: str = "seconds", zero_means: str | None = None) -> None:
        self.lowest, self.highest, self.zero_means = lowest, highest, zero_means
        self.allowed = f"a number of {unit} from {lowest:.15g} to {highest:.15g}"
        if zero_means is not None:
            self.allowed += f", or 0 ({zero_means})"

    def problems(self, key: str, value: object) -> Iterator[SettingProblem]:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if self.zero_means is not None and value == 0:
                return
            if self.lowest <= value <= self.highest and (isinstance(value, int) or math.isfinite(value)):
                return
        yield SettingProblem(key=key, found=quote(value), allowed=self.allowed)

    def json_schema(self) -> dict[str, Any]:
        number = {"type": "number", "minimum": self.lowest, "maximum": self.highest}
        return number if self.zero_means is None else {"anyOf": [number, {"const": 0}]}


class Flag(Rule):
    """true or false."""

    allowed = "true or false"

    def problems(self, key: str, value: object) -> Iterator[SettingProblem]:
        if not isinstance(value, bool):
            yield SettingProblem(key=key, found=quote(value), allowed=self.allowed)

    def json_schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


class Text(Rule):
    """A string that matches a pattern as a whole; `show` words the refused value and hides what may be secret."""

    def __init__(self, pattern: str, allowed: str, *, longest: int, show: Callable[[object], str] = quote) -> None:
        self.pattern = re.compile(pattern)
        self.allowed = allowed
        self.longest = longest
        self.show = show

    def problems(self, key: str, value: object) -> Iterator[SettingProblem]:
        if not isinstance(value, str) or len(value) > self.longest or self.pattern.fullmatch(value) is None:
            yield SettingProblem(key=key, found=self.show(value), allowed=self.allowed)

    def json_schema(self) -> dict[str, Any]:
        # Editors search for patterns of ECMA-262, which these are, too.
        return {"type": "string", "maxLength": self.longest, "pattern": f"^(?:{self.pattern.pattern})$"}


class Network(Rule):
    """An IP address, or a network of them."""

    allowed = "an IP address, or a network such as 10.0.0.0/8 without bits beyond its length"

    def problems(self, key: str, value: object) -> Iterator[SettingProblem]:
        try:
            if isinstance(value, str):
                ipaddress.ip_network(value)
                return
        except ValueError:
            pass
        yield SettingProblem(key=key, found=quote(value), allowed=self.allowed)

    def json_schema(self) -> dict[str, Any]:
        return {"type": "string"}


class OneOf(Rule):
    """One of a few words; None as well where the setting may be left out."""

    def __init__(self, *words: str, or_none: bool = False) -> None:
        self.words, self.or_none = words, or_none
        self.allowed = ", ".join(f'"{word}"' for word in words)
        if len(words) > 1:
            self.allowed = f"one of {self.allowed}"

    def problems(self, key: str, value: object) -> Iterator[SettingProblem]:
        if value is None and self.or_none:
            return
        if not isinstance(value, str) or value not in self.words:
            yield SettingProblem(key=key, found=quote(value), allowed=self.allowed)

    def json_schema(self) -> dict[str, Any]:
        return {"enum": [*self.words, *([None] if self.or_none else [])]}


class Sources(Rule):
    """Names joined by "|" in order of preference, such as "user|session|ip": where a key is taken from."""

    def __init__(self, words: Collection[str], named: Collection[str]) -> None:
        self.words, self.named = frozenset(words), frozenset(named)
        forms = [*sorted(words), *(f"{kind}:NAME" for kind in sorted(named))]
        self.allowed = f'names joined by "|", each once, out of {", ".join(forms)}'

    def problems(self, key: str, value: object) -> Iterator[SettingProblem]:
        if not isinstance(value, str) or not self._is_list(value):
            yield SettingProblem(key=key, found=quote(value), allowed=self.allowed)

    def json_schema(self) -> dict[str, Any]:
        return {"type": "string", "maxLength": 1_000}

    def _is_list(self, value: str) -> bool:
        parts = [part.strip() for part in value.split("|")]
        return len(value) <= 1_000 and len(set(parts)) == len(parts) and all(self._is_source(part) for part in parts)

    def _is_source(self, part: str) -> bool:
        kind, colon, name = part.partition(":")
        if not colon:
            return kind in self.words
        # RFC 9110 section 5.6.2: what the name of a header may consist of; names of arguments need no more.
        return kind in self.named and re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`~-]+", name) is not None


class Each(Rule):
    """An array whose elements keep a rule; all problems of all elements are told."""

    def __init__(self, element: Rule, *, most: int, fewest: int = 0, show_element: Callable[[object], str] = quote) -> None:
        self.element, self.fewest, self.most, self.show_element = element, fewest, most, show_element
        self.allowed = f"an array of {element.allowed}"

    def problems(self, key: str, value: object) -> Iterator[SettingProblem]:
        if not isinstance(value, (list, tuple)):
            yield SettingProblem(key=key, found=kind_of(value), allowed=self.allowed)
            return
        if not self.fewest <= len(value) <= self.most:
            yield SettingProblem(key=key, found=f"{len(value)} elements", allowed=f"{self.fewest} to {self.most} elements")
            return
        seen: dict[str, int] = {}
        for index, element in enumerate(value):
            wrong = list(self.element.problems(f"{key}[{index}]", element))
            yield from wrong
            if not wrong and isinstance(element, str) and seen.setdefault(element, index) != index:
                found = f"{self.show_element(element)} again"
                yield SettingProblem(key=f"{key}[{index}]", found=found, allowed=f"each once ({key}[{seen[element]}] has it)")

    def json_schema(self) -> dict[str, Any]:
        bounds = {"minItems": self.fewest, "maxItems": self.most, "uniqueItems": True}
        return {"type": "array", "items": self.element.json_schema(), **bounds}


class Words(Rule):
    """The program and the arguments of a command: the same word may come twice, and any of them may be a secret."""

    allowed = "an array of 1 to 1000 strings without NUL, the first one not empty"

    def problems(self, key: str, value: object) -> Iterator[SettingProblem]:
        if not isinstance(value, (list, tuple)):
            yield SettingProblem(key=key, found=kind_of(value), allowed=self.allowed)
            return
        if len(value) > 1_000:
            yield SettingProblem(key=key, found=f"{len(value)} strings", allowed=self.allowed)
            return
        for index, word in enumerate(value):
            if not isinstance(word, str) or not is_plain_text(word):
                found = kind_of(word) if not isinstance(word, str) else "a string with NUL or broken Unicode"
                yield SettingProblem(key=f"{key}[{index}]", found=found, allowed="a string without NUL")
            elif index == 0 and not word:
                yield SettingProblem(key=f"{key}[0]", found="an empty string", allowed="the name or path of a program")

    def json_schema(self) -> dict[str, Any]:
        return {"type": "array", "items": {"type": "string"}, "maxItems": 1_000}


class Table(Rule):
    """A table with some of these keys, each with a rule of its own."""

    def __init__(self, **rules: Rule) -> None:
        self.rules = rules
        self.allowed = f"a table with {', '.join(rules)}"

    def problems(self, key: str, value: object) -> Iterator[SettingProblem]:
        if not isinstance(value, Mapping):
            yield SettingProblem(key=key, found=kind_of(value), allowed=self.allowed)
            return
        for name, inner in value.items():
            where = f"{key}.{name_part(name)}"
            if name in self.rules:
                yield from self.rules[name].problems(where, inner)
            else:
                yield SettingProblem(key=where, found="an unknown key", allowed=", ".join(self.rules))

    def json_schema(self) -> dict[str, Any]:
        properties = {name: rule.json_schema() for name, rule in self.rules.items()}
        return {"type": "object", "properties": properties, "additionalProperties": False}


class SecretTable(Rule):
    """A table of strings whose values are never shown. `name_allowed` and `value_allowed` word the two patterns."""

    def __init__(
        self, *, name: str, name_allowed: str, value: str, value_allowed: str, reserved: Collection[str] = (), ignore_case: bool
    ) -> None:
        self.name, self.name_allowed = re.compile(name), name_allowed
        self.value, self.value_allowed = re.compile(value), value_allowed
        self.reserved, self.ignore_case = frozenset(reserved), ignore_case
        self.allowed = f"a table of {value_allowed}"

    def problems(self, key: str, value: object) -> Iterator[SettingProblem]:
        if not isinstance(value, Mapping):
            yield SettingProblem(key=key, found=kind_of(value), allowed=self.allowed)
            return
        if len(value) > 1_000:
            yield SettingProblem(key=key, found=f"{len(value)} entries", allowed="up to 1000 entries")
            return
        seen: set[str] = set()
        for name, text in value.items():
            where = f"{key}.{name_part(name)}"
            if not isinstance(name, str) or len(name) > 256 or self.name.fullmatch(name) is None:
                yield SettingProblem(key=where, found="this name", allowed=self.name_allowed)
                continue
            folded = name.lower() if self.ignore_case else name
            if folded in self.reserved:
                yield SettingProblem(key=where, found="this name", allowed="names that the gateway does not set itself")
            elif folded in seen:
                yield SettingProblem(key=where, found="this name again", allowed="each name once, upper or lower case alike")
            seen.add(folded)
            if not isinstance(text, str) or len(text) > 65_536 or self.value.fullmatch(text) is None or not is_plain_text(text):
                found = "a string with forbidden characters" if isinstance(text, str) else kind_of(text)
                yield SettingProblem(key=where, found=found, allowed=self.value_allowed)

    def json_schema(self) -> dict[str, Any]:
        return {"type": "object", "additionalProperties": {"type": "string", "maxLength": 65_536}, "maxProperties": 1_000}


def is_plain_text(text: str) -> bool:
    """Tell whether the operating system and UTF-8 can carry the text: no NUL and no lone surrogate (JSON may hold one)."""
    return "\x00" not in text and re.search("[\ud800-\udfff]", text) is None


def name_part(name: object) -> str:
    """Spell one key of a dotted path: bare as in TOML, else quoted and short."""
    if isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        return name
    return quote(name)
