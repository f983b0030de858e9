"""Jobs lost, done twice and done where they must not be: counted, without an interval. One is enough."""

from __future__ import annotations

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from stormdrill.core.case import NOTHING, Case, Measured
from stormdrill.core.intervals import Interval
from stormdrill.core.jobs import Jobs
from stormdrill.core.sentences import plural
from stormdrill.core.windows import WHOLE, Span, all_of
from stormdrill.model import event as ev
from stormdrill.model.expression import Comparison

AFTER_THE_FAULT = ("recovery", "failback")


def measure_jobs(case: Case, expression: Comparison, window: Span) -> Measured:
    """Of the jobs accepted in the window; the whole run includes those of the warm-up."""
    jobs = case.jobs
    if jobs is None:
        return replace(NOTHING, doubt="the system's job ledger was not read")
    fits = np.array([expression.labels.items() <= kind.labels.items() for kind in case.requests.kinds], dtype=np.bool_)
    if expression.metric == "jobs_strayed":
        fits = fits & np.array([bool(region) for region in case.residencies], dtype=np.bool_)
    events = tuple(r.seq for r, e in all_of(case.events, ev.RecordClosed) if e.file.endswith("jobs.ndjson"))
    events = (*events, *(recorded.seq for recorded, _ in case.ledgers.values()))
    chosen = fits[jobs.kind] if len(fits) else np.zeros(0, np.bool_)
    if window.name != WHOLE:
        start_ms = _from_ms(expression.metric, window)
        chosen = chosen & (jobs.accepted_ms >= start_ms) & (jobs.accepted_ms < window.end_ms)
    n = int(np.count_nonzero(chosen))
    count, text = _counted(jobs, expression.metric, chosen, _of_all(case, jobs, expression.metric, fits, window))
    doubt = _silence(case, jobs.unknown & chosen, expression.metric) or _placeless(case, jobs, expression, fits, window)
    still_open = int(np.count_nonzero(jobs.open & chosen))
    if still_open and not doubt:
        doubt = f"{plural(still_open, 'job')} had not reached its deadline when the system was asked"
        if not any(event.phase == "end" for _, event in all_of(case.events, ev.PhaseEntered)):
            doubt = f"{plural(still_open, 'job')} still in the system when the run was stopped"
    if expression.metric == "jobs_strayed" and not n:
        doubt = doubt or "no accepted job was bound to a region"
    return Measured(Interval(count, count, count, n), exact=True, text=text, doubt=doubt, events=events)


def _from_ms(metric: str, window: Span) -> float:
    """The ledger doesn't say when a job was done again: after the fault it may be any that was accepted before."""
    return -np.inf if metric != "jobs_lost" and window.name in AFTER_THE_FAULT else window.start_ms


def _of_all(case: Case, jobs: Jobs, metric: str, fits: NDArray[np.bool_], window: Span) -> NDArray[np.bool_]:
    """Every request of the window with these labels, accepted or not: what was done without being accepted counts."""
    of_all = fits[jobs.doubled_kind] if len(fits) else np.zeros(0, np.bool_)
    if window.name != WHOLE:
        at_ms = case.requests.at_ms
        of_all = of_all & (at_ms >= _from_ms(metric, window)) & (at_ms < window.end_ms)
    return of_all


def _counted(jobs: Jobs, metric: str, chosen: NDArray[np.bool_], of_all: NDArray[np.bool_]) -> tuple[int, str]:
    if metric == "jobs_lost":
        count = int(np.count_nonzero(jobs.lost & chosen))
        return count, f"{plural(count, 'job')} of {{n}} accepted {_were(count)} lost"
    if metric == "jobs_doubled":
        count = int(np.count_nonzero(jobs.doubled & of_all))
        return count, f"{plural(count, 'job')} of {{n}} accepted {_were(count)} done more than once"
    count = int(np.count_nonzero(jobs.strayed & of_all))
    return count, f"{plural(count, 'job')} of {{n}} bound to a region {_were(count)} done in another"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def _placeless(case: Case, jobs: Jobs, expression: Comparison, fits: NDArray[np.bool_], window: Span) -> str:
    if expression.metric != "jobs_strayed":
        return ""
    count = int(np.count_nonzero(jobs.placeless & _of_all(case, jobs, expression.metric, fits, window)))
    return f"the ledger doesn't say where {plural(count, 'job')} {_were(count)} done" if count else ""


def _silence(case: Case, unknown: NDArray[np.bool_], metric: str) -> str:
    """What an instance without a ledger leaves open: jobs that nobody else settled, and any that it did once more."""
    count = int(np.count_nonzero(unknown))
    silent = case.silent_ledgers
    if not silent or not (count or metric != "jobs_lost"):
        return ""
    detail = f" ({silent[0].detail})" if silent[0].detail else ""
    why = f"{', '.join(reading.instance for reading in silent)} did not give its ledger{detail}"
    return f"{why}: what became of {plural(count, 'job')} is not known" if count else why
