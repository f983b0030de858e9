"""What users of the system met: requests by tier and phase, for how long, and what it spent of the error budget."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from stormdrill.core import telling
from stormdrill.model import event as ev
from stormdrill.model.units import show_duration
from stormdrill.model.verdict import ObjectiveVerdict
from stormdrill.review.clock import Clock
from stormdrill.review.source import Source
from stormdrill.review.view import Fact, Figure, Outcomes
from stormdrill.review.words import count, measured, percent, plural

Mask = npt.NDArray[np.bool_]


def record_events(source: Source) -> tuple[int, ...]:
    """The events that vouch for the request records: their hashes, or at least the load's end or start."""
    closed = tuple(row.seq for row, event in source.all(ev.RecordClosed) if event.file.endswith(".records"))
    ends = (
        tuple(row.seq for row, _ in source.all(ev.LoadEnded)),
        tuple(row.seq for row, _ in source.all(ev.LoadStarted)),
    )
    return next((found for found in (closed, *ends) if found), ())


def within(source: Source, start_ms: float, end_ms: float) -> Mask:
    at = source.requests.intended_ms
    return np.asarray((at >= start_ms) & (at < end_ms), dtype=np.bool_)


def outcomes(source: Source) -> tuple[Outcomes, ...]:
    """A row for each phase and tier that had requests; warm-up is left out, since nothing is judged there."""
    requests = source.requests
    found = []
    for span in source.spans:
        if span.name == "warmup":
            continue
        inside = within(source, span.start_ms, span.end_ms)
        for index, tier in enumerate(requests.tiers):
            mine = inside & (requests.tier == index)
            n = int(mine.sum())
            if not n:
                continue
            failed = int((mine & ~requests.good).sum())
            away, timed_out, late, broken = (int((mine & mask).sum()) for mask in _reasons(source))
            found.append(
                Outcomes(
                    tier=f"{requests.tier_label} {tier}".strip() or "all",
                    phase=telling.phase(span.name),
                    asked=count(n),
                    failed=count(failed),
                    share=f"{percent(100 * failed / n)}%",
                    turned_away=count(away),
                    timed_out=count(timed_out),
                    late=count(late),
                    broken=count(broken),
                    events=(*span.events, *record_events(source)),
                )
            )
    return tuple(found)


def _reasons(source: Source) -> tuple[Mask, Mask, Mask, Mask]:
    """Turned away with 429 or 503; timed out; answered too late; everything else that isn't good. Disjoint."""
    requests = source.requests
    away = requests.turned_away
    timed_out = requests.timed_out
    late = requests.late
    return away, timed_out, late, ~requests.good & ~away & ~timed_out & ~late


def facts(source: Source, clock: Clock) -> tuple[Fact, ...]:
    """Requests, duration, jobs; and what nobody measured, said as that."""
    found = [*_felt(source), *_requests(source, clock), *_jobs(source)]
    found.append(Fact("Users", Figure("not measured"), "The record knows requests and jobs, not who sent them."))
    found.append(Fact("Money", Figure("not measured"), "No prices were given for this system."))
    return tuple(found)


def _felt(source: Source) -> list[Fact]:
    """When users felt each fault, apart from when a witness saw it bite."""
    faults = source.verdict.faults if source.verdict else ()
    found = []
    for name, users, at_ms in dict.fromkeys((one.name, one.users, one.users_ms) for one in faults if one.users):
        after = "no" if at_ms is None and users.startswith("users felt nothing") else "not known"
        text = after if at_ms is None else f"{show_duration(at_ms / 1000)} after it came"
        events = next(one.events for one in faults if one.name == name)
        seqs = (*events, *record_events(source))
        found.append(Fact(f"Felt by users, {name}", Figure(text, seqs), f"{users[0].upper()}{users[1:]}."))
    return found


def _requests(source: Source, clock: Clock) -> list[Fact]:
    requests = source.requests
    if not len(requests) or source.inject is None:
        return [Fact("Requests", Figure("no requests were recorded while a fault lasted"))]
    zero_ms = source.inject.mono_ms
    events = (source.inject.seq, *record_events(source))
    inside = within(source, zero_ms, np.inf)
    failed = inside & ~requests.good
    n, bad = int(inside.sum()), int(failed.sum())
    found = [
        Fact(
            "Requests failed",
            Figure(f"{count(bad)} of {count(n)}", events),
            f"From {source.since} to the end; failed is anything but 2xx within its deadline, of all intended.",
        )
    ]
    if bad:
        at = requests.intended_ms[failed]
        first, last = float(at.min()), float(at.max())
        seconds = len(np.unique(np.floor((at - zero_ms) / 1000.0)))
        found.append(
            Fact(
                "Duration",
                Figure(
                    f"{show_duration((last - first) / 1000)} from the first failed request ({clock.time(first)}) "
                    f"to the last ({clock.time(last)}); {plural(seconds, 'second')} with at least one",
                    events,
                ),
                "By intended start.",
            )
        )
    return found


def _jobs(source: Source) -> list[Fact]:
    objectives = source.verdict.objectives if source.verdict else ()
    found = []
    for name, word, of in (
        ("Jobs lost", "jobs_lost", "accepted"),
        ("Jobs done twice", "jobs_doubled", "accepted"),
        ("Jobs done where they must not be", "jobs_strayed", "bound to a region"),
    ):
        judged = _judged(objectives, word)
        if judged is None:
            found.append(Fact(name, Figure("not asked of this run")))
        elif judged.value is None:
            found.append(Fact(name, Figure("not known"), judged.sentence))
        else:
            text = f"{measured(judged.value, '')} of {count(judged.n)} {of}"
            where = telling.phase(judged.phase)
            asked = "" if _of_all(judged) else f" Of those that {judged.name} ({where}) asks about, no others."
            found.append(Fact(name, Figure(text, judged.events), f"Exact count, so no interval.{asked}"))
    return found


def _judged(objectives: tuple[ObjectiveVerdict, ...], metric: str) -> ObjectiveVerdict | None:
    """What speaks of all jobs before what speaks of some, and of those the worst."""
    mine = [item for item in objectives if re.match(rf"{metric}\b", item.name)]
    return min(mine, key=lambda item: (not _of_all(item), -(item.value or 0.0)), default=None)


def _of_all(judged: ObjectiveVerdict) -> bool:
    return judged.phase == "whole run" and "{" not in judged.name


def success_between(source: Source, start_ms: float, end_ms: float, name: str, events: tuple[int, ...]) -> Fact | None:
    """Share of good requests of the most important tier in a span; None where there were none."""
    requests = source.requests
    mine = within(source, start_ms, end_ms)
    label = "all"
    if requests.tier_label:
        mine = mine & (requests.tier == 0)
        label = f"{requests.tier_label} {requests.tiers[0]}"
    n = int(mine.sum())
    if not n:
        return None
    good = int((mine & requests.good).sum())
    text = f"{percent(100 * good / n)}% ({count(good)} of {count(n)}, {label})"
    return Fact(name, Figure(text, (*events, *record_events(source))))
