"""The lines inside a runbook's step: requests, commands, conditions, captures, branches. Nothing is rendered here.

Reading yields a typed content whose strings may still hold `{{ … }}`; the executor renders each on its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from stormdrill.model.units import parse_duration
from stormdrill.spec.runbook_path import OPS, Op, parse_path
from stormdrill.spec.runbook_template import UnrenderableError, body_shape, pieces

READING = ("GET", "HEAD")
CHANGING = ("POST", "PUT", "PATCH", "DELETE")
ENDINGS = ("done", "stop")
"""Words that a branch may go to instead of a step."""
_TOKEN = re.compile(r"(?:\{\{.*?\}\}|\"(?:[^\"\\]|\\.)*\"|[^\s{\"]|\{(?!\{)|\")+")
_KEYWORD = re.compile(r"(verify|expect|capture|run|go|when|otherwise)\b\s*:?")
_NAME = re.compile(r"[a-z][a-z0-9_]*")


class Fault(NamedTuple):
    """One problem inside a body: its line and column in the body, both 1-based."""

    line: int
    column: int
    what: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    url: str
    body: str
    line: int


@dataclass(frozen=True, slots=True)
class Program:
    """One command: a vector of templates, never a shell."""

    argv: tuple[str, ...]
    line: int


Source = Request | Program


@dataclass(frozen=True, slots=True)
class Condition:
    """`subject` is `path`, `status`, `exit`, `output`, or in a decision the name of a reading."""

    subject: str
    path: tuple[str | int, ...]
    op: Op
    value: str
    """A JSON scalar, or one `{{ … }}`."""
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Seen:
    """A condition on a fresh answer of its own: the `verify:` line, or one in a wait-until."""

    source: Source
    condition: Condition
    for_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Capture:
    name: str
    source: Source | None
    """None: from the step's own answer."""
    path: tuple[str | int, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Branch:
    conditions: tuple[Condition, ...]
    """Empty: otherwise."""
    go: str
    line: int
    text: str


@dataclass(slots=True)
class Content:
    """A body as read; which of these a step may have depends on its kind."""

    requests: list[Source] = field(default_factory=list)
    expects: list[Condition] = field(default_factory=list)
    verifies: list[Seen] = field(default_factory=list)
    captures: list[Capture] = field(default_factory=list)
    readings: list[Capture] = field(default_factory=list)
    """What a decision looks at, by name."""
    branches: list[Branch] = field(default_factory=list)
    waits: list[Seen] = field(default_factory=list)
    expressions: list[tuple[str, int]] = field(default_factory=list)
    """Expressions of the language that objectives share, with their lines; for wait-until."""
    prose: list[str] = field(default_factory=list)


class _BadLineError(ValueError):
    def __init__(self, what: str, fix: str = "", token: str = "") -> None:
        super().__init__(what)
        self.what, self.fix, self.token = what, fix, token


def read_body(kind: str, body: str) -> tuple[Content, list[Fault]]:
    """Everything in one body, and everything wrong with it."""
    content, faults = Content(), []
    for number, line, rest in _joined(kind, body):
        try:
            pieces(rest)
            _READERS[kind](content, rest, number)
        except (_BadLineError, UnrenderableError) as error:
            token = getattr(error, "token", "") or rest.split(maxsplit=1)[0]
            column = max(line.find(token), len(line) - len(line.lstrip())) + 1
            faults.append(Fault(number, column, str(error), getattr(error, "fix", "")))
    return content, faults


def _joined(kind: str, body: str) -> list[tuple[int, str, str]]:
    """(line number, the line, the text with the lines that continue it), comments and blank lines left out."""
    found: list[tuple[int, str, str]] = []
    for number, line in enumerate(body.splitlines(), 1):
        text = line.strip()
        if not text or (text.startswith("#") and kind != "manual"):
            continue
        if found and kind != "manual" and text[0] in '{}[]"' and not text.startswith("{{"):
            first, shown, before = found[-1]
            found[-1] = (first, shown, f"{before} {text}")
        else:
            found.append((number, line, text))
    return found


# --- sources ---------------------------------------------------------------------------------------------


def _is_source(text: str) -> bool:
    word = text.split(maxsplit=1)[0]
    return (
        word in READING + CHANGING or text.startswith("run:") or (word.isupper() and word.isalpha() and len(word) > 2)
    )


def _source(text: str, line: int, *, reads_only: bool) -> tuple[Source, str]:
    """A request or a command at the start of `text`, and what follows it."""
    if text.startswith("run:"):
        return _program(text[4:].strip(), line)
    method, _, rest = text.partition(" ")
    if method not in READING + CHANGING:
        raise _BadLineError(f"{method!r} is no HTTP method", f"write one of {', '.join(READING + CHANGING)}", method)
    if reads_only and method not in READING:
        raise _BadLineError(
            f"{method} changes something, and this may only look", "write GET, or make it an action", method
        )
    match = _TOKEN.match(rest.strip())
    if match is None:
        raise _BadLineError(f"{method} needs an address", f"write {method} {{{{ admin }}}}/path", method)
    url, after = match[0], rest.strip()[match.end() :].strip()
    spans = pieces(url)
    if not spans[0].expression and not url.startswith(("http://", "https://")):
        raise _BadLineError(
            f"{url!r} is not a whole address", "start it with http://, https:// or a parameter as in {{ admin }}", url
        )
    if re.match(r"https?://[^/\s]*@", url):
        raise _BadLineError("the address holds a user name or a password", "secrets don't belong in a runbook", url)
    body = ""
    if method in CHANGING and after[:1] in {"{", "["}:
        body, after = after, ""
        body_shape(body)
    return Request(method, url, body, line), after


def _program(text: str, line: int) -> tuple[Source, str]:
    hint = 'write run: ["kubectl", "get", "pods"]'
    if not text.startswith("["):
        raise _BadLineError("a command is a list of arguments, never a line for a shell", hint, text.split(" ")[0])
    masked = re.sub(r"\{\{.*?\}\}", lambda match: json.dumps(match[0])[1:-1], text)
    try:
        argv, end = json.JSONDecoder().raw_decode(masked)
    except ValueError as error:
        raise _BadLineError(f"the list of arguments cannot be read ({error})", hint, "run:") from error
    if not argv or not all(isinstance(argument, str) and argument for argument in argv):
        raise _BadLineError("every argument is a text that isn't empty", hint, "run:")
    if "{{" in argv[0]:
        raise _BadLineError(
            "the program's name may not be a template", "name the program, and give values as arguments", "run:"
        )
    for argument in argv:
        pieces(argument)
    return Program(tuple(argv), line), masked[end:].strip()


# --- conditions ------------------------------------------------------------------------------------------


def _condition(text: str, line: int, names: tuple[str, ...] | None = None) -> Condition:
    """`.path op value`, `status == 200`, `exit 0`, `output contains "x"`; in a decision `name op value`."""
    head, _, rest = text.strip().partition(" ")
    rest = rest.strip()
    if head == "exit" and re.fullmatch(r"\d{1,3}", rest):
        return Condition("exit", (), "==", rest, text, line)
    op = next((word for word in OPS if rest.startswith(word)), None)
    if op is None:
        single = f"write {head} =={rest[1:]}" if rest.startswith("=") else "write for example .healthy == true"
        raise _BadLineError(f"{text!r} is no condition", single, head)
    value = rest[len(op) :].strip()
    _check_value(value, op)
    if names is not None:
        if head not in names:
            known = ", ".join(names) or "none yet"
            raise _BadLineError(f"{head!r} was not read above", f"readings here: {known}", head)
        return Condition(head, (), op, value, text, line)
    if head in {"status", "exit", "output"}:
        return Condition(head, (), op, value, text, line)
    return Condition("path", _path(head), op, value, text, line)


def _path(text: str) -> tuple[str | int, ...]:
    if "{{" in text:
        raise _BadLineError("a path may not be rendered", "write it out, as in .draining", text)
    try:
        return parse_path(text)
    except ValueError as error:
        raise _BadLineError(str(error), "write for example .regions[0].name", text) from error


def _check_value(value: str, op: str) -> None:
    spans = pieces(value)
    if any(piece.expression for piece in spans):
        if len(spans) != 1:
            raise _BadLineError(f"{value!r} mixes text and a template", f"write {op} {{{{ name }}}} alone", value)
        return
    try:
        parsed = json.loads(value)
    except ValueError:
        lower = value.lower() in {"true", "false", "null"}
        quoted = value.lower() if lower else json.dumps(value.strip("'"))
        raise _BadLineError(
            f"{value!r} is not a value", f"write {quoted}, a number, true, false or null", value
        ) from None
    if isinstance(parsed, dict | list):
        raise _BadLineError(
            f"{value!r} is not one plain value", "compare with a text, a number, true, false or null", value
        )
    if op in {"<", "<=", ">", ">="} and (isinstance(parsed, bool) or not isinstance(parsed, int | float)):
        raise _BadLineError(
            f"{op} compares numbers, and {value} is none", "write a number, or == for other values", value
        )


def _seen(text: str, line: int) -> Seen:
    """A source and a condition on its answer: `GET … .draining == true`, `run: […] exit 0`."""
    if not _is_source(text):
        raise _BadLineError("this needs its own look", "write GET address .path == value, or run: [...] exit 0")
    source, after = _source(text, line, reads_only=True)
    if not after:
        raise _BadLineError("it says where to look and not what should be there", "add for example .draining == true")
    for_s = 0.0
    held = re.search(r"\s+for\s+(\S+)$", after)
    if held:
        for_s, after = _duration(held[1]), after[: held.start()]
    condition = _condition(after, line)
    _fits(source, condition)
    return Seen(source, condition, for_s)


def _fits(source: Source, condition: Condition) -> None:
    if isinstance(source, Program) and condition.subject == "status":
        raise _BadLineError("a command has no status", "write exit 0", "status")
    if isinstance(source, Request) and condition.subject == "exit":
        raise _BadLineError("a request has no exit code", "write status == 200", "exit")


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise _BadLineError(str(error), "write for example 5s", text) from error


def _capture(text: str, line: int, content: Content) -> Capture:
    name, equals, rest = (part.strip() for part in text.partition("="))
    if not equals or not _NAME.fullmatch(name) or hasattr(dict, name):
        raise _BadLineError(
            f"{name or text!r} is no name for a value", "write capture: level_before = GET address .level", name
        )
    if any(name == capture.name for capture in content.captures):
        raise _BadLineError(f"{name!r} is captured twice here", "choose another name", name)
    if not _is_source(rest):
        return Capture(name, None, _path(rest), line)
    source, after = _source(rest, line, reads_only=True)
    if not after:
        raise _BadLineError(f"{name!r} needs the place of its value", "add for example .level", name)
    return Capture(name, source, _path(after), line)


# --- one reader a kind -----------------------------------------------------------------------------------


def _read_step(content: Content, text: str, line: int, *, reads_only: bool) -> None:
    keyword, _, rest = text.partition(":")
    rest = rest.strip()
    if keyword in {"expect", "verify", "capture"}:
        if not rest:
            raise _BadLineError(f"{keyword}: is empty", "say what", keyword)
        if keyword == "capture":
            content.captures.append(_capture(rest, line, content))
        elif keyword == "verify":
            if reads_only:
                raise _BadLineError("a check has nothing to verify", "write expect: on its own answer", keyword)
            content.verifies.append(_seen(rest, line))
        else:
            condition = _condition(rest, line)
            if content.requests:
                _fits(content.requests[0], condition)
            content.expects.append(condition)
    elif _is_source(text):
        source, after = _source(text, line, reads_only=reads_only)
        if after:
            fix = "put the condition on a line of its own: expect: " + after
            raise _BadLineError(f"{after!r} is left over after the address", fix, after.split(" ")[0])
        if content.requests:
            raise _BadLineError("a step makes one call", "make another step of it: it can fail by itself")
        content.requests.append(source)
    else:
        raise _BadLineError(
            f"{text!r} is not understood", "write GET address, run: [...], expect:, verify: or capture:"
        )


def _read_check(content: Content, text: str, line: int) -> None:
    _read_step(content, text, line, reads_only=True)


def _read_action(content: Content, text: str, line: int) -> None:
    _read_step(content, text, line, reads_only=False)
    source = content.requests[0] if content.requests else None
    if isinstance(source, Request) and source.line == line and source.method in READING:
        raise _BadLineError("an action that only looks", "make it a check", source.method)


def _read_undo(content: Content, text: str, line: int) -> None:
    if not _is_source(text):
        raise _BadLineError(f"{text!r} is not understood", "an undo holds calls only: POST address {...} or run: [...]")
    source, after = _source(text, line, reads_only=False)
    if after:
        raise _BadLineError(
            f"{after!r} is left over after the address", "an undo is rendered before the harm; it looks at nothing"
        )
    content.requests.append(source)


_WHEN = re.compile(r"-\s*when:\s*(?P<when>.+?)\s+go:\s*(?P<go>\S+)\s*")
_AND = re.compile(r"\s+and\s+(?=(?:[^\"]*\"[^\"]*\")*[^\"]*$)")
_OTHERWISE = re.compile(r"-\s*otherwise:?\s+go:\s*(?P<go>\S+)\s*")


def _read_decision(content: Content, text: str, line: int) -> None:
    if text.startswith("-"):
        if content.branches and not content.branches[-1].conditions:
            raise _BadLineError("nothing is reached after otherwise", "put otherwise last", "-")
        if otherwise := _OTHERWISE.fullmatch(text):
            content.branches.append(Branch((), otherwise["go"], line, "otherwise"))
            return
        match = _WHEN.fullmatch(text)
        if match is None:
            raise _BadLineError(
                f"{text!r} is no branch", "write - when: name >= 0 go: step, or - otherwise go: step", "-"
            )
        names = tuple(reading.name for reading in content.readings)
        conditions = tuple(_condition(part, line, names) for part in _AND.split(match["when"]))
        content.branches.append(Branch(conditions, match["go"], line, match["when"]))
        return
    name, colon, rest = (part.strip() for part in text.partition(":"))
    if not colon or not _NAME.fullmatch(name) or not rest or not _is_source(rest):
        raise _BadLineError(f"{text!r} is not understood", "write name: GET address .path, or a branch - when: … go: …")
    if any(name == reading.name for reading in content.readings):
        raise _BadLineError(f"{name!r} is read twice", "choose another name", name)
    content.readings.append(Capture(name, None, (), line))  # known by its name even when the rest is wrong
    source, after = _source(rest, line, reads_only=True)
    if not after:
        raise _BadLineError(f"{name!r} needs the place of its value", "add for example .headroom", name)
    path = ("exit",) if isinstance(source, Program) and after == "exit" else _path(after)
    content.readings[-1] = Capture(name, source, path, line)


def _read_wait(content: Content, text: str, line: int) -> None:
    if _is_source(text):
        content.waits.append(_seen(text, line))
    else:
        content.expressions.append((text, line))


def _read_manual(content: Content, text: str, line: int) -> None:
    if text.startswith("verify:"):
        content.verifies.append(_seen(text[7:].strip(), line))
    else:
        pieces(text)
        content.prose.append(text)


_READERS: dict[str, Callable[[Content, str, int], None]] = {
    "check": _read_check,
    "action": _read_action,
    "decision": _read_decision,
    "wait-until": _read_wait,
    "manual": _read_manual,
    "undo": _read_undo,
}


def templates_of(content: Content) -> list[tuple[str, int]]:
    """Every string that will be rendered, with its line in the body."""
    found: list[tuple[str, int]] = []

    def source(one: Source | None) -> None:
        if isinstance(one, Request):
            found.extend((text, one.line) for text in (one.url, one.body) if text)
        elif one is not None:
            found.extend((argument, one.line) for argument in one.argv)

    for one in content.requests:
        source(one)
    for capture in (*content.captures, *content.readings):
        source(capture.source)
    for seen in (*content.verifies, *content.waits):
        source(seen.source)
        found.append((seen.condition.value, seen.condition.line))
    conditions = [*content.expects, *(condition for branch in content.branches for condition in branch.conditions)]
    found.extend((condition.value, condition.line) for condition in conditions)
    found.extend((text, line) for text, line in content.expressions)
    found.extend((text, 1) for text in content.prose)
    return [(text, line) for text, line in found if "{{" in text]
