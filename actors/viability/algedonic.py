"""The algedonic channel: measurements become pain, its end becomes pleasure, and what cannot wait becomes an emergency. Pure.

Source: Stafford Beer, "Brain of the Firm", the algedonic channel past the levels of the Viable System Model; numbers are ours.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping

import attrs
from attrs.validators import and_, ge, le

ONSET = 0.25
"""A level from here on hurts."""

RELIEF = 0.1
"""A level up to here, held for RELIEF_HOLD_S, ends the pain; in between, what hurts goes on hurting and nothing begins to."""

RELIEF_HOLD_S = 2.0
WORSE = 0.2
"""By how much a pain must rise above what was told of it to be told again."""

ADAPTATION_S = 60.0
"""Time constant of getting used to a level: after that long a constant ache feels about a third of what it did."""

FELT_FLOOR = 0.15
"""The part of a constant ache that is felt for ever."""

_LOST_AFTER_S = 300.0


class SignalKind(enum.Enum):
    """The last word of the topic `vsm.algedonic.*`, and the label of the metric."""

    PAIN = "pain"
    PLEASURE = "pleasure"
    EMERGENCY = "emergency"


@attrs.frozen(kw_only=True)
class Feeling:
    """One measurement of one source. level: 0 is as it should be, 1 as bad as it gets; text: what is wrong, for a person.

    is_emergency: it bypasses thresholds and adaptation.
    """

    level: float = attrs.field(validator=and_(ge(0.0), le(1.0)))
    text: str = ""
    is_emergency: bool = False


@attrs.frozen(kw_only=True)
class Signal:
    """What is told. intensity: 0 to 1; of a pleasure, the worst that the pain was which has ended.

    since_s: when the source began to hurt.
    """

    kind: SignalKind
    source: str
    intensity: float
    text: str
    since_s: float


@attrs.frozen(kw_only=True)
class Ache:
    """What hurts now. felt: the level, less what one has got used to."""

    source: str
    level: float
    felt: float
    text: str
    since_s: float
    is_emergency: bool


@attrs.define
class _Nerve:
    """What is remembered of one source. told: the highest level that was told of since it began to hurt."""

    level: float = 0.0
    text: str = ""
    adapted: float = 0.0
    at_s: float = 0.0
    since_s: float = 0.0
    told: float = 0.0
    peak: float = 0.0
    peak_text: str = ""
    is_hurting: bool = False
    is_emergency: bool = False
    calm_since_s: float | None = None


class AlgedonicSense:
    """Turns what each source measures into few signals: onset, clearly worse, relief, emergency.

    A source is told of when it begins to hurt, again when it gets worse by WORSE, and once when it stops. Each source gets used
    to its own level, so that a constant ache loses its place to a new one. Times are seconds of the caller's monotonic clock.
    """

    def __init__(self) -> None:
        self._nerves: dict[str, _Nerve] = {}

    def feel(self, feelings: Mapping[str, Feeling], now_s: float) -> tuple[Signal, ...]:
        """Take one measurement of every source ({source: feeling}); a source that is missing measures nothing wrong.

        Returns what must be told, the most urgent first.
        """
        signals: list[Signal] = []
        for source in [*feelings, *(known for known in self._nerves if known not in feelings)]:
            feeling = feelings.get(source) or Feeling(level=0.0)
            nerve = self._nerves.get(source)
            if nerve is None:
                if feeling.level < ONSET and not feeling.is_emergency:
                    continue
                nerve = self._nerves[source] = _Nerve(at_s=now_s)
            signal = _stimulate(source, nerve, feeling, now_s)
            if signal is not None:
                signals.append(signal)
            if not nerve.is_hurting and nerve.adapted < 0.01 and now_s - nerve.since_s > _LOST_AFTER_S:
                del self._nerves[source]
        order = (SignalKind.EMERGENCY, SignalKind.PAIN, SignalKind.PLEASURE)
        return tuple(sorted(signals, key=lambda signal: (order.index(signal.kind), -signal.intensity)))

    @property
    def aches(self) -> tuple[Ache, ...]:
        """What hurts now, what is felt most first; an emergency before everything."""
        aches = [
            Ache(
                source=source,
                level=nerve.level,
                felt=_felt(nerve),
                text=nerve.text,
                since_s=nerve.since_s,
                is_emergency=nerve.is_emergency,
            )
            for source, nerve in self._nerves.items()
            if nerve.is_hurting
        ]
        return tuple(sorted(aches, key=lambda ache: (not ache.is_emergency, -ache.felt)))

    @property
    def pain(self) -> float:
        """How much the whole hurts, 0 to 1: the strongest of what is felt."""
        return max((ache.felt for ache in self.aches), default=0.0)


def _stimulate(source: str, nerve: _Nerve, feeling: Feeling, now_s: float) -> Signal | None:
    elapsed_s = max(0.0, now_s - nerve.at_s)
    # It got used to the level that lay between the two measurements, not to the one that comes now.
    nerve.adapted += (nerve.level - nerve.adapted) * (1.0 - math.exp(-elapsed_s / ADAPTATION_S))
    level = 1.0 if feeling.is_emergency else feeling.level
    nerve.at_s, nerve.level = now_s, level
    if feeling.text and level > RELIEF:
        nerve.text = feeling.text
    if not nerve.is_hurting or level >= nerve.peak:
        nerve.peak, nerve.peak_text = level, nerve.text
    if feeling.is_emergency and not nerve.is_emergency:
        if not nerve.is_hurting:
            nerve.since_s = now_s
        nerve.is_hurting = nerve.is_emergency = True
        nerve.told, nerve.calm_since_s = 1.0, None
        return _signal(SignalKind.EMERGENCY, source, nerve, 1.0)
    if not nerve.is_hurting:
        if level < ONSET:
            return None
        nerve.is_hurting, nerve.since_s, nerve.told, nerve.calm_since_s = True, now_s, level, None
        return _signal(SignalKind.PAIN, source, nerve, level)
    if level > RELIEF:
        nerve.calm_since_s = None
        if level >= nerve.told + WORSE:
            nerve.told = level
            return _signal(SignalKind.PAIN, source, nerve, level)
        return None
    if nerve.calm_since_s is None:
        nerve.calm_since_s = now_s
    if now_s - nerve.calm_since_s < RELIEF_HOLD_S:
        return None
    nerve.is_hurting = nerve.is_emergency = False
    nerve.text = nerve.peak_text
    relieved = _signal(SignalKind.PLEASURE, source, nerve, nerve.peak)
    nerve.since_s = now_s
    return relieved


def _felt(nerve: _Nerve) -> float:
    if nerve.is_emergency:
        return nerve.level
    return max(nerve.level - nerve.adapted, nerve.level * FELT_FLOOR)


def _signal(kind: SignalKind, source: str, nerve: _Nerve, intensity: float) -> Signal:
    return Signal(kind=kind, source=source, intensity=round(intensity, 3), text=nerve.text, since_s=nerve.since_s)
