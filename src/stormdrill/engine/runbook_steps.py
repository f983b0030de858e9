"""Steps that change nothing: checks, decisions, waits, and what a person does by hand."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import structs

from stormdrill.engine.runbook_calls import accepted, captured, look, ready, seen_holds, wanted
from stormdrill.engine.runbook_hands import Hands, Result
from stormdrill.engine.runbook_person import Question
from stormdrill.model.expression import AlertWithin, Comparison, Expression
from stormdrill.model.runbook import Step
from stormdrill.spec.expression import parse_expression
from stormdrill.spec.runbook_body import Branch, Content, Seen
from stormdrill.spec.runbook_path import Missing, compare, show
from stormdrill.spec.runbook_template import Value, render_text

Runner = Callable[[Hands, Step, Content, int], Result]


def run_check(hands: Hands, step: Step, content: Content, attempt: int) -> Result:
    """Look until it is as expected, at most for the time-out."""
    asked = ready(content.requests[0], hands.context)
    lines = [asked.text, *(f"expect: {condition.text}" for condition in content.expects)]
    hands.begin(step, attempt, "\n".join(lines))
    found: dict[str, str] = {}

    def ask(limit_s: float) -> tuple[bool, str]:
        answer = look(hands.caller, asked, limit_s)
        held, detail = accepted(asked, answer, content.expects, hands.context)
        if not held:
            return False, detail
        for capture in content.captures:
            value, text = captured(hands.caller, capture, answer, hands.context, limit_s)
            if isinstance(value, Missing):
                return False, f"capture {capture.name}: {value.detail}"
            hands.captured[capture.name], found[capture.name] = value, text
        return True, detail

    held, detail = hands.until(step.timeout_s, ask)
    return Result("ok" if held else "failed", detail, found if held else {})


def run_decision(hands: Hands, step: Step, content: Content, attempt: int) -> Result:
    """The first branch that holds. A reading that isn't there chooses nothing, not even otherwise."""
    asked = [ready(reading.source, hands.context).text for reading in content.readings if reading.source]
    lines = [f"{reading.name}: {text}" for reading, text in zip(content.readings, asked, strict=True)]
    hands.begin(step, attempt, "\n".join([*lines, *(f"- {branch.text} → {branch.go}" for branch in content.branches)]))
    readings: dict[str, Value] = {}

    def ask(limit_s: float) -> tuple[bool, str]:
        for reading in content.readings:
            value, _ = captured(hands.caller, reading, None, hands.context, limit_s)
            if isinstance(value, Missing):
                return False, f"{reading.name}: {value.detail}"
            readings[reading.name] = value
        return True, ""

    held, detail = hands.until(step.timeout_s, ask)
    seen = ", ".join(f"{name} = {show(value)}" for name, value in readings.items())
    if not held:
        return Result("failed", detail)
    for branch in content.branches:
        chosen, problem = _chosen(branch, readings, hands)
        if problem:
            return Result("failed", problem)
        if chosen:
            return Result("ok", f"{seen} → {branch.go}", goes_to=branch.go)
    return Result("failed", f"{seen}: no branch holds")


def _chosen(branch: Branch, readings: dict[str, Value], hands: Hands) -> tuple[bool, str]:
    for condition in branch.conditions:
        value, limit = readings[condition.subject], wanted(condition, hands.context)
        if condition.op in {"<", "<=", ">", ">="} and not all(_number(side) for side in (value, limit)):
            return False, f"{condition.subject} is {show(value)}: {condition.op} {show(limit)} compares numbers"
        if not compare(value, condition.op, limit)[0]:
            return False, ""
    return True, ""


def _number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def run_wait(hands: Hands, step: Step, content: Content, attempt: int) -> Result:
    """Wait until something holds, without a break for as long as it says."""
    if content.waits:
        seen = content.waits[0]
        text = f"{ready(seen.source, hands.context).text} {seen.condition.text}"
        hands.begin(step, attempt, f"{text} for {seen.for_s:g}s" if seen.for_s else text)
        return _wait_for_answer(hands, step, seen)
    text = render_text(content.expressions[0][0], hands.context)
    hands.begin(step, attempt, text)
    try:
        expression = parse_expression(text)
    except ValueError as error:
        return Result("failed", f"{text!r} after rendering: {error}")
    return wait_for(hands, step, expression)


