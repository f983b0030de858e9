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
