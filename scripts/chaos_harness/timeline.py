"""A run as a drawing: what clients read, second by second, above the faults that they lived through. Pure."""

from __future__ import annotations

from collections import Counter
from html import escape

from .history import OK, Asked, Ended, FaultBegan, History, Recovered, Weighed

_WIDTH, _LEFT, _RIGHT = 1200, 150, 20
_PLOT, _GAP, _ROW = 160, 24, 16
_OK, _REFUSED, _FAULT, _MEMORY = "#3a7d44", "#c0392b", "#f0b27a", "#2e6da4"


def draw(history: History, from_s: float, to_s: float) -> str:
    """An SVG. Green: answers a second; red: refusals; blue: memory; below, each kind of fault until it was recovered from."""
    seconds = max(1.0, to_s - from_s)
    faults = history.of(FaultBegan)
    kinds = list(dict.fromkeys(each.fault for each in faults))
    height = _PLOT + 2 * _GAP + len(kinds) * _ROW + _GAP

    def x(at_s: float) -> float:
        return round(_LEFT + (at_s - from_s) / seconds * (_WIDTH - _LEFT - _RIGHT), 1)

    good, bad = _per_second(history, from_s)
    most = max([1, *good.values(), *bad.values()])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        _text(4, _GAP + 10, f"answers/s, at most {most}", _OK),
        _text(4, _GAP + 26, "refusals/s", _REFUSED),
        _text(4, _GAP + 42, "memory", _MEMORY),
        _line([(x(from_s + second), _y(good.get(second, 0), most)) for second in range(int(seconds) + 1)], _OK),
        *(
            f'<rect x="{x(from_s + second)}" y="{_y(count, most)}" width="{max(1.0, round(_WIDTH / seconds * 0.6, 1))}" '
            f'height="{round(_GAP + _PLOT - _y(count, most), 1)}" fill="{_REFUSED}"/>'
            for second, count in sorted(bad.items())
        ),
        _memory(history, x),
    ]
    recovered = {each.fault_id: each.at_s for each in history.of(Recovered)}
    for row, kind in enumerate(kinds):
        top = _GAP * 2 + _PLOT + row * _ROW
        parts.append(_text(4, top + 11, kind, "black"))
        for fault in (each for each in faults if each.fault == kind):
            start, end = x(fault.at_s), x(recovered.get(fault.fault_id, to_s))
            title = escape(f"{fault.target} at {fault.at_s - from_s:.1f} s")
            parts.append(
                f'<rect x="{start}" y="{top}" width="{max(2.0, round(end - start, 1))}" height="{_ROW - 4}" fill="{_FAULT}">'
                f"<title>{title}</title></rect>"
            )
    ticks = range(0, int(seconds) + 1, max(1, int(seconds / 12)))
    parts += [_text(x(from_s + tick), height - 6, f"{tick} s", "black") for tick in ticks]
    return "\n".join([*(part for part in parts if part), "</svg>"]) + "\n"


def _per_second(history: History, from_s: float) -> tuple[Counter[int], Counter[int]]:
    good: Counter[int] = Counter()
    bad: Counter[int] = Counter()
    calls = {each.call_id for each in history.of(Asked)}
    for each in history.of(Ended):
        if each.call_id in calls:
            (good if each.outcome == OK else bad)[int(each.at_s - from_s)] += 1
    return good, bad


def _y(value: float, most: float) -> float:
    return round(_GAP + _PLOT - value / most * _PLOT, 1)


def _memory(history: History, x: object) -> str:
    weights = history.of(Weighed)
    most = max((each.memory_bytes for each in weights), default=0)
    if not most or not callable(x):
        return ""
    return _line([(x(each.at_s), _y(each.memory_bytes, most)) for each in weights], _MEMORY)


def _line(points: list[tuple[float, float]], colour: str) -> str:
    return f'<polyline fill="none" stroke="{colour}" points="{" ".join(f"{x},{y}" for x, y in points)}"/>'


def _text(x: float, y: float, text: str, colour: str) -> str:
    return f'<text x="{x}" y="{y}" fill="{colour}">{escape(text)}</text>'
