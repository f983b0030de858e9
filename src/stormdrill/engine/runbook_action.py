"""The one kind of step that changes something: capture, approve, write down, arm the undo, call, verify."""

from __future__ import annotations

import json
from dataclasses import dataclass

from stormdrill.engine.runbook_calls import Look, Ready, accepted, captured, look, ready, undo_of
from stormdrill.engine.runbook_hands import HaltedError, Hands, RecordLostError, Result, digest_of
from stormdrill.engine.runbook_person import Question
from stormdrill.engine.runbook_progress import PREFIX
from stormdrill.engine.runbook_steps import verified
from stormdrill.errors import StormdrillError
from stormdrill.model.event import Approval
from stormdrill.model.runbook import Step
from stormdrill.model.undo import Undo, undo_to_json
from stormdrill.spec.runbook_body import Content, read_body
from stormdrill.spec.runbook_path import Missing
from stormdrill.spec.runbook_template import Value

UNDO_WAITS_S = 3600.0
MOST_APPROVALS = 3
"""How often a step is shown again because what it would do changed while it was being approved."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """An action with every value in its place, before anything is done."""

    asked: Ready
    text: str
    undo: tuple[Undo, ...]
    captured: dict[str, str]


class _NotPreparedError(Exception):
    """A value that the action or its undo needs could not be read."""


def run_action(hands: Hands, step: Step, content: Content, attempt: int) -> Result:
    """Raises RecordLostError before the call when anything about it could not be written down."""
    try:
        prepared, refusal = _approved(hands, step, content)
    except _NotPreparedError as error:
        return Result("failed", str(error))
    if refusal:
        hands.begin(step, attempt, prepared.text, prepared.captured)
        return Result("failed", refusal)
    hands.begin(step, attempt, prepared.text, prepared.captured)
    hands.kept.update(prepared.captured)
    injection = _arm(hands, step, prepared.undo)
    try:
        hands.check()
    except HaltedError:
        _disarm(hands, injection)
        raise
    answer = look(hands.caller, prepared.asked, step.timeout_s)
    if answer.error and not answer.doubtful:
        _disarm(hands, injection)
        return Result("failed", f"{answer.error}; nothing was sent")
    return _judged(hands, step, content, prepared, answer)


def redo_unknown(hands: Hands, step: Step, content: Content, attempt: int) -> Result | None:
    """A step whose outcome is unknown, before anything else is done with it: seen by its verification, or asked.

    None: do it again.
    """
    if step.idempotent:
        return None
    seen = [verified(hands, one, min(step.timeout_s, 5.0)) for one in content.verifies]
    held = all(one for one, _ in seen)
    state = "its verification holds now" if held else f"its verification does not hold now ({seen[-1][1]})"
    text = f"{step.id} was started, and whether it happened is not known; it is not idempotent, and {state}."
    answer = hands.ask(Question("unknown", step.id, text, ("happened", "again", "stop")), hands.approval_expires_s)
    if answer == "again":
        return None
    hands.begin(step, attempt, f"asked whether {step.id} happened; nothing is executed")
    if answer == "happened":
        assert hands.person is not None
        return Result("ok" if held else "unknown", f"{hands.person.name} says that it happened; {state}")
    return Result("unknown", f"{state}, and nobody decided" if answer is None else f"{state}; stopped by a person")


# --- before ----------------------------------------------------------------------------------------------


def _approved(hands: Hands, step: Step, content: Content) -> tuple[_Prepared, str]:
    """The action as approved; or why it isn't. What is executed is what was shown: it is prepared again afterwards."""
    prepared = _prepare(hands, step, content)
    if not step.approvals:
        return prepared, ""
    for _ in range(MOST_APPROVALS):
        digest = digest_of(prepared.text)
        if step.id in hands.approved:
            hands.record(Approval(step.id, "experiment", True, digest))
            return prepared, ""
        if _still_granted(hands, step, digest):
            return prepared, ""
        refusal = _ask(hands, step, prepared, digest)
        if refusal:
            return prepared, refusal
        prepared = _prepare(hands, step, content)
    return prepared, "what it would do changed each time while it was being approved"


def _still_granted(hands: Hands, step: Step, digest: str) -> bool:
    granted = hands.granted.get(step.id)
    return granted is not None and granted[0] == digest and hands.clock() - granted[1] <= hands.approval_expires_s


