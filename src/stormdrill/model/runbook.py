"""A runbook as read from its Markdown; the steps' content is still a template, rendered when its turn comes."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from stormdrill.model.expression import Expression

StepKind = Literal["check", "action", "decision", "wait-until", "manual"]


class Parameter(Struct, frozen=True):
    name: str
    source: str = ""
    """`alert.labels.region`, `system.admin`; empty: given by hand or by default."""
    choices: tuple[str, ...] = ()
    default: str | None = None
    pattern: str = ""
    """A regular expression that the whole value must match."""
    type: Literal["text", "integer", "number"] = "text"
    description: str = ""


class Step(Struct, frozen=True):
    id: str
    kind: StepKind
    body: str
    """The fenced block's content, unrendered."""
    line: int
    timeout_s: float
    risk: Literal["low", "medium", "high"] = "low"
    idempotent: bool = False
    approvals: int = 0
    undo: str = ""
    """Id of the undo block that takes this action back."""
    retry: int = 0
    on_failure: str = "stop"
    """stop, continue, rollback, or the id of a step."""
    title: str = ""
    """The nearest heading above."""
    then: str = ""
    """After success: the id of a step, `done` or `stop`; empty: the next in the document."""
    at_most: int = 0
    """How often it may run where the flow comes back to it; 0: it is no part of a loop."""
    unattended: Literal["fail", "skip"] = "fail"
    """What becomes of a manual step when no person is there."""


class UndoBlock(Struct, frozen=True):
    id: str
    body: str
    line: int


class Runbook(Struct, frozen=True):
    name: str
    title: str
    service: str
    owner: str
    escalation: str
    severity: str
    answers: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    exit: Expression
    proved_by: tuple[str, ...]
    steps: tuple[Step, ...]
    undos: tuple[UndoBlock, ...]
    source: str
    """The whole document."""
    digest: str
    """SHA-256 of `source`."""
