"""How the run ended: completed, stopped, or with something that could not be shown to be undone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from stormdrill.core.case import Case
from stormdrill.core.judge_hands import deletion
from stormdrill.core.validity import distrusted
from stormdrill.core.windows import Span, all_of
from stormdrill.model import event as ev
from stormdrill.model.verdict import Word

Status = Literal["completed", "aborted", "dirty", "failed"]
_HOW = {
    "person": "a person stopped it",
    "signal": "a signal stopped it",
    "machine": "it was stopped to protect this machine",
    "keeper": "its keeper was gone",
    "runner-gone": "its runner was gone",
    "baseline": "the baseline was not healthy",
    "system": "the system under test failed",
    "load": "its load was lost",
    "cluster": "the cluster no longer was the run's to change",
    "deleted": "what it drilled was taken away",
}


def status_of(case: Case, left: Sequence[str]) -> Status:
    """DIRTY speaks of what was injected, by the runner's word or by the record."""
    ended = all_of(case.events, ev.RunEnded)
    said = ended[-1][1].status if ended else ""
    if left or said == "dirty":
        return "dirty"
    if said == "aborted" or any(isinstance(item.event, ev.AbortRequested | ev.GuardTripped) for item in case.events):
        return "aborted"
    reached_end = any(event.phase == "end" for _, event in all_of(case.events, ev.PhaseEntered))
    if said == "failed" or not reached_end:
        return "failed"
    return "completed"


def guard_trip(case: Case) -> tuple[Word, str] | None:
    """A harm guard that trips after the injection is a FAIL, unless what it saw is not to be believed."""
    for recorded, event in all_of(case.events, ev.GuardTripped):
        if case.called is None or recorded.mono_ms < case.called.mono_ms:
            continue
        seen = Span("fault", case.called.mono_ms, recorded.mono_ms, True, ())
        taints = case.validity.of(seen, from_records=True)
        why = f"a guard tripped: {event.guard}" + (f" ({event.detail})" if event.detail else "")
        if taints:
            return "INVALID", distrusted(taints[0], why)
        return "FAIL", why
    return None


def stopped_word(case: Case) -> Word:
    """A run whose load was lost rests on nothing, and one whose system was deleted measured something else in the end;
    any other that was stopped only didn't come far enough."""
    return "INVALID" if load_lost(case) or deletion(case.events) is not None else "INCONCLUSIVE"


def load_lost(case: Case) -> bool:
    return [event.by for _, event in all_of(case.events, ev.AbortRequested)][:1] == ["load"]


def stopped_by(case: Case) -> str:
    """Why the run was stopped by something else than a guard; empty when it wasn't."""
    for _, event in all_of(case.events, ev.AbortRequested):
        if event.by != "guard" or case.inject is None:
            how = _HOW.get(event.by, f"it was stopped by {event.by}")
            return f"the run was not finished: {how}" + (f" ({event.reason})" if event.reason else "")
    ended = all_of(case.events, ev.RunEnded)
    if ended and ended[-1][1].status in ("aborted", "failed") and not all_of(case.events, ev.AbortRequested):
        reason = ended[-1][1].reason
        return "the run was not finished" + (f": {reason}" if reason else "")
    if not any(event.phase == "end" for _, event in all_of(case.events, ev.PhaseEntered)):
        return "" if all_of(case.events, ev.AbortRequested) else "the run's record ends before the run did"
    return ""
