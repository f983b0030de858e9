"""Jobs lost and done twice: counted, without an interval. One is enough."""

from __future__ import annotations

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from stormdrill.core.case import NOTHING, Case, Measured
from stormdrill.core.intervals import Interval
from stormdrill.core.sentences import plural
from stormdrill.core.windows import WHOLE, Span, all_of
from stormdrill.model import event as ev
from stormdrill.model.expression import Comparison


def measure_jobs(case: Case, expression: Comparison, window: Span) -> Measured:
    """Of the jobs accepted in the window; the whole run includes those of the warm-up."""
    jobs = case.jobs
    if jobs is None:
        return replace(NOTHING, doubt="the system's job ledger was not read")
    fits = np.array([expression.labels.items() <= kind.labels.items() for kind in case.requests.kinds], dtype=np.bool_)
    events = tuple(r.seq for r, e in all_of(case.events, ev.RecordClosed) if e.file.endswith("jobs.ndjson"))
    chosen = fits[jobs.kind] if len(fits) else np.zeros(0, np.bool_)
    if window.name != WHOLE:
        chosen = chosen & (jobs.accepted_ms >= window.start_ms) & (jobs.accepted_ms < window.end_ms)
    n = int(np.count_nonzero(chosen))
    if expression.metric == "jobs_doubled":
        of_all = fits[jobs.doubled_kind] if len(fits) else np.zeros(0, np.bool_)
        if window.name != WHOLE:
            at_ms = case.requests.at_ms
            of_all = of_all & (at_ms >= window.start_ms) & (at_ms < window.end_ms)
        count = int(np.count_nonzero(jobs.doubled & of_all))
        text = f"{plural(count, 'job')} of {{n}} accepted {'was' if count == 1 else 'were'} done more than once"
    else:
        count = int(np.count_nonzero(jobs.lost & chosen))
        text = f"{plural(count, 'job')} of {{n}} accepted {'was' if count == 1 else 'were'} lost"
    doubt = _silence(case, jobs.unknown & chosen, expression.metric)
    still_open = int(np.count_nonzero(jobs.open & chosen))
    if still_open and not doubt:
        doubt = f"{plural(still_open, 'job')} had not reached its deadline when the system was asked"
        if not any(event.phase == "end" for _, event in all_of(case.events, ev.PhaseEntered)):
            doubt = f"{plural(still_open, 'job')} still in the system when the run was stopped"
    events = (*events, *(recorded.seq for recorded, _ in case.ledgers.values()))
    return Measured(Interval(count, count, count, n), exact=True, text=text, doubt=doubt, events=events)


def _silence(case: Case, unknown: NDArray[np.bool_], metric: str) -> str:
    """What an instance without a ledger leaves open: jobs that nobody else settled, and any that it did once more."""
    count = int(np.count_nonzero(unknown))
    silent = case.silent_ledgers
    if not silent or not (count or metric == "jobs_doubled"):
        return ""
    detail = f" ({silent[0].detail})" if silent[0].detail else ""
    why = f"{', '.join(reading.instance for reading in silent)} did not give its ledger{detail}"
    return f"{why}: what became of {plural(count, 'job')} is not known" if count else why
