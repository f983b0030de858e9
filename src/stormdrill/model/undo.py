"""The closed vocabulary in which every undo is written down before the harm is done.

An undo is data: it is journalled, fsynced and acknowledged first, and interpreted later by a process
that imports no fault. Standard library only. A new word here needs an interpreter in
`stormdrill.keeper.undo`, and `tests/contract` runs every word.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Union


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


@dataclass(frozen=True, slots=True)
class Element:
    """One place in an object of a cluster that a fault changes. Values are JSON texts; empty: nothing is there."""

    path: tuple[str, ...]
    """From the root: ("spec", "unschedulable"); of a list: the list itself, ("spec", "taints"). A piece `[name=web]`
    is the element of a list with this name."""
    ours: str
    """What the fault leaves there; of a list: the element that it adds."""
    before: str = ""
    """What was there; always empty for an element of a list."""
    key: tuple[str, ...] = ()
    """In a list: the fields by which the element is found again (key, effect). Empty: no list, the value itself."""


@dataclass(frozen=True, slots=True)
class KubePatch:
    """Put the elements of an object back that a fault changed, where they are still what it left there.

    It is also what the fault applies: `ours` of each element and the marker, in one patch."""

    kind: ClassVar[str] = "kube-patch"
    cluster: str
    """By its name in the system file; empty for the only one."""
    path: str
    """Of the object in the API: /apis/apps/v1/namespaces/shop/deployments/web."""
    uid: str
    marker: str
    """Name of the annotation that says whose change it is."""
    elements: tuple[Element, ...]
    subresource: str = ""
    """`status` where the elements are changed there; then the marker is set by a patch of its own, before it."""
    timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class KubeDelete:
    """Delete an object that a fault created: found by its name, and deleted only if something tells that the run has
    created it: its label, its owner, or that nobody else has ever written what it says."""

    kind: ClassVar[str] = "kube-delete"
    cluster: str
    path: str
    run: str
    """Value of its label `stormdrill`."""
    timeout_s: float = 10.0
    wrote: tuple[tuple[str, ...], ...] = ()
    """Paths of what the fault says in it, from the root: what somebody else writes there, or beside it in the spec, is
    theirs, and told. Empty: nobody looks at that."""


@dataclass(frozen=True, slots=True)
class KubeEndExec:
    """End what was started in a pod's container with exec: found by `tag` among its arguments."""

    kind: ClassVar[str] = "kube-end-exec"
    cluster: str
    namespace: str
    pod: str
    uid: str
    container: str
    tag: str
    timeout_s: float = 10.0


Undo = Union[  # noqa: UP007
    Signal,
    Spawn,
    EndTree,
    Call,
    Command,
    EndChild,
    Restore,
    Clear,
    Engine,
    EndExec,
    Exec,
    KubePatch,
    KubeDelete,
    KubeEndExec,
]
InCluster = KubePatch | KubeDelete | KubeEndExec
"""What the runner or the watchdog carries out, and the keeper never does."""
WORDS: dict[str, type[Undo]] = {
    word.kind: word
    for word in (
        Signal,
        Spawn,
        EndTree,
        Call,
        Command,
        EndChild,
        Restore,
        Clear,
        Engine,
        EndExec,
        Exec,
        KubePatch,
        KubeDelete,
        KubeEndExec,
    )
}
_TUPLES = ("argv", "done", "moot", "path", "key")


def undo_to_json(undo: Undo) -> dict[str, object]:
    return {"kind": undo.kind, **asdict(undo)}


def undo_from_json(written: dict[str, object]) -> Undo:
    """Raises ValueError for a word that is not in the vocabulary or misses a field."""
    fields = dict(written)
    word = WORDS.get(str(fields.pop("kind", "")))
    if word is None:
        raise ValueError(f"unknown undo {written.get('kind')!r}; known: {', '.join(WORDS)}")
    try:
        if isinstance(elements := fields.get("elements"), list):
            fields["elements"] = tuple(Element(**_with_tuples(item)) for item in elements)
        if isinstance(wrote := fields.get("wrote"), list):
            fields["wrote"] = tuple(tuple(path) for path in wrote)
        return word(**_with_tuples(fields))
    except TypeError as error:
        raise ValueError(f"undo {word.kind!r}: {error}") from error


def _with_tuples(fields: dict[str, object]) -> dict[str, Any]:
    """JSON has lists where the vocabulary has tuples."""
    listed = {name: tuple(value) for name in _TUPLES if isinstance(value := fields.get(name), list)}
    return {**fields, **listed}
