"""The attributes in a fence's first line: `id=drain timeout=10s risk=medium idempotent undo=undrain`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from stormdrill.model.units import parse_duration
from stormdrill.spec.runbook_body import ENDINGS
from stormdrill.spec.runbook_flow import ON_FAILURE, nearest

LONGEST_TIMEOUT_S = 24 * 3600.0
MOST_RETRIES = 10
_ID = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_COMMON = ("id", "timeout", "retry", "on_failure", "then", "at_most")
ALLOWED: dict[str, tuple[str, ...]] = {
    "check": _COMMON,
    "action": (*_COMMON, "risk", "idempotent", "approval", "undo"),
    "decision": ("id", "timeout", "retry", "on_failure", "at_most"),
    "wait-until": ("id", "timeout", "on_failure", "then", "at_most"),
    "manual": ("id", "timeout", "on_failure", "then", "at_most", "risk", "unattended"),
    "undo": ("id",),
}
_A = {kind: f"{'an' if kind[0] in 'au' else 'a'} {kind}" for kind in ALLOWED}
RISKS = ("low", "medium", "high")


class Wrong(NamedTuple):
    token: str
    what: str
    fix: str


@dataclass(slots=True)
class Attributes:
    id: str = ""
    timeout_s: float | None = None
    risk: str = ""
    idempotent: bool = False
    approvals: int = 0
    undo: str = ""
    retry: int = 0
    on_failure: str = ""
    then: str = ""
    at_most: int = 0
    unattended: str = ""


def read_attributes(kind: str, info: str) -> tuple[Attributes, list[Wrong]]:
    """What the info string says after the kind, and everything wrong with it."""
    found, wrong = Attributes(), []
    seen: set[str] = set()
    for token in info.split():
        key, equals, value = token.partition("=")
        if key not in ALLOWED[kind]:
            wrong.append(Wrong(token, f"{_A[kind]} has no attribute {key}", nearest(key, ALLOWED[kind])))
            continue
        if key in seen:
            wrong.append(Wrong(token, f"{key} stands here twice", "remove one"))
            continue
        seen.add(key)
        if key == "idempotent":
            if equals:
                wrong.append(Wrong(token, "idempotent takes no value", "write idempotent alone, or leave it out"))
            found.idempotent = True
        elif not value:
            wrong.append(Wrong(token, f"{key} has no value", f"write {key}=…"))
        elif (problem := _READERS[key](found, value)) is not None:
            wrong.append(Wrong(token, *problem))
    wrong += _missing(kind, found, seen)
    return found, wrong


def _missing(kind: str, found: Attributes, seen: set[str]) -> list[Wrong]:
    wrong: list[Wrong] = []
    if "id" not in seen:
        wrong.append(Wrong("", f"the {kind} has no id", "add id=a-name; a run is resumed by it"))
    if "timeout" not in seen and kind not in {"decision", "undo"}:
        wrong.append(Wrong("", f"the {kind} has no time-out", "add timeout=10s"))
    if kind == "action":
        if "risk" not in seen:
            wrong.append(Wrong("", "the action doesn't say its risk", "add risk=low, risk=medium or risk=high"))
        if "undo" not in seen:
            wrong.append(Wrong("", "the action doesn't say what takes it back", "add undo=block-id, or undo=none"))
        if found.risk == "high" and "approval" not in seen:
            wrong.append(Wrong("risk=high", "a high risk that nobody approves", "add approval=1"))
    if kind == "action" and found.retry and not found.idempotent:
        wrong.append(
            Wrong("retry=", "it is repeated and not idempotent", "add idempotent where that is true, or drop retry")
        )
    return wrong


_Problem = tuple[str, str] | None


def _read_id(found: Attributes, value: str) -> _Problem:
    if not _ID.fullmatch(value) or value in (*ENDINGS, *ON_FAILURE, "none", "exit"):
        return f"{value!r} is no id", "lower-case letters, digits and single dashes, and no word such as stop or done"
    found.id = value
    return None


def _read_timeout(found: Attributes, value: str) -> _Problem:
    try:
        found.timeout_s = parse_duration(value)
    except ValueError as error:
        return str(error), "write for example timeout=10s"
    if not 0 < found.timeout_s <= LONGEST_TIMEOUT_S:
        return f"a time-out of {value}", "between 1ms and 24h"
    return None


def _word(name: str, known: tuple[str, ...]) -> Callable[[Attributes, str], _Problem]:
    def read(found: Attributes, value: str) -> _Problem:
        if value not in known:
            return f"{name}={value} is unknown", nearest(value, known)
        setattr(found, name, value)
        return None

    return read


def _target(name: str) -> Callable[[Attributes, str], _Problem]:
    def read(found: Attributes, value: str) -> _Problem:
        setattr(found, name, value)
        return None

    return read


def _count(name: str, attribute: str, least: int, most: int, why: str) -> Callable[[Attributes, str], _Problem]:
    def read(found: Attributes, value: str) -> _Problem:
        if not re.fullmatch(r"\d{1,4}", value) or not least <= int(value) <= most:
            return f"{attribute}={value}", why
        setattr(found, name, int(value))
        return None

    return read


_READERS: dict[str, Callable[[Attributes, str], _Problem]] = {
    "id": _read_id,
    "timeout": _read_timeout,
    "risk": _word("risk", RISKS),
    "approval": _count("approvals", "approval", 1, 1, "write approval=1; two people are not asked yet"),
    "undo": _target("undo"),
    "retry": _count("retry", "retry", 1, MOST_RETRIES, f"a number from 1 to {MOST_RETRIES}"),
    "on_failure": _target("on_failure"),
    "then": _target("then"),
    "at_most": _count("at_most", "at_most", 1, 100, "a number from 1 to 100"),
    "unattended": _word("unattended", ("fail", "skip")),
}
