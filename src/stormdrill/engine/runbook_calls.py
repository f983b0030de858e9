"""What a step asks of the world, rendered and judged: sources, conditions, captures, undos. Decides nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from stormdrill.model.undo import Call, Command
from stormdrill.ports import Caller, Ran, Reply
from stormdrill.spec.runbook_body import Capture, Condition, Content, Program, Request, Seen, Source
from stormdrill.spec.runbook_path import Missing, compare, look_up, show
from stormdrill.spec.runbook_template import UnrenderableError, Value, render_body, render_text, render_url, value_of

LONGEST_CAPTURE = 1_000
UNDO_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Ready:
    """A source with every value in its place: exactly what will be sent or run."""

    method: str
    url: str = ""
    body: str = ""
    argv: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """One line, as a person reads and approves it."""
        if self.argv:
            return f"run: {json.dumps(list(self.argv), ensure_ascii=False)}"
        return f"{self.method} {self.url} {self.body}".rstrip()


@dataclass(frozen=True, slots=True)
class Look:
    """One answer. `error` set: there is none; `doubtful`: the other side may have acted all the same."""

    status: int = 0
    code: int | None = None
    text: str = ""
    error: str = ""
    doubtful: bool = False

    @property
    def json(self) -> object:
        """The parsed body, or a `Missing` that says why there is none."""
        try:
            return json.loads(self.text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            return Missing(f"the answer is not JSON: {show(self.text[:120])}")


def _refuse_constant(word: str) -> object:
    raise ValueError(f"{word} is not JSON")


def ready(source: Source, context: Mapping[str, object]) -> Ready:
    """Raises UnrenderableError."""
    if isinstance(source, Program):
        return Ready("run", argv=tuple(render_text(argument, context) for argument in source.argv))
    return Ready(source.method, render_url(source.url, context), render_body(source.body, context))


def look(caller: Caller, asked: Ready, timeout_s: float) -> Look:
    """Make the call, once."""
    if asked.argv:
        return _of_command(caller.command(asked.argv, timeout_s))
    return _of_reply(caller.http(asked.method, asked.url, asked.body, timeout_s))


def _of_reply(reply: Reply) -> Look:
    if reply.error:
        return Look(reply.status, text=reply.text, error=reply.error, doubtful=reply.sent)
    return Look(reply.status, text=reply.text, doubtful=reply.status >= 500)


def _of_command(ran: Ran) -> Look:
    if ran.error:
        return Look(code=ran.code, text=ran.output, error=ran.error, doubtful=ran.started)
    complaint = f": {ran.complaint.strip().splitlines()[-1][:200]}" if ran.code and ran.complaint.strip() else ""
    return Look(
        code=ran.code, text=ran.output, error=complaint and f"exit {ran.code}{complaint}", doubtful=bool(ran.code)
    )


def accepted(
    asked: Ready, answer: Look, expects: Sequence[Condition], context: Mapping[str, object]
) -> tuple[bool, str]:
    """Whether the answer is what the step expects: by default a 2xx status or exit code 0."""
    subjects = {condition.subject for condition in expects}
    own_code = bool(asked.argv) and "exit" in subjects and answer.code is not None
    if answer.error and not own_code:
        return False, answer.error
    if asked.argv and "exit" not in subjects and answer.code != 0:
        return False, f"exit {answer.code}"
    if not asked.argv and "status" not in subjects and not 200 <= answer.status < 300:
        return False, f"{asked.method} {urlsplit(asked.url).path or '/'} answered {answer.status}"
    for condition in expects:
        held, seen = holds(condition, answer, context)
        if not held:
            return False, f"{condition.text}: {seen}"
    return True, _first(answer, expects, context)


def _first(answer: Look, expects: Sequence[Condition], context: Mapping[str, object]) -> str:
    return f"{expects[0].text}: {holds(expects[0], answer, context)[1]}" if expects else ""


def holds(condition: Condition, answer: Look, context: Mapping[str, object]) -> tuple[bool, str]:
    """Whether it holds, and what was seen. Raises UnrenderableError for a value that cannot be rendered."""
    left: object
    if condition.subject == "status":
        left = answer.status
    elif condition.subject == "exit":
        left = answer.code
    elif condition.subject == "output":
        left = answer.text
    else:
        left = answer.json
        left = left if isinstance(left, Missing) else look_up(left, condition.path)
    return compare(left, condition.op, wanted(condition, context))


def wanted(condition: Condition, context: Mapping[str, object]) -> Value:
    """The value that a condition compares with."""
    if condition.value.startswith("{{"):
        return value_of(condition.value[2:-2].strip(), context)
    value: Value = json.loads(condition.value)
    return value


def seen_holds(caller: Caller, seen: Seen, context: Mapping[str, object], timeout_s: float) -> tuple[bool, str]:
    """Look once at what `verify:` or a wait-until names."""
    asked = ready(seen.source, context)
    answer = look(caller, asked, timeout_s)
    return accepted(asked, answer, (seen.condition,), context)


def captured(
    caller: Caller, capture: Capture, own: Look | None, context: Mapping[str, object], timeout_s: float
) -> tuple[Value | Missing, str]:
    """The captured value, or a `Missing`; and the JSON text that is journalled."""
    answer = own
    if capture.source is not None:
        asked = ready(capture.source, context)
        answer = look(caller, asked, timeout_s)
        if capture.path == ("exit",) and answer.code is not None:
            return answer.code, json.dumps(answer.code)
        held, why = accepted(asked, answer, (), context)
        if not held:
            return Missing(why), ""
    if answer is None:
        return Missing("there is no answer to capture from"), ""
    value = answer.json
    value = value if isinstance(value, Missing) else look_up(value, capture.path)
    if isinstance(value, Missing):
        return value, ""
    if not isinstance(value, str | int | float | bool | None):
        return Missing(f"{capture.name} is not one plain value"), ""
    text = json.dumps(value, ensure_ascii=False)
    if len(text) > LONGEST_CAPTURE:
        return Missing(f"{capture.name} has more than {LONGEST_CAPTURE} characters"), ""
    return value, text


def undo_of(content: Content, context: Mapping[str, object]) -> tuple[Call | Command, ...]:
    """The undo as data, rendered before the harm. Raises UnrenderableError."""
    found: list[Call | Command] = []
    for source in content.requests:
        asked = ready(source, context)
        if isinstance(source, Request):
            found.append(Call(asked.method, asked.url, asked.body, UNDO_TIMEOUT_S))
        else:
            found.append(Command(asked.argv))
    if not found:
        raise UnrenderableError("the undo block calls nothing")
    return tuple(found)
