"""`alert(NAME) within 10s`: whether it began to fire in time, counted from the harm and not from the wish."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from stormdrill.core.case import Case
from stormdrill.core.judge_bites import unbitten
from stormdrill.core.sentences import number
from stormdrill.core.validity import Taint, distrusted
from stormdrill.core.windows import WHOLE, Span, all_of, anchor_ms, began
from stormdrill.model.event import AlertChanged, Reading, Recorded
from stormdrill.model.experiment import Objective
from stormdrill.model.expression import AlertWithin
from stormdrill.model.verdict import ObjectiveVerdict, Word

ALERTS = "alerts"
"""The reading that says whether a source of alerts could be read."""


def judge_alert(case: Case, objective: Objective, span: Span) -> ObjectiveVerdict:
    """An alert that was firing before doesn't count: it may be over and begin again, or there is nothing to see."""
    expression = objective.expression
    assert isinstance(expression, AlertWithin)
    anchor = anchor_ms(span, case.inject)
    asked_s = expression.within_s if expression.within_s is not None else span.length_s
    if anchor is None:
        return _verdict(objective, "INCONCLUSIVE", None, asked_s, "nothing was injected, so nothing had to fire", ())
    anchor += objective.window.after_s * 1000
    watched_to_ms = case.spans[WHOLE].end_ms if WHOLE in case.spans else span.end_ms
    due_ms = anchor + asked_s * 1000
    before, fired = firing_from(case.events, expression, anchor)
    name = f"alert({expression.alert}{_chosen(expression)})"
    since = f"after {began(case.inject)}" if span.name in ("fault", WHOLE) else f"after the {span.name} began"
    seqs = _seqs(case, span, fired or before)
    if fired is not None:
        took_s = round((fired.mono_ms - anchor) / 1000, 3)
        word: Word = "PASS" if fired.mono_ms <= due_ms else "FAIL"
        sentence = f"{name} fired {number(took_s)} s {since}; within {number(asked_s)} s was asked"
        found = _verdict(objective, word, took_s, asked_s, sentence, seqs)
    elif before is not None:
        sentence = f"{name} was firing before, and did not begin again: whether it would have is not known"
        if before.mono_ms >= anchor:
            seen_s = number((before.mono_ms - anchor) / 1000)
            sentence = f"{name} was firing when it could be read again, {seen_s} s {since}: since when is not known"
        found = _verdict(objective, "INCONCLUSIVE", None, asked_s, sentence, seqs)
    elif watched_to_ms < due_ms:
        watched_s = max(0.0, (watched_to_ms - anchor) / 1000)
        sentence = f"{name} had not fired when the watch ended, {number(watched_s)} s {since}"
        found = _verdict(objective, "INCONCLUSIVE", None, asked_s, sentence, seqs)
    elif blind := unread(case.events, anchor, due_ms):
        sentence = f"{name} was not seen to fire, but nobody could look: {blind[1].detail}"
        found = _verdict(objective, "INCONCLUSIVE", None, asked_s, sentence, (*seqs, blind[0].seq))
    elif unfelt := unbitten(case, due_ms):
        sentence = f"{name} did not fire within {number(asked_s)} s {since}, and {unfelt}"
        found = _verdict(objective, "INCONCLUSIVE", None, asked_s, sentence, seqs)
    elif other := _nearest(case.events, expression, anchor, due_ms):
        took_s = round((other[0].mono_ms - anchor) / 1000, 3)
        had = ", ".join(f"{label}={value}" for label, value in sorted(other[1].labels.items())) or "no labels"
        sentence = f"{name} did not fire within {number(asked_s)} s {since}: it did after {number(took_s)} s with {had}"
        found = _verdict(objective, "FAIL", None, asked_s, sentence, _seqs(case, span, other[0]))
    else:
        sentence = f"{name} did not fire within {number(asked_s)} s {since}"
        found = _verdict(objective, "FAIL", None, asked_s, sentence, seqs)
    watch = Span(span.name, anchor, min(due_ms, watched_to_ms), True, ())
    until_ms = watch.end_ms if fired is None else min(watch.end_ms, fired.mono_ms)
    hands = case.validity.hands(replace(watch, end_ms=until_ms))  # what fired before them is an answer
    return tainted(found, (*hands, *case.validity.host(watch)))


