"""A runbook's Markdown → `model.runbook.Runbook`. All problems at once, each with its place.

Front matter, then prose for people; fenced blocks whose first word is a kind of step are what is executed. Any other
fence is prose. Templates are checked only when asked for, because that imports Jinja2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from stormdrill.errors import Refused
from stormdrill.model.expression import AlertWithin, Expression
from stormdrill.model.runbook import Runbook, Step, StepKind, UndoBlock
from stormdrill.spec.expression import LOAD_METRICS, ExpressionError, Measure, parse_expression
from stormdrill.spec.runbook_attributes import Attributes, read_attributes
from stormdrill.spec.runbook_body import Content, Fault, read_body
from stormdrill.spec.runbook_flow import Trouble, flow_troubles, nearest, surely_captured
from stormdrill.spec.runbook_front import Front, read_front
from stormdrill.spec.yaml import Document, Place, parse, read_text

if TYPE_CHECKING:
    from markdown_it.token import Token

KINDS: tuple[StepKind, ...] = ("check", "action", "decision", "wait-until", "manual")
DECISION_TIMEOUT_S = 10.0
"""What a decision may take when it doesn't say; every other step must say."""
MOST_STEPS = 200


@dataclass(slots=True)
class Block:
    """One executable fence as it stands in the file."""

    kind: str
    line: int
    """Of the fence, 1-based; the body starts on the next."""
    body: str
    title: str
    attributes: Attributes
    content: Content = field(default_factory=Content)


@dataclass(slots=True)
class _Reading:
    """What is being read, and every problem so far."""

    document: Document
    lines: list[str]
    metrics: Collection[str] | None
    blocks: list[Block] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    """Ids of blocks that could not be read, so that nobody is told that they don't exist."""
    shaky: bool = False
    """True when ways between steps may be missing only because something else is wrong."""

    def problem(self, line: int, token: str, what: str, fix: str = "", *, offset: int = 0) -> None:
        text = self.lines[line - 1] if 0 < line <= len(self.lines) else ""
        at = text.find(token) if token else -1
        column = at + 1 + offset if at >= 0 else len(text) - len(text.lstrip()) + 1
        self.document.problem(Place(line, column), what, fix)

    def block(self, id: str) -> Block:
        return next(block for block in self.blocks if block.attributes.id == id)


def read_runbook(path: Path, *, templates: bool = True, metrics: Collection[str] | None = None) -> Runbook:
    """The runbook in `path`. Raises Refused with every problem.

    `templates=False` leaves out what needs Jinja2. `metrics` are the metric names that are known where it will run;
    None: any name passes.
    """
    return parse_runbook(str(path), read_text(path), templates=templates, metrics=metrics)


def parse_runbook(name: str, text: str, *, templates: bool = True, metrics: Collection[str] | None = None) -> Runbook:
    """As `read_runbook`, for text that was read already; the runbook's own name is the file's without its ending."""
    text = text.replace("\r\n", "\n")
    reading = _Reading(Document(name, text), text.split("\n"), metrics)
    front, start = _front(reading)
    _blocks(reading, start)
    exit_ = _exit(reading, front)
    steps, undos = _steps(reading)
    if not steps and not reading.document.problems:
        reading.problem(1, "", "there is no step in it", "write a fenced block: ```check id=… timeout=5s")
    contents = {step.id: reading.block(step.id).content for step in steps}
    troubles = flow_troubles(steps, contents, lost=reading.lost, shaky=reading.shaky)
    troubles += _undo_troubles(reading, steps, undos)
    if templates and start:
        from stormdrill.spec.runbook_names import name_troubles

        undo_contents = {undo.id: reading.block(undo.id).content for undo in undos}
        troubles += name_troubles(front.parameters, steps, contents, undo_contents, surely_captured(steps, contents))
    _report(reading, troubles)
    if reading.document.problems or exit_ is None:
        raise Refused(sorted(reading.document.problems, key=lambda problem: (problem.line, problem.column)))
    return Runbook(
        name=Path(name).stem,
        title=front.texts["title"],
        service=front.texts["service"],
        owner=front.texts["owner"],
        escalation=front.texts["escalation"],
        severity=front.texts["severity"],
        answers=front.answers,
        parameters=front.parameters,
        exit=exit_,
        proved_by=front.proved_by,
        steps=steps,
        undos=undos,
        source=text,
        digest=hashlib.sha256(text.encode()).hexdigest(),
    )


