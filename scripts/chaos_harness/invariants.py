"""What must hold whatever breaks, judged from the history of a run. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, pairwise
from typing import Final

import attrs

from .fault_kinds import CELL, DEMO, FULL_DISK, GRACE_S, KINDS, LEARN_S, LOG, SOCKETS, FaultKind, hurt_backends, leaves_a_replica
from .history import (
    CUT,
    LATE,
    OK,
    WRONG,
    Acknowledged,
    Asked,
    Ended,
    FaultBegan,
    FaultEnded,
    Following,
    History,
    Missed,
    Ran,
    Recovered,
    Seen,
    SessionLost,
    Stopped,
    Weighed,
)

SETTLE_S: Final = 5.0
"""How long an acknowledged event may be on its way where nothing has failed for as long."""
ON_ITS_WAY_S: Final = 2.0
"""How long an acknowledged event may be in the one cell that took it: `ok` is said before the log has it."""
MENDED_S: Final = 10.0
"""How long after a full disk events may be in memory alone."""
MORE_MEMORY: Final = 1.5
MORE_MEMORY_BYTES: Final = 48 * 2**20
MORE_DESCRIPTORS: Final = 40
"""What the gateway may hold at rest beyond what it held after the warm-up. Python gives freed memory back late or never; what
leaks with each fault is found by a longer run, what leaks with each session by the soak."""
MORE_FILES: Final = 40
"""Each cell that has been has a file of metrics, until the next one has taken it over, and logs of databases come and go."""


@attrs.frozen(kw_only=True)
class Broken:
    """One invariant that did not hold."""

    invariant: str
    text: str
    at_s: float


@attrs.frozen(kw_only=True)
class Excuse:
    """From when to when calls to a backend may fail, both on the clock of the history."""

    backend: str
    from_s: float
    to_s: float


def excuses(history: History, now_s: float) -> list[Excuse]:
    """What faults account for, until they have been recovered from, and for GRACE_S more.

    Where another replica is well, only while that has to be found out: when the fault begins, and when its server comes back.
    """
    ended = {each.fault_id: each.at_s for each in history.of(FaultEnded)}
    recovered = {each.fault_id: each.at_s for each in history.of(Recovered)}
    found: list[Excuse] = []
    patience = history.patience
    for fault in history.of(FaultBegan):
        kind = KINDS[fault.fault]
        # Nobody is excused for longer than recovery may take: a tree that never comes back breaks all that follows, too.
        over_s = (
            recovered.get(fault.fault_id, min(now_s, ended.get(fault.fault_id, now_s) + _recovers_s(history, kind)))
            + GRACE_S * patience
        )
        spans = [(fault.at_s, over_s)]
        if leaves_a_replica(kind, fault.target):
            spans = [(fault.at_s, fault.at_s + LEARN_S * patience), (ended.get(fault.fault_id, now_s), over_s)]
        found += [
            Excuse(backend=backend, from_s=from_s, to_s=to_s)
            for backend in hurt_backends(kind, fault.target)
            for from_s, to_s in spans
        ]
    return found


def _recovers_s(history: History, kind: FaultKind) -> float:
    return history.recovers_s.get(kind.name, kind.recovers_s) * history.patience


def _is_excused(known: list[Excuse], backend: str, from_s: float, to_s: float) -> bool:
    return any(each.backend == backend and each.from_s <= to_s and from_s <= each.to_s for each in known)


def _spans(history: History, what: str, now_s: float) -> list[tuple[float, float]]:
    """From when to when faults end this, see `FaultKind.ends`, with the grace after them."""
    recovered = {each.fault_id: each.at_s for each in history.of(Recovered)}
    faults = [each for each in history.of(FaultBegan) if what in KINDS[each.fault].ends]
    return [(each.at_s, recovered.get(each.fault_id, now_s) + GRACE_S * history.patience) for each in faults]


def each_request_ends_once_and_in_time(history: History, now_s: float) -> Iterator[Broken]:
    asked = {each.call_id: each for each in history.of(Asked)}
    ends = Counter(each.call_id for each in history.of(Ended))
    for each in history.of(Ended):
        call = asked[each.call_id]
        if each.outcome == LATE or each.at_s > call.deadline_s:
            yield _broken(f"{_of(call)} had not ended after {call.deadline_s - call.at_s:.1f} s", each.at_s)
        elif each.outcome.startswith(WRONG):
            yield _broken(f"{_of(call)} was answered by what is no answer: {each.outcome}", each.at_s)
    for call_id, count in ends.items():
        if count > 1:
            yield _broken(f"{_of(asked[call_id])} ended {count} times", asked[call_id].at_s)
    for call in asked.values():
        if call.call_id not in ends and now_s > call.deadline_s:
            yield _broken(f"{_of(call)} has not ended", call.deadline_s)


def no_unsafe_call_runs_twice(history: History, now_s: float) -> Iterator[Broken]:
    runs: dict[str, list[Ran]] = defaultdict(list)
    for each in history.of(Ran):
        runs[each.argument].append(each)
    for argument, ran in runs.items():
        if len(ran) > 1:
            yield _broken(f"{argument} ran {len(ran)} times: {', '.join(each.server for each in ran)}", ran[1].at_s)


def no_call_is_answered_that_never_ran(history: History, now_s: float) -> Iterator[Broken]:
    ran = {each.argument for each in history.of(Ran)}
    asked = {each.call_id: each for each in history.of(Asked) if not each.is_safe}
    for each in history.of(Ended):
        call = asked.get(each.call_id)
        if call is not None and each.outcome == OK and call.argument not in ran:
            yield _broken(f"{_of(call)} was answered, and no server has run {call.argument}", each.at_s)


def unseen(history: History, before_s: float) -> Iterator[tuple[str, list[int]]]:
    """(follower, numbers) of what was acknowledged before then, while somebody followed who has not seen it.

    What nobody has seen, and may have been lost with the cell that took it, is left out: `ok` says that a cell has it.
    """
    seen: dict[str, set[int]] = defaultdict(set)
    for each in history.of(Seen):
        seen[each.follower].add(each.number)
    anybody = set().union(*seen.values())
    gone = _taken_along(history)
    acknowledged = [
        each
        for each in history.of(Acknowledged)
        if each.number in anybody or not any(from_s <= each.at_s <= to_s for from_s, to_s in gone)
    ]
    for since in history.of(Following):
        wanted = (each.number for each in acknowledged if since.at_s < each.at_s < before_s)
        if lost := [number for number in wanted if number not in seen[since.follower]]:
            yield since.follower, lost


def no_acknowledged_event_is_lost_doubled_or_reordered(history: History, now_s: float) -> Iterator[Broken]:
    acknowledged = {each.number: each for each in history.of(Acknowledged)}
    seen: dict[str, list[Seen]] = defaultdict(list)
    for each in history.of(Seen):
        seen[each.follower].append(each)
    for follower, mine in seen.items():
        numbers = Counter(each.number for each in mine)
        if doubled := [number for number, count in numbers.items() if count > 1]:
            yield _broken(f"{follower} has seen {len(doubled)} events twice, the first {min(doubled)}", mine[-1].at_s)
        in_order: dict[str, list[Seen]] = defaultdict(list)
        for each in mine:
            if each.number in acknowledged:
                in_order[acknowledged[each.number].publisher].append(each)
        for earlier, later in pairwise(mine):
            if later.event_id <= earlier.event_id:
                yield _broken(f"{follower} has seen id {later.event_id} after {earlier.event_id}", later.at_s)
        for earlier, later in chain.from_iterable(map(pairwise, in_order.values())):
            if later.number < earlier.number:
                yield _broken(f"{follower} has seen event {later.number} after {earlier.number}", later.at_s)
    is_quiet = _last_trouble_s(history, now_s) < now_s - SETTLE_S
    for follower, lost in unseen(history, now_s - SETTLE_S) if is_quiet else ():
        yield _broken(f"{follower} has never seen {len(lost)} events, the first {lost[0]}", acknowledged[lost[0]].at_s)
    for gap in history.of(Missed):
        if not _ends_what_disk_has_missed(history, gap):
            yield _broken(f"{gap.follower} was told that ids {gap.first_id} to {gap.last_id} are gone", gap.at_s)


def all_followers_see_one_order(history: History, now_s: float) -> Iterator[Broken]:
    """An event has one id, at whichever node it is read."""
    first: dict[int, Seen] = {}
    for each in history.of(Seen):
        other = first.setdefault(each.number, each)
        if other.follower != each.follower and other.event_id != each.event_id:
            text = f"event {each.number} is {other.event_id} to {other.follower} and {each.event_id} to {each.follower}"
            yield _broken(text, each.at_s)


def _taken_along(history: History) -> list[tuple[float, float]]:
    """From when to when events may have been acknowledged and lost with the cell that had taken them, before the log had them.

    That is a moment before the cell ended, and as long as there was no event log before that.
    """
    recovered = {each.fault_id: each.at_s for each in history.of(Recovered)}
    faults = [(each, recovered.get(each.fault_id, each.at_s)) for each in history.of(FaultBegan)]
    found = []
    for fault, well_s in faults:
        if CELL in KINDS[fault.fault].ends:
            from_s = fault.at_s - ON_ITS_WAY_S * history.patience
            without_log = [each.at_s for each, to_s in faults if LOG in KINDS[each.fault].ends and from_s <= to_s <= well_s]
            found.append((min([from_s, *without_log]), well_s))
    return found


def _ends_what_disk_has_missed(history: History, gap: Missed) -> bool:
    """Whether the gap is of events that a full disk has not taken before the process ended that had them in memory."""
    ended = {each.fault_id: each.at_s for each in history.of(FaultEnded)}
    full = [each for each in history.of(FaultBegan) if each.fault == FULL_DISK and each.at_s < gap.at_s]
    lost_with = [each.at_s for each in history.of(FaultBegan) if LOG in KINDS[each.fault].ends and each.at_s < gap.at_s]
    return any(each.at_s <= at_s <= ended.get(each.fault_id, gap.at_s) + MENDED_S for each in full for at_s in lost_with)


def sessions_go_on(history: History, now_s: float) -> Iterator[Broken]:
    for each in history.of(SessionLost):
        yield _broken(f"the session of {each.client} is not known any more", each.at_s)


def all_is_well_again_in_time(history: History, now_s: float) -> Iterator[Broken]:
    """The clock of a recovery stands still while another fault keeps it, which has a time of its own."""
    faults = history.of(FaultBegan)
    ended = {each.fault_id: each.at_s for each in history.of(FaultEnded)}
    recovered = {each.fault_id: each.at_s for each in history.of(Recovered)}
    spans = {
        each.fault_id: (
            each.at_s,
            min(
                recovered.get(each.fault_id, now_s),
                ended.get(each.fault_id, now_s) + _recovers_s(history, KINDS[each.fault]),
            ),
        )
        for each in faults
    }
    for fault in faults:
        if fault.fault_id not in ended:
            continue
        allowed_s = _recovers_s(history, KINDS[fault.fault])
        kept = [spans[each.fault_id] for each in faults if each is not fault and _keeps(each, fault)]
        took_s = _uncovered_s(ended[fault.fault_id], recovered.get(fault.fault_id, now_s), kept)
        if took_s > allowed_s:
            verdict = f"took {took_s:.1f} s" if fault.fault_id in recovered else f"has not ended after {took_s:.1f} s"
            yield _broken(f"recovery from {fault.fault} of {fault.target} {verdict}, not {allowed_s:g}", fault.at_s)


def _keeps(other: FaultBegan, fault: FaultBegan) -> bool:
    """Whether what is waited for after one fault can't be well while the other one lasts."""
    awaited = hurt_backends(KINDS[fault.fault], fault.target) or (DEMO,)
    return bool(KINDS[other.fault].ends) or not set(awaited).isdisjoint(hurt_backends(KINDS[other.fault], other.target))