def firing_from(
    events: Sequence[Recorded], expression: AlertWithin, start_ms: float
) -> tuple[Recorded | None, Recorded | None]:
    """What was firing already at `start_ms`, or may have been while nobody could look, and what began to fire after it.

    A source that can't be read says nothing: neither that what it told is over, nor, when it is read again, that what
    it tells then began just now."""
    blind = _Blind(events)
    changes = sorted(
        (item for item in all_of(events, AlertChanged) if _matches(item[1], expression)),
        key=lambda item: (item[0].mono_ms, item[0].seq),
    )
    firing: dict[tuple[tuple[str, str], ...], Recorded] = {}
    before: Recorded | None = None
    for recorded, event in changes:
        key = tuple(sorted(event.labels.items()))
        if recorded.mono_ms < start_ms:
            if event.firing:
                firing[key] = recorded
            elif not blind.at(event.source, recorded.mono_ms):
                firing.pop(key, None)
            before = next(iter(firing.values()), None)
        elif event.firing and key not in firing:
            if not blind.at(event.source, start_ms):
                return before, recorded
            firing[key] = recorded
            before = before or recorded
        elif not event.firing and not blind.at(event.source, recorded.mono_ms):
            firing.pop(key, None)
    return before, None


class _Blind:
    """When a source of alerts could not be read."""

    def __init__(self, events: Sequence[Recorded]) -> None:
        self._looks: dict[str, list[tuple[float, bool]]] = {}
        for recorded, event in all_of(events, Reading):
            if event.metric == ALERTS:
                self._looks.setdefault(event.instance, []).append((recorded.mono_ms, event.value is None))

    def at(self, source: str, at_ms: float) -> bool:
        """By what was last read of it until then; nothing was said of it: it could."""
        known = [(told_ms, unread) for told_ms, unread in self._looks.get(source, []) if told_ms <= at_ms]
        return max(known)[1] if known else False


def _chosen(expression: AlertWithin) -> str:
    labels = ", ".join(f"{label}={value}" for label, value in expression.labels.items())
    return f"{{{labels}}}" if labels else ""


def _nearest(
    events: Sequence[Recorded], expression: AlertWithin, start_ms: float, end_ms: float
) -> tuple[Recorded, AlertChanged] | None:
    """The alert of that name which began to fire in time, and of whose labels most are those that were asked for."""
    found = [
        (recorded, event)
        for recorded, event in all_of(events, AlertChanged)
        if event.alert == expression.alert and event.firing and start_ms <= recorded.mono_ms <= end_ms
    ]
    wanted = expression.labels.items()
    return min(found, key=lambda item: (-len(wanted & item[1].labels.items()), item[0].mono_ms), default=None)


def unread(events: Sequence[Recorded], start_ms: float, end_ms: float) -> tuple[Recorded, Reading] | None:
    """The reading that says so, when no source of alerts could be read at any time from `start_ms` to `end_ms`."""
    looks = [(recorded, event) for recorded, event in all_of(events, Reading) if event.metric == ALERTS]
    last: dict[str, tuple[Recorded, Reading]] = {}
    for recorded, event in sorted(looks, key=lambda item: (item[0].mono_ms, item[0].seq)):
        if recorded.mono_ms > end_ms:
            break
        if recorded.mono_ms >= start_ms and event.value is not None:
            return None
        last[event.instance] = (recorded, event)
    blind = list(last.values())
    return blind[0] if blind and all(event.value is None for _, event in blind) else None


def _matches(event: AlertChanged, expression: AlertWithin) -> bool:
    return event.alert == expression.alert and expression.labels.items() <= event.labels.items()


def _seqs(case: Case, span: Span, found: Recorded | None) -> tuple[int, ...]:
    seqs = {*span.events, *([case.inject.seq] if case.inject else []), *([found.seq] if found else [])}
    return tuple(sorted(seqs))


def _verdict(
    objective: Objective, word: Word, value: float | None, asked_s: float, sentence: str, events: tuple[int, ...]
) -> ObjectiveVerdict:
    return ObjectiveVerdict(
        objective.expression.text, objective.window.text, word, value, None, None, asked_s, "s", 0, sentence, events
    )


def tainted(found: ObjectiveVerdict, taints: tuple[Taint, ...]) -> ObjectiveVerdict:
    """INVALID with the reason in front, when there is one."""
    if not taints:
        return found
    events = tuple(sorted({*found.events, *(seq for taint in taints for seq in taint.events)}))
    return replace(found, verdict="INVALID", sentence=distrusted(taints[0], found.sentence), events=events)
