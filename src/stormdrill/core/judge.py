"""`judge`: the verdict of a run, from its record alone. Pure; the same input gives the same bytes.

The validity of the evidence comes first, objective by objective; then the worst wins:
FAIL > INVALID > INCONCLUSIVE > PASS. Around that stand the rules that no objective knows of: no verdict without a
healthy baseline, without exposure, without a bite; a guard that trips is a FAIL; a run that was stopped has not passed.
"""

from __future__ import annotations

from collections.abc import Sequence

from stormdrill.core.case import Case
from stormdrill.core.evidence import RecordFile
from stormdrill.core.judge_backpressure import checks_text, judge_checks
from stormdrill.core.judge_faults import ended_by_itself, ended_early, judge_faults, let_through, not_reverted
from stormdrill.core.judge_metrics import JOBS
from stormdrill.core.judge_objectives import held_text, judge_objective
from stormdrill.core.judge_runbook import judge_runbook
from stormdrill.core.judge_status import guard_trip, load_lost, status_of, stopped_by, stopped_word
from stormdrill.core.sentences import plural
from stormdrill.core.times import times_of
from stormdrill.core.validity import lag_p99_ms
from stormdrill.core.windows import GIVEN_UP_MS, WHOLE, Span, all_of
from stormdrill.model import event as ev
from stormdrill.model.expression import Comparison
from stormdrill.model.plan import Plan
from stormdrill.model.verdict import (
    WORST_FIRST,
    CheckVerdict,
    FaultVerdict,
    LoadVerdict,
    ObjectiveVerdict,
    RunbookVerdict,
    Verdict,
    Word,
)
from stormdrill.ports import LedgerRow

DOUBT: Word = "INCONCLUSIVE"
Ruling = tuple[Word, str]
"""A word and the sentence that says why."""


def judge(
    plan: Plan, events: Sequence[ev.Recorded], records: Sequence[RecordFile], ledger: Sequence[LedgerRow] | None
) -> Verdict:
    """The verdict of a run. `ledger` is None when nobody wrote down what the system says of its jobs."""
    case = Case(plan, events, records, ledger)
    objectives = tuple(judge_objective(case, objective) for objective in plan.experiment.objectives)
    faults = judge_faults(case)
    runbook = judge_runbook(case)
    left = not_reverted(case, faults)
    status = status_of(case, left)
    checks = judge_checks(case)
    rulings = _rulings(case, objectives, checks, faults, runbook, left)
    word, sentence = _overall(case, objectives, checks, rulings)
    reasons = [why for _, why in rulings]
    reasons += [f"{taint.source}: {taint.reason}" for taint in case.validity.records]
    started = all_of(events, ev.RunStarted)
    return Verdict(
        run=started[0][1].run if started else "",
        status=status,
        verdict=word,
        sentence=sentence,
        objectives=objectives,
        faults=faults,
        load=_load(case),
        runbook=runbook,
        times=times_of(case),
        backpressure=checks,
        reasons=tuple(dict.fromkeys(why for why in reasons if why)),
    )


def judge_baseline(
    plan: Plan, events: Sequence[ev.Recorded], records: Sequence[RecordFile]
) -> tuple[ObjectiveVerdict, ...]:
    """The gate before any harm: the baseline's objectives, judged while the run goes on.

    The window ends where the evidence does: the time in which requests may still be in flight (the longest deadline of
    those it asks about, at most half of the phase) is left out. Nothing may be injected unless all PASS.
    """
    case = Case(plan, events, records, None, live=True)
    whole = case.spans.get("baseline")
    last_ms = max((recorded.mono_ms for recorded in events), default=0.0)
    found = []
    for objective in plan.experiment.objectives:
        if objective.window.phase != "baseline":
            continue
        if whole is not None:
            in_flight_ms = _deadline_ms(case, objective.expression.labels) + GIVEN_UP_MS
            in_flight_ms = min(in_flight_ms, (last_ms - whole.start_ms) / 2)
            case.spans["baseline"] = Span("baseline", whole.start_ms, last_ms - in_flight_ms, True, whole.events)
        found.append(judge_objective(case, objective))
    return tuple(found)


def _deadline_ms(case: Case, labels: dict[str, str]) -> float:
    chosen = [kind.deadline_ms for kind in case.requests.kinds if labels.items() <= kind.labels.items()]
    return max(chosen, default=0.0)


