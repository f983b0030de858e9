"""Whether any fault was seen to bite: what answers harm has nothing to answer where there was none."""

from __future__ import annotations

from stormdrill.core.case import Case
from stormdrill.core.judge_faults import bitten
from stormdrill.core.windows import all_of
from stormdrill.model import event as ev


def unbitten(case: Case, by_ms: float) -> str:
    """Why nobody had anything to answer by then, as far as anybody saw; empty where a fault had bitten, and where the
    load is the harm."""
    calls = {e.injection for r, e in all_of(case.events, ev.InjectStarted) if r.mono_ms < by_ms}
    begun = [item for item in case.plan.injections if item.id in calls]
    if not begun or any(bitten(case, item) for item in begun):
        return ""
    names = tuple(dict.fromkeys(item.fault for item in begun))
    verb = "was" if len(names) == 1 else "were"
    return f"{' and '.join(names)} {verb} not seen to bite: there was nothing to answer"