def _uncovered_s(from_s: float, to_s: float, spans: Iterable[tuple[float, float]]) -> float:
    """How much of the time from then to then is in none of the spans."""
    uncovered_s = 0.0
    for begin_s, end_s in sorted(spans):
        uncovered_s += max(0.0, min(begin_s, to_s) - from_s)
        from_s = max(from_s, end_s)
    return uncovered_s + max(0.0, to_s - from_s)


def nobody_is_refused_while_somebody_is_well(history: History, now_s: float) -> Iterator[Broken]:
    known = excuses(history, now_s)
    closings = _spans(history, SOCKETS, now_s)
    asked = {each.call_id: each for each in history.of(Asked)}
    for each in history.of(Ended):
        call = asked[each.call_id]
        is_refusal = each.outcome not in (OK, LATE) and not each.outcome.startswith(WRONG)
        if call.is_bound and each.outcome == CUT and any(from_s <= each.at_s <= to_s for from_s, to_s in closings):
            continue
        if is_refusal and not _is_excused(known, call.backend, call.at_s, each.at_s):
            what = "was cut off" if each.outcome == CUT else f"was refused with {each.outcome}"
            yield _broken(f"{_of(call)} {what}, and nothing was wrong", each.at_s)


def what_was_taken_is_given_back(history: History, now_s: float) -> Iterator[Broken]:
    """The first weight is the one to come back to, the last one what is left when all clients have gone."""
    weights = history.of(Weighed)
    if len(weights) < 2:
        return
    first, last = weights[0], weights[-1]
    bounds = {
        "processes": first.processes,
        "memory_bytes": first.memory_bytes * MORE_MEMORY + MORE_MEMORY_BYTES,
        "descriptors": first.descriptors + MORE_DESCRIPTORS,
        "files": first.files + MORE_FILES,
    }
    for name, most in bounds.items():
        if getattr(last, name) > most:
            yield _broken(f"{name}: {getattr(first, name)} after the warm-up, {getattr(last, name)} at the end", last.at_s)


