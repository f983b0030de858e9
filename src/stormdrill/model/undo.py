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


@dataclass(frozen=True, slots=True)
class EndChild:
    """End what the keeper started under this name, with all its descendants. For what stands beside the system."""

    kind: ClassVar[str] = "end-child"
    instance: str


@dataclass(frozen=True, slots=True)
class Restore:
    """Write the file back exactly as it was, atomically. Follows no link."""

    kind: ClassVar[str] = "restore-file"
    path: str
    """Without a link in it."""
    text: str
    mode: int = 0o644
    ours: str | None = None
    """What the fault leaves there, empty for no file: anything else is somebody else's change, and stays. None:
    whatever is there is written over."""


@dataclass(frozen=True, slots=True)
class Clear:
    """Remove one tag's toxics from a fault proxy: `DELETE /toxics/{tag}` at its control address. An answer with 200
    means done."""

    kind: ClassVar[str] = "clear-proxy"
    address: str
    """host:port of the proxy's control."""
    tag: str
    timeout_s: float = 3.0
    engine: str = ""
    container: str = ""
    """Where it runs in one: the port may be closed on the way to it while it lives on, so that its engine is asked."""


@dataclass(frozen=True, slots=True)
class Engine:
    """One call of a container engine's API, over its socket."""

    kind: ClassVar[str] = "engine-call"
    engine: str
    """unix:///var/run/docker.sock, or http://127.0.0.1:port."""
    method: str
    path: str
    """`/containers/ID/unpause`, without the API's version."""
    body: str = ""
    """JSON, or empty."""
    done: tuple[int, ...] = (200, 201, 204)
    """Statuses that mean: undone now."""
    moot: tuple[int, ...] = (304, 404, 409)
    """Statuses that mean: there is nothing to undo any more, unless the engine itself shows that there is."""
    with_the_run: bool = False
    """True: the container is the run's own, so that removing it at the end undoes this too."""
    timeout_s: float = 10.0
    ours: str = ""
    """JSON of what the fault leaves among the container's limits: anything else there is somebody else's change, and
    stays. Empty: whatever is there is written over."""


@dataclass(frozen=True, slots=True)
class EndExec:
    """End what was started in a container with exec: found by its exec id and by `tag` among its arguments."""

    kind: ClassVar[str] = "end-exec"
    engine: str
    container: str
    exec_id: str
    tag: str
    timeout_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Exec:
    """Run a program in a helper container and wait for it; exit 0 means done. For rules in a network namespace."""

    kind: ClassVar[str] = "engine-exec"
    engine: str
    container: str
    """The helper, which shares the network namespace of the instance."""
    argv: tuple[str, ...]
    moot: tuple[int, ...] = ()
    """Exit codes that mean: there is nothing to undo any more."""
    with_the_run: bool = False
    timeout_s: float = 5.0


Undo = Union[Signal, Spawn, EndTree, Call, Command, EndChild, Restore, Clear, Engine, EndExec, Exec]  # noqa: UP007
WORDS: dict[str, type[Undo]] = {
    word.kind: word for word in (Signal, Spawn, EndTree, Call, Command, EndChild, Restore, Clear, Engine, EndExec, Exec)
}
_TUPLES = ("argv", "done", "moot")


def undo_to_json(undo: Undo) -> dict[str, object]:
    return {"kind": undo.kind, **asdict(undo)}


def undo_from_json(written: dict[str, object]) -> Undo:
    """Raises ValueError for a word that is not in the vocabulary or misses a field."""
    fields = dict(written)
    word = WORDS.get(str(fields.pop("kind", "")))
    if word is None:
        raise ValueError(f"unknown undo {written.get('kind')!r}; known: {', '.join(WORDS)}")
    for name in _TUPLES:
        if isinstance(value := fields.get(name), list):
            fields[name] = tuple(value)
    try:
        return word(**fields)  # type: ignore[arg-type]  # the fields were written by undo_to_json
    except TypeError as error:
        raise ValueError(f"undo {word.kind!r}: {error}") from error
