"""Where to look in an answer (`.a.b[0]`) and how to compare what is there, typed: `"3"` is never `3`."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

Op = Literal["==", "!=", "<", "<=", ">", ">=", "contains"]
OPS: tuple[Op, ...] = ("==", "!=", "<=", ">=", "<", ">", "contains")
_PART = re.compile(r"\.(?P<key>[A-Za-z_][A-Za-z0-9_-]*)|\[(?P<index>\d{1,6})\]|\.?\[\"(?P<quoted>[^\"]*)\"\]")
LONGEST_SHOWN = 80


class Missing(NamedTuple):
    """There is nothing at the path; `detail` says how far it went."""

    detail: str


def parse_path(text: str) -> tuple[str | int, ...]:
    """`.a.b[0]`, `.["odd key"]`, `.` for the whole answer. Raises ValueError."""
    if text == ".":
        return ()
    if not text.startswith("."):
        raise ValueError(f"{text!r} is not a path; it starts with a dot: .{text}")
    parts: list[str | int] = []
    at = 0
    while at < len(text):
        match = _PART.match(text, at)
        if match is None:
            raise ValueError(f"{text!r} is not a path; write .name, .name.other or .name[0]")
        if match["index"] is not None:
            parts.append(int(match["index"]))
        else:
            parts.append(match["key"] if match["key"] is not None else match["quoted"])
        at = match.end()
    return tuple(parts)


def look_up(answer: object, path: tuple[str | int, ...]) -> object:
    """What is at `path`, or a `Missing`."""
    found, walked = answer, ""
    for part in path:
        if isinstance(part, int):
            if not isinstance(found, list):
                return Missing(f"{walked or 'the answer'} is {kind_of(found)}, not a list")
            if part >= len(found):
                return Missing(f"{walked or 'the answer'} has {len(found)} items, none at [{part}]")
            found, walked = found[part], f"{walked}[{part}]"
        else:
            if not isinstance(found, dict):
                return Missing(f"{walked or 'the answer'} is {kind_of(found)}, without a .{part}")
            if part not in found:
                return Missing(f"{walked or 'the answer'} has no .{part}")
            found, walked = found[part], f"{walked}.{part}"
    return found


def kind_of(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, list) else "an object"


def compare(left: object, op: Op, right: object) -> tuple[bool, str]:
    """Whether it holds, and what was seen when it doesn't. Values of different kinds are unequal and have no order."""
    if isinstance(left, Missing):
        return False, left.detail
    seen = f"it is {show(left)}"
    if op == "contains":
        if isinstance(left, str) and isinstance(right, str):
            return right in left, seen
        if isinstance(left, list):
            return any(_same(item, right) for item in left), seen
        return False, f"{seen}, which contains nothing"
    if op in {"==", "!="}:
        return _same(left, right) == (op == "=="), seen
    if not (_ordered(left) and _ordered(right)):
        return False, f"{seen}, {kind_of(left)}; {op} {show(right)} compares numbers"
    assert isinstance(left, int | float)
    assert isinstance(right, int | float)
    held = {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[op]
    return held, seen


def _ordered(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _same(left: object, right: object) -> bool:
    return kind_of(left) == kind_of(right) and left == right


def show(value: object) -> str:
    """A value as JSON-like text, short enough for a line."""
    if isinstance(value, str):
        text = '"' + value + '"'
    elif value is None or isinstance(value, bool):
        text = {None: "null", True: "true", False: "false"}[value]
    else:
        text = str(value)
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 1] + "…"