def _rulings(
    case: Case,
    objectives: Sequence[ObjectiveVerdict],
    checks: Sequence[CheckVerdict],
    faults: Sequence[FaultVerdict],
    runbook: RunbookVerdict | None,
    left: Sequence[str],
) -> list[Ruling]:
    """Everything beside the objectives that weighs on the verdict."""
    rulings: list[Ruling] = []
    trip, stopped = guard_trip(case), stopped_by(case)
    if trip is not None:
        rulings.append(trip)
    if stopped:
        rulings.append((stopped_word(case), stopped))
    if runbook is not None and runbook.verdict != "PASS":
        rulings.append((runbook.verdict, runbook.sentence))
    if case.plan.injections and case.inject is None:
        rulings.append(("INCONCLUSIVE", "nothing was injected"))
    elif case.plan.injections:
        through = let_through(case)
        rulings += [("FAIL", why) for why in through.values()]
        rulings += _fault_rulings([fault for fault in faults if (fault.name, fault.target) not in through])
        rulings += [("INVALID" if hand.gone else DOUBT, hand.sentence) for hand in case.hands if hand.others]
        rulings += [("INCONCLUSIVE", why) for why in ended_early(case) if not stopped and trip is None]
    if left:
        rulings.append(("INCONCLUSIVE", f"it could not be shown that everything was reverted: {', '.join(left)}"))
    rulings += [("INCONCLUSIVE", why) for why in ended_by_itself(case)]
    for _, restored in all_of(case.events, ev.Restored):
        if not restored.ok:
            rulings.append(("INCONCLUSIVE", f"the system was not restored: {restored.detail}"))
    if not objectives and not checks:
        rulings.append(("INCONCLUSIVE", "the experiment asks for nothing: it has no objectives"))
    if not case.plan.injections and case.spans and "fault" not in case.spans:
        rulings.append(("INCONCLUSIVE", "the run never came to the load that was to be the trigger"))
    return rulings


def _fault_rulings(faults: Sequence[FaultVerdict]) -> list[Ruling]:
    rulings: list[Ruling] = []
    unexposed = [fault for fault in faults if not fault.exposed]
    unbitten = [fault for fault in faults if not fault.bit]
    if unexposed:
        why = f"{unexposed[0].name} hit what nobody used: {unexposed[0].detail.split('; ')[0]}"
        rulings.append(("INCONCLUSIVE", why))
    if unbitten:
        names = ", ".join(fault.target for fault in unbitten)
        rulings.append(("INCONCLUSIVE", f"{unbitten[0].name} was not seen to bite on {names}"))
    return rulings


def _overall(
    case: Case, objectives: Sequence[ObjectiveVerdict], checks: Sequence[CheckVerdict], rulings: Sequence[Ruling]
) -> Ruling:
    """Lost jobs first, then the gate, then the worst."""
    for asked, found in zip(case.plan.experiment.objectives, objectives, strict=True):
        expression = asked.expression
        if isinstance(expression, Comparison) and expression.metric in JOBS and found.verdict == "FAIL":
            return "FAIL", found.sentence
    if load_lost(case):
        return "INVALID", stopped_by(case)
    gate = _gate(case, objectives)
    if gate is not None:
        return gate if stopped_word(case) != "INVALID" else ("INVALID", stopped_by(case))
    asked_for = [(item.verdict, item.sentence) for item in objectives]
    asked_for += [(item.verdict, f"{item.name}: {item.sentence}") for item in checks]
    found_words: list[Ruling] = [*rulings, *asked_for]
    if not stopped_by(case) and guard_trip(case) is None:  # then what was asked comes first
        found_words = [*found_words[len(rulings) :], *rulings]
    for word in WORST_FIRST[:-1]:
        whys = [why for found, why in found_words if found == word]
        if whys:
            more = f" (and {len(whys) - 1} more)" if len(whys) > 1 else ""
            return word, f"{whys[0]}{more}"
    return "PASS", _praise(tuple(objectives), checks, case)


def _praise(objectives: tuple[ObjectiveVerdict, ...], checks: Sequence[CheckVerdict], case: Case) -> str:
    gone = len(case.plan.injections)
    faults = f"; {plural(gone, 'injection')} bit and {'is' if gone == 1 else 'are'} gone" if gone else ""
    held = [held_text(objectives)] if objectives or not checks else []
    return " and ".join([*held, *([checks_text(checks)] if checks else [])]) + faults


def _gate(case: Case, objectives: Sequence[ObjectiveVerdict]) -> Ruling | None:
    """No harm without health, and no verdict either. Where the gate let the fault in, a doubt about the baseline that
    came up since weighs as any other doubt does: what failed in the fault has failed."""
    passed = any(event.healthy for _, event in all_of(case.events, ev.BaselineJudged))
    ill = [
        found
        for asked, found in zip(case.plan.experiment.objectives, objectives, strict=True)
        if asked.window.phase == "baseline" and found.verdict != "PASS" and not (passed and found.verdict == DOUBT)
    ]
    if not ill:
        return None
    for found in ill:
        if found.verdict == "INVALID":
            return "INVALID", found.sentence
    return "INCONCLUSIVE", f"no healthy baseline: {ill[0].sentence}"


def _load(case: Case) -> LoadVerdict | None:
    """None for an experiment without load."""
    if case.plan.experiment.load is None:
        return None
    ended = [event for _, event in all_of(case.events, ev.LoadEnded)]
    judged = case.spans.get(WHOLE)
    taints = list(case.validity.records)
    requests = case.requests
    if judged is not None:
        taints += case.validity.generator(judged)
        requests = requests.between(judged.start_ms, judged.end_ms)
    last = ended[-1] if ended else ev.LoadEnded(len(case.requests), len(case.requests), 0, 0, 0.0, 0, "")
    return LoadVerdict(
        scheduled=last.scheduled,
        sent=last.sent,
        dropped=last.dropped,
        unfinished=last.unfinished,
        lag_p99_ms=round(lag_p99_ms(requests), 3) if len(requests) else last.lag_p99_ms,
        valid=not taints,
        reason="; ".join(taint.reason for taint in taints),
    )