def it_ends_in_time_and_leaves_nothing(history: History, now_s: float) -> Iterator[Broken]:
    for each in history.of(Stopped):
        if each.exit_code != 0 or each.took_s > each.allowed_s:
            yield _broken(f"SIGTERM: exit code {each.exit_code} after {each.took_s:.1f} of {each.allowed_s:g} s", each.at_s)
        if each.left_over:
            yield _broken(f"SIGTERM: {each.left_over} processes are left", each.at_s)


Check = Callable[[History, float], Iterator[Broken]]

ALWAYS: Final[tuple[Check, ...]] = (
    each_request_ends_once_and_in_time,
    no_unsafe_call_runs_twice,
    no_acknowledged_event_is_lost_doubled_or_reordered,
    all_followers_see_one_order,
    sessions_go_on,
    all_is_well_again_in_time,
    nobody_is_refused_while_somebody_is_well,
)
AT_THE_END: Final[tuple[Check, ...]] = (
    no_call_is_answered_that_never_ran,
    what_was_taken_is_given_back,
    it_ends_in_time_and_leaves_nothing,
)


def check(history: History, now_s: float, *, is_over: bool = False) -> list[Broken]:
    """Everything that does not hold. is_over: all clients have gone, and the gateway too: what has not come does not come."""
    checks = (*ALWAYS, *AT_THE_END) if is_over else ALWAYS
    now_s += SETTLE_S if is_over else 0.0
    return [attrs.evolve(each, invariant=_name(one)) for one in checks for each in one(history, now_s)]


def _name(one: Check) -> str:
    return one.__name__.replace("_", " ")


def _broken(text: str, at_s: float) -> Broken:
    return Broken(invariant="", text=text, at_s=at_s)


def _of(call: Asked) -> str:
    return f"call {call.call_id} of {call.client} to {call.backend}"


def _last_trouble_s(history: History, now_s: float) -> float:
    """When the last fault was recovered from; now where one is not yet."""
    recovered = {each.fault_id: each.at_s for each in history.of(Recovered)}
    return max((recovered.get(each.fault_id, now_s) for each in history.of(FaultBegan)), default=0.0)
