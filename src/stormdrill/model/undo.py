"""The closed vocabulary in which every undo is written down before the harm is done.

An undo is data: it is journalled, fsynced and acknowledged first, and interpreted later by a process
that imports no fault. Standard library only. A new word here needs an interpreter in
`stormdrill.keeper.undo`, and `tests/contract` runs every word.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar, Union


@dataclass(frozen=True, slots=True)
class Signal:
    """Send a signal to exactly one process. Does nothing when that process is gone."""

    kind: ClassVar[str] = "signal"
    instance: str
    pid: int
    start_ticks: int
    """Field 22 of /proc/PID/stat: with pid and boot id it names one process for ever."""
    boot_id: str
    signal: str
    """SIGCONT and the like."""


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start the instance again, as its `process-spawned` event says, unless it lives."""

    kind: ClassVar[str] = "spawn"
    instance: str


@dataclass(frozen=True, slots=True)
class EndTree:
    """SIGKILL a process and all its descendants."""

    kind: ClassVar[str] = "end-tree"
    instance: str
    pid: int
    start_ticks: int
    boot_id: str


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request; any 2xx means done. For what a runbook's action changed."""

    kind: ClassVar[str] = "call"
    method: str
    url: str
    body: str = ""
    timeout_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Command:
    """One program with its arguments, never a shell; exit 0 means done."""

    kind: ClassVar[str] = "command"
    argv: tuple[str, ...]
    timeout_s: float = 10.0


Undo = Union[Signal, Spawn, EndTree, Call, Command]  # noqa: UP007  (used at run time)
WORDS: dict[str, type[Signal] | type[Spawn] | type[EndTree] | type[Call] | type[Command]] = {
    word.kind: word for word in (Signal, Spawn, EndTree, Call, Command)
}


def undo_to_json(undo: Undo) -> dict[str, object]:
    return {"kind": undo.kind, **asdict(undo)}


def undo_from_json(value: dict[str, object]) -> Undo:
    """Raises ValueError for a word that is not in the vocabulary or misses a field."""
    fields = dict(value)
    word = WORDS.get(str(fields.pop("kind", "")))
    if word is None:
        raise ValueError(f"unknown undo {value.get('kind')!r}; known: {', '.join(WORDS)}")
    if "argv" in fields and isinstance(fields["argv"], list):
        fields["argv"] = tuple(fields["argv"])
    try:
        return word(**fields)  # type: ignore[arg-type]  # the fields were written by undo_to_json
    except TypeError as error:
        raise ValueError(f"undo {word.kind!r}: {error}") from error