def _wait_for_answer(hands: Hands, step: Step, seen: Seen) -> Result:
    steady = _Steady(hands, seen.for_s)

    def ask(limit_s: float) -> tuple[bool, str]:
        return steady.see(*seen_holds(hands.caller, seen, hands.context, limit_s))

    held, detail = hands.until(step.timeout_s, ask)
    return Result("ok" if held else "timed-out", detail)


def wait_for(hands: Hands, step: Step, expression: Expression) -> Result:
    """Wait on live data. Without eyes a person is asked; without a person it fails at once, and says so."""
    for_s = expression.for_s or 0.0 if isinstance(expression, Comparison) else 0.0
    steady = _Steady(hands, for_s)
    now = structs.replace(expression, for_s=None) if isinstance(expression, Comparison) else expression
    never: list[str] = []

    def ask(_limit_s: float) -> tuple[bool, str]:
        if hands.sight is None:
            never.append(f"nothing here can see {_name(expression)}")
            return True, ""
        held = hands.sight.evaluate(now)
        if held.never:
            never.append(held.detail or f"nothing here can see {_name(expression)}")
            return True, ""
        value = "" if held.value is None else f"{_name(expression)} is {held.value:g}"
        return steady.see(held.fresh and held.held, held.detail or value)

    held, detail = hands.until(step.timeout_s, ask)
    if never:
        return _observed(hands, step, expression, never[-1])
    return Result("ok" if held else "timed-out", detail)


def _name(expression: Expression) -> str:
    if isinstance(expression, AlertWithin):
        return f"alert({expression.alert})"
    labels = ",".join(f"{name}={value}" for name, value in expression.labels.items())
    return expression.metric + (f"{{{labels}}}" if labels else "")


def _observed(hands: Hands, step: Step, expression: Expression, why: str) -> Result:
    text = f"{why}. Look at your dashboard: does this hold?\n  {expression.text}"
    answer = hands.ask(Question("observe", step.id, text, ("yes", "no")), step.timeout_s)
    if answer is None:
        return Result("failed", f"{why}, and nobody answered" if hands.person else why)
    assert hands.person is not None
    return Result("ok" if answer == "yes" else "failed", f"{hands.person.name} says {answer}")


class _Steady:
    """Turns "holds now" into "has held without a break for so long"."""

    def __init__(self, hands: Hands, for_s: float) -> None:
        self._hands, self._for_s = hands, for_s
        self._since: float | None = None

    def see(self, held: bool, detail: str) -> tuple[bool, str]:
        now = self._hands.clock()
        if not held:
            self._since = None
            return False, detail
        if self._since is None:
            self._since = now
        lasted = now - self._since
        if lasted >= self._for_s:
            return True, f"{detail}, for {lasted:.1f} s" if self._for_s else detail
        return False, f"{detail}, for {lasted:.1f} s of {self._for_s:g} s"


def run_manual(hands: Hands, step: Step, content: Content, attempt: int) -> Result:
    """A person does it and says so. Without a person it is skipped or failed, as the step says; then it is verified."""
    text = "\n".join(render_text(line, hands.context) for line in content.prose)
    hands.begin(step, attempt, text)
    if hands.person is None:
        outcome = "skipped" if step.unattended == "skip" else "failed"
        return Result(outcome, f"nobody is there to do it (unattended={step.unattended})")
    answer = hands.ask(Question("manual", step.id, text, ("done", "skip", "failed")), step.timeout_s)
    if answer is None:
        return Result("timed-out", "nobody said that it is done")
    detail = f"{hands.person.name} says {answer}"
    if answer != "done":
        return Result("skipped" if answer == "skip" else "failed", detail)
    for seen in content.verifies:
        held, why = verified(hands, seen, step.timeout_s)
        if not held:
            return Result("failed", f"{detail}, but {why}")
    return Result("ok", detail)


def verified(hands: Hands, seen: Seen, limit_s: float) -> tuple[bool, str]:
    """Look again until it holds, at most for `limit_s`."""
    context = hands.context
    held, detail = hands.until(limit_s, lambda look_s: seen_holds(hands.caller, seen, context, look_s))
    return held, detail if held else f"not verified, {seen.condition.text}: {detail}"
