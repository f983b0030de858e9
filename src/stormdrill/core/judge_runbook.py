"""The runbook's verdict, which counts like an objective's: started by what it answers, and its exit met."""

from __future__ import annotations

import math

from stormdrill.core.case import Case
from stormdrill.core.judge_alerts import firing_from
from stormdrill.core.judge_bites import unbitten
from stormdrill.core.sentences import number
from stormdrill.core.validity import distrusted
from stormdrill.core.windows import WHOLE, Span, all_of
from stormdrill.model import event as ev
from stormdrill.model.expression import AlertWithin
from stormdrill.model.verdict import RunbookVerdict, StepVerdict, Word

ELSE_AFTER = "else_after"


def judge_runbook(case: Case) -> RunbookVerdict | None:
    """None when the experiment names no runbook."""
    use = case.plan.experiment.runbook
    if use is None:
        return None
    started = all_of(case.events, ev.RunbookStarted)
    steps = tuple(_steps(case))
    trigger = started[0][1].trigger if started else ""
    word, sentence = _word(case, trigger if started else None)
    found = RunbookVerdict(use.run, word, trigger, steps, sentence)
    whole = case.spans.get(WHOLE)
    if whole is None or case.inject is None or word == "INCONCLUSIVE":
        return found
    fault = case.spans.get("fault", whole)
    taints = case.validity.of(Span("fault", case.inject.mono_ms, fault.end_ms, True, ()), from_records=False)
    if taints:
        return RunbookVerdict(use.run, "INVALID", trigger, steps, distrusted(taints[0], sentence))
    return found


def _word(case: Case, trigger: str | None) -> tuple[Word, str]:
    use = case.plan.experiment.runbook
    assert use is not None
    name = f"runbook {use.run}"
    finished = all_of(case.events, ev.RunbookFinished)
    aborted = bool(all_of(case.events, ev.AbortRequested))
    if trigger is None:
        if case.inject is None:
            return "INCONCLUSIVE", f"{name} had nothing to answer: nothing was injected"
        if aborted:
            return "INCONCLUSIVE", f"{name} had not started when the run was stopped"
        if unfelt := unbitten(case, math.inf):
            return "INCONCLUSIVE", f"{name} never started: {use.start.text} was not seen, and {unfelt}"
        return "FAIL", f"{name} never started: {use.start.text} was not seen"
    if trigger == ELSE_AFTER:
        if unfelt := unbitten(case, math.inf):
            why = f"{use.start.text} was not seen, and {unfelt}"
            return "INCONCLUSIVE", f"{name} was started by the clock after {number(use.else_after_s)} s: {why}"
        return "FAIL", (
            f"{name} was started by the clock after {number(use.else_after_s)} s: "
            f"{use.start.text} was not seen, so detection failed"
        )
    if not finished:
        word: Word = "INCONCLUSIVE" if aborted else "FAIL"
        return word, f"{name} did not come to its end"
    last = finished[-1][1]
    detail = f": {last.detail}" if last.detail else ""
    if last.outcome == "done":
        if _held_before(case):
            why = f"{use.start.text} held before any fault was in force: that is no detection"
            return "INCONCLUSIVE", f"{name} met its exit, but {why}"
        return "PASS", f"{name} was started by {trigger} and met its exit after {number(last.took_ms / 1000)} s"
    if last.outcome == "cancelled" and aborted:
        return "INCONCLUSIVE", f"{name} was cancelled when the run was stopped{detail}"
    how = "ran out of time" if last.outcome == "cancelled" else "did not meet its exit"
    return "FAIL", f"{name} {how}{detail}"


def _held_before(case: Case) -> bool:
    """Whether what started the runbook was there before the harm, and not for the harm."""
    use = case.plan.experiment.runbook
    started = all_of(case.events, ev.RunbookStarted)
    if use is None or case.inject is None or not started:
        return False
    if isinstance(use.start, AlertWithin):
        before, fired = firing_from(case.events, use.start, case.inject.mono_ms)
        return before is not None and (fired is None or fired.mono_ms > started[0][0].mono_ms)
    held = [r.mono_ms for r, event in all_of(case.events, ev.ConditionHeld) if event.condition == use.start.text]
    return bool(held) and min(held) < case.inject.mono_ms


def _steps(case: Case) -> list[StepVerdict]:
    """In the order in which they ended; a step that was tried again appears again."""
    kinds = {event.step: event.kind for _, event in all_of(case.events, ev.StepStarted)}
    return [
        StepVerdict(event.step, kinds.get(event.step, ""), event.outcome, event.took_ms)
        for _, event in all_of(case.events, ev.StepFinished)
    ]