def _front(reading: _Reading) -> tuple[Front, int]:
    """The front matter, and the number of lines that it takes."""
    lines, document = reading.lines, reading.document
    end = next((n for n, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), 0)
    if lines[0].rstrip() != "---" or not end:
        what = (
            "the front matter is never closed" if lines[0].rstrip() == "---" else "it doesn't begin with front matter"
        )
        document.problem(Place(1, 1), what, "write --- , the keys, and --- at the top")
        return Front({}, (), (), (), None), 0
    inner = parse(document.name, "\n".join(["", *lines[1:end]]))
    front = read_front(inner)
    document.problems.extend(inner.problems)
    return front, end + 1


def _exit(reading: _Reading, front: Front) -> Expression | None:
    if front.exit_node is None:
        return None
    return _expression(reading, front.exit_node.text, front.exit_node.line, front.exit_node.text)


def _expression(reading: _Reading, text: str, line: int, token: str) -> Expression | None:
    known: dict[str, Measure] | None = None
    if reading.metrics is not None:
        known = {**LOAD_METRICS, **dict.fromkeys(reading.metrics, "any")}
    try:
        found = parse_expression(text, known)
    except ExpressionError as error:
        reading.problem(line, token, error.what, error.fix, offset=error.offset)
        return None
    if isinstance(found, AlertWithin):
        reading.problem(line, token, "an alert says that something is wrong, not that it is over", "name a metric")
    elif found.relative:
        reading.problem(line, token, "there is no baseline in a runbook", "write the limit out")
    elif found.within_s is not None or found.after_s is not None:
        reading.problem(line, token, "within and after have no start to count from here", "use for, and the time-out")
    return found


# --- fences ----------------------------------------------------------------------------------------------


def _blocks(reading: _Reading, start: int) -> None:
    from markdown_it import MarkdownIt

    tokens = MarkdownIt("commonmark").parse("\n".join([""] * start + reading.lines[start:]))
    title, heading = "", False
    for token in tokens:
        heading = token.type == "heading_open" or (heading and token.type == "inline")
        if heading and token.type == "inline":
            title, heading = token.content, False
        elif token.type == "fence":
            _fence(reading, token, title)
    ids: dict[str, int] = {}
    for block in reading.blocks:
        id = block.attributes.id
        if id in ids:
            what = f"the id {id} stands here twice, first on line {ids[id]}"
            reading.problem(block.line, f"id={id}", what, "choose another id")
            block.attributes.id = ""
            reading.shaky = True
        ids.setdefault(id, block.line)
    reading.blocks = [block for block in reading.blocks if block.attributes.id]
    if len(reading.blocks) > MOST_STEPS:
        reading.problem(1, "", f"more than {MOST_STEPS} steps", "split the runbook")
        reading.blocks = reading.blocks[:MOST_STEPS]


def _fence(reading: _Reading, token: Token, title: str) -> None:
    assert token.map is not None
    line = token.map[0] + 1
    kind, _, info = token.info.strip().partition(" ")
    if kind not in (*KINDS, "undo"):
        if "id=" in info or kind.lower() in (*KINDS, "undo") or nearest(kind, KINDS).startswith("did"):
            reading.problem(line, kind, f"{kind} is no kind of step", nearest(kind.lower(), (*KINDS, "undo")))
            reading.lost.update(word[3:] for word in info.split() if word.startswith("id="))
            reading.shaky = True
        return
    last = reading.lines[min(token.map[1], len(reading.lines)) - 1].strip(" >")
    if not (token.map[1] - token.map[0] > 1 and last.startswith(token.markup) and not last.strip(token.markup[0])):
        reading.problem(line, token.markup, "the block is never closed", f"end it with a line {token.markup}")
    attributes, faults = read_attributes(kind, info)
    for fault in faults:
        reading.problem(line, fault.token or kind, fault.what, fault.fix)
    if faults and not attributes.id:
        reading.lost.update(word[3:] for word in info.split() if word.startswith("id="))
        reading.shaky = True
    content, wrong = read_body(kind, token.content)
    reading.shaky = reading.shaky or (kind == "decision" and bool(wrong))
    for one in wrong:
        _body_problem(reading, line, one)
    block = Block(kind, line, token.content, title, attributes, content)
    if not wrong:
        _complete(reading, block)
    reading.blocks.append(block)