def _ask(hands: Hands, step: Step, prepared: _Prepared, digest: str) -> str:
    """Ask for the approval and write it down; why there is none, or empty."""
    if hands.person is None:
        hands.record(Approval(step.id, "", False, digest))
        return "it needs an approval, and nobody is there to give it"
    undo = "\n".join(json.dumps(undo_to_json(one), ensure_ascii=False) for one in prepared.undo) or "none"
    text = f"{step.id} · risk {step.risk}\n{prepared.text}\nundo: {undo}"
    answer = hands.ask(Question("approve", step.id, text, ("approve", "refuse"), digest), hands.approval_expires_s)
    granted = answer == "approve"
    hands.record(Approval(step.id, hands.person.name if answer else "", granted, digest))
    if granted:
        hands.granted[step.id] = (digest, hands.clock())
        return ""
    return "not approved" if answer else f"no approval within {hands.approval_expires_s:g} s"


def _prepare(hands: Hands, step: Step, content: Content) -> _Prepared:
    """Captures first, since the undo may need them; then everything is rendered. Raises UnrenderableError too."""
    found: dict[str, str] = {}
    for capture in content.captures:
        if capture.source is None:
            continue
        if capture.name not in hands.kept:
            hands.captured[capture.name] = _captured(hands, step, content, capture.name)
        found[capture.name] = json.dumps(hands.captured[capture.name], ensure_ascii=False)
    asked = ready(content.requests[0], hands.context)
    lines = [asked.text]
    for seen in content.verifies:
        if not any(f"captured.{capture.name}" in seen.condition.value for capture in content.captures):
            lines.append(f"verify: {ready(seen.source, hands.context).text} {seen.condition.text}")
    return _Prepared(asked, "\n".join(lines), _undo(hands, step), found)


def _captured(hands: Hands, step: Step, content: Content, name: str) -> Value:
    capture = next(one for one in content.captures if one.name == name)
    last: list[Value] = []

    def ask(limit_s: float) -> tuple[bool, str]:
        value, _ = captured(hands.caller, capture, None, hands.context, limit_s)
        if isinstance(value, Missing):
            return False, value.detail
        last.append(value)
        return True, ""

    held, detail = hands.until(step.timeout_s, ask)
    if not held:
        raise _NotPreparedError(f"capture {name}: {detail}; nothing was done")
    return last[-1]


def _undo(hands: Hands, step: Step) -> tuple[Undo, ...]:
    if not step.undo:
        return ()
    block = next(undo for undo in hands.runbook.undos if undo.id == step.undo)
    return undo_of(read_body("undo", block.body)[0], hands.context)


# --- the harm, and after ---------------------------------------------------------------------------------


def _arm(hands: Hands, step: Step, undo: tuple[Undo, ...]) -> str:
    """Returns the injection's name; empty when there is nothing to arm. The same undo is armed once."""
    if not undo:
        return ""
    wanted = [undo_to_json(one) for one in undo]
    mine = [name for name in hands.armed if name == PREFIX + step.id or name.startswith(f"{PREFIX}{step.id}/")]
    if any(hands.undos.get(name) == wanted for name in mine):
        return ""
    name = PREFIX + step.id if PREFIX + step.id not in hands.undos else f"{PREFIX}{step.id}/{len(hands.undos) + 1}"
    waits_s = UNDO_WAITS_S if hands.undo_until_s is None else max(1.0, hands.undo_until_s - hands.clock())
    try:
        hands.keeper.arm(name, fault="runbook", instance="", mechanism=step.id, undo=undo, expires_in_s=waits_s)
    except (StormdrillError, OSError, ValueError) as error:
        raise RecordLostError(str(error)) from error
    hands.armed.append(name)
    hands.undos[name] = wanted
    return name


def _disarm(hands: Hands, injection: str) -> None:
    if not injection:
        return
    try:
        hands.keeper.disarm(injection)
    except (StormdrillError, OSError) as error:
        raise RecordLostError(str(error)) from error
    hands.armed.remove(injection)


def _judged(hands: Hands, step: Step, content: Content, prepared: _Prepared, answer: Look) -> Result:
    """What became of a call that went out: by its answer, and by its verification before anything else is done."""
    held, detail = accepted(prepared.asked, answer, content.expects, hands.context)
    if not held and not answer.doubtful:
        return Result("failed", detail)
    found = dict(prepared.captured)
    for capture in content.captures:
        if capture.source is None and held:
            value, text = captured(hands.caller, capture, answer, hands.context, step.timeout_s)
            if isinstance(value, Missing):
                return Result("failed", f"capture {capture.name}: {value.detail}")
            hands.captured[capture.name], found[capture.name] = value, text
    for seen in content.verifies:
        good, why = verified(hands, seen, step.timeout_s)
        if not good:
            return Result("timed-out" if held else "unknown", why if held else f"{detail}; {why}", found)
        detail = why if held else f"{detail}; all the same {seen.condition.text}"
    return Result("ok", detail, found)