def _body_problem(reading: _Reading, line: int, fault: Fault) -> None:
    text = reading.lines[line + fault.line - 1] if line + fault.line <= len(reading.lines) else ""
    indent = len(text) - len(text.lstrip(" >")) if text[:1] in {" ", ">"} else 0
    reading.document.problem(Place(line + fault.line, fault.column + indent), fault.what, fault.fix)


def _complete(reading: _Reading, block: Block) -> None:
    """What a body of this kind must hold."""
    content, kind = block.content, block.kind
    needs: list[tuple[bool, str, str]] = []
    if kind in {"check", "action", "undo"}:
        needs.append((bool(content.requests), f"the {kind} calls nothing", "write GET address, or run: [...]"))
    if kind == "check" and content.requests:
        needs.append((bool(content.expects), "the check expects nothing", "add expect: .healthy == false"))
    if kind == "action":
        needs.append(
            (bool(content.verifies), "the action is not verified", "add verify: GET address .draining == true")
        )
    if kind == "decision":
        branches = content.branches
        needs.append((bool(content.readings), "the decision looks at nothing", "add name: GET address .path"))
        ends = bool(branches) and not branches[-1].conditions
        alone = ends and len(branches) == 1
        needs.append((ends, "no way out when nothing holds", "end with - otherwise go: …"))
        needs.append((not alone, "only one way to go is no decision", "add - when: name >= 0 go: …"))
        reading.shaky = reading.shaky or not ends
    if kind == "wait-until":
        count = len(content.waits) + len(content.expressions)
        needs.append(
            (count == 1, "a wait-until waits for one thing", "write one condition; a second is a step of its own")
        )
        for text, line in content.expressions:
            if "{{" not in text:
                _expression(reading, text, block.line + line, text)
    if kind == "manual":
        needs.append((bool(content.prose), "the manual step says nothing", "write what the person should do"))
    for holds, what, fix in needs:
        if not holds:
            reading.problem(block.line, block.kind, what, fix)


# --- steps -----------------------------------------------------------------------------------------------


def _steps(reading: _Reading) -> tuple[tuple[Step, ...], tuple[UndoBlock, ...]]:
    steps: list[Step] = []
    undos: list[UndoBlock] = []
    for block in reading.blocks:
        found = block.attributes
        if block.kind == "undo":
            undos.append(UndoBlock(found.id, block.body, block.line))
            continue
        timeout_s = found.timeout_s
        if timeout_s is None and block.kind == "decision":
            timeout_s = DECISION_TIMEOUT_S
        steps.append(
            Step(
                id=found.id,
                kind=cast(StepKind, block.kind),
                body=block.body,
                line=block.line,
                timeout_s=timeout_s or 0.0,
                risk=cast(Literal["low", "medium", "high"], found.risk or "low"),
                idempotent=found.idempotent,
                approvals=found.approvals,
                undo="" if found.undo == "none" else found.undo,
                retry=found.retry,
                on_failure=found.on_failure or "stop",
                title=block.title,
                then=found.then,
                at_most=found.at_most,
                unattended=cast(Literal["fail", "skip"], found.unattended or "fail"),
            )
        )
    return tuple(steps), tuple(undos)


def _undo_troubles(reading: _Reading, steps: Iterable[Step], undos: Iterable[UndoBlock]) -> list[Trouble]:
    known = [undo.id for undo in undos]
    wanted = {step.undo for step in steps if step.undo}
    found = [
        Trouble(step.id, 0, f"no undo block {step.undo!r}", nearest(step.undo, (*known, "none")), "undo=")
        for step in steps
        if step.undo and step.undo not in known and step.undo not in reading.lost
    ]
    unsaid = any(block.kind == "action" and not block.attributes.undo for block in reading.blocks)
    if found or unsaid or reading.shaky:
        return found
    fix = "write undo=… in the action that it takes back, or remove it"
    return [Trouble(id, 0, f"no action uses the undo {id}", fix) for id in known if id not in wanted]


def _report(reading: _Reading, troubles: Iterable[Trouble]) -> None:
    for trouble in troubles:
        line = reading.block(trouble.step).line + trouble.line
        reading.problem(line, trouble.token, trouble.what, trouble.fix)
