"""The ledger: a ConfigMap a run, written before each change, read by whoever reverts and by people with kubectl.

Its data: `state` (open, reverting, closed), `run.json`, for each injection `armed.KEY` (its undos, when it expires) and
`ended.KEY` (what became of it), and `watchdog` (its sign of life). All writes that allow a change are JSON patches that
test `state`: none is taken once somebody reverts.

People edit what they find. A state that is missing, that nobody of ours writes, or that says closed while something is
left, is read as reverting: nothing may be changed, and whoever comes goes on until everything is reverted. A spoilt
ledger takes what became of injections all the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from stormdrill.cluster import naming
from stormdrill.cluster.api import JSON_PATCH, MERGE_PATCH, Api, Lost
from stormdrill.cluster.asking import AGAIN, Until, call, read, text, under
from stormdrill.cluster.changes import Undone
from stormdrill.cluster.objects import create, remove
from stormdrill.errors import Unreachable
from stormdrill.model.undo import InCluster, KubeDelete, KubeEndExec, KubePatch, undo_from_json, undo_to_json

OPEN, REVERTING, CLOSED = "open", "reverting", "closed"
LARGEST = 980_000
"""Bytes of what is armed and of what becomes of it. An API server takes 1 MiB; the rest is for why the ledger isn't
open any more, and for the watchdog's sign of life."""
LONGEST_DETAIL, LONGEST_WHY = 400, 4000
"""Bytes of people's words: room is kept for them when an injection is armed."""
LIMIT_S = 10.0
ARMED, ENDED = "armed.", "ended."
CONFIGMAPS = "/api/v1/namespaces/{}/configmaps"


class Closed(Unreachable):
    """The ledger takes no changes any more: somebody reverts, or has."""


class Full(Unreachable):
    """There is no room for it."""


class _Stale(Unreachable):
    """A state was tested that it no longer has."""


@dataclass(frozen=True, slots=True)
class Armed:
    """An injection that may have been made."""

    injection: str
    undos: tuple[InCluster, ...]
    """In the order in which they are carried out."""
    expires_in_s: float
    """After it was written."""
    number: int = 0
    """In the order of arming."""
    at: str = ""

    def written(self) -> str:
        return json.dumps(
            {
                "injection": self.injection,
                "number": self.number,
                "at": self.at or now(),
                "expires_in_s": self.expires_in_s,
                "undo": [undo_to_json(undo) for undo in self.undos],
            }
        )


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of an injection."""

    injection: str
    undone: Undone
    """Its word is `reverting` from the moment on when somebody has begun to revert this one alone."""
    by: str
    """runner, watchdog, recover"""
    at: str = ""

    def written(self) -> str:
        undone = self.undone
        told = {"word": undone.word, "detail": _short(undone.detail), "witness": undone.witness}
        return json.dumps({"injection": self.injection, **told, "by": self.by, "at": self.at or now()})


@dataclass(frozen=True, slots=True)
class Book:
    """The ledger as it was read."""

    run: str
    state: str
    """What it comes to, whatever a person has written there: open, reverting, or closed with nothing left."""
    stop: str
    """Why a person stopped the run; empty when nobody has."""
    why: str
    """Why it is not open any more."""
    about: Mapping[str, object]
    """run.json"""
    armed: tuple[Armed, ...]
    """In the order of arming."""
    ended: Mapping[str, Ended]
    watchdog: Mapping[str, object]
    unreadable: tuple[str, ...] = ()
    """Entries that can't be understood: what they tell to undo isn't undone."""
    spoilt: str = ""
    """How a person has edited its state, where that isn't what a run writes."""

    @property
    def left(self) -> tuple[Armed, ...]:
        """Armed, and not known to have ended."""
        return tuple(armed for armed in self.armed if not self.has_ended(armed.injection))

    def has_ended(self, injection: str) -> bool:
        ended = self.ended.get(injection)
        return ended is not None and ended.undone.word in ("done", "superseded")


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(slots=True)
class Ledger:
    """One run's."""

    api: Api
    suite: str
    run: str
    _size: int = 0
    _entries: dict[str, int] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return f"{CONFIGMAPS.format(self.suite)}/{naming.ledger(self.run)}"

    def create(self, about: Mapping[str, object], system: str, until: Until | None = None) -> None:
        """Raises Refused when there is one of that run already, Unreachable."""
        until = until or Until(LIMIT_S)
        labels = {naming.LABEL: self.run, naming.PART: "ledger", naming.SYSTEM: naming.label(system)}
        data = {"state": OPEN, "run.json": json.dumps(about)}
        metadata = {"name": naming.ledger(self.run), "namespace": self.suite, "labels": labels}
        body: dict[str, object] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
        self._size = len(data["run.json"])
        create(self.api, CONFIGMAPS.format(self.suite), body, until)

    def read(self, until: Until | None = None) -> Book | None:
        """None when there is none. Raises Unreachable."""
        there = read(self.api, self.path, until or Until(LIMIT_S))
        return None if there is None else book(there)

    def arm(self, entries: Iterable[Armed], until: Until | None = None) -> None:
        """Write down what may be done from now on. Raises Closed, Full, Unreachable."""
        keyed = {ARMED + naming.key(entry.injection): entry for entry in entries}
        written = {key: entry.written() for key, entry in keyed.items()}
        sizes = {key: 2 * len(key) + len(written[key].encode()) + _room(entry) for key, entry in keyed.items()}
        size = self._size + sum(sizes.values()) - sum(self._entries.get(key, 0) for key in sizes)
        if size > LARGEST:
            raise Full(
                f"the ledger would hold {size} bytes with what becomes of all that, and a ConfigMap holds {LARGEST}: "
                "make the blast radius smaller"
            )
        self.write(written, until)
        self._size = size
        self._entries.update(sizes)

    def end(self, entries: Iterable[Ended], until: Until | None = None) -> None:
        """Write down what became of injections, whatever the state. Raises Unreachable."""
        written = {ENDED + naming.key(entry.injection): entry.written() for entry in entries}
        self.write(written, until, while_open=False)

    def write(self, data: Mapping[str, str], until: Until | None = None, *, while_open: bool = True) -> None:
        """Raises Closed when it isn't open any more or is gone, Unreachable when it is not known to be written."""
        until = until or Until(LIMIT_S)
        if not while_open:  # also where a person has taken all of the data out
            self._patch({"data": dict(data)}, until, while_open=False, content_type=MERGE_PATCH)
            return
        ops: list[dict[str, object]] = [{"op": "test", "path": "/data/state", "value": OPEN}]
        ops += [{"op": "add", "path": f"/data/{key}", "value": value} for key, value in data.items()]
        self._patch(ops, until, while_open=True)

    def turn(self, state: str, why: str, until: Until | None = None) -> None:
        """To reverting or closed; it never goes back. Raises Closed when it is gone, Unreachable."""
        until = until or Until(LIMIT_S)
        while True:
            there = read(self.api, self.path, until)
            if there is None:
                raise Closed(f"the ledger {self.path} is gone")
            if book(there).state == CLOSED or text(there, "data", "state") == state:
                return
            # the version and not the state, which may be missing; the map of data as well
            ops: list[dict[str, object]] = [
                {"op": "test", "path": "/metadata/resourceVersion", "value": text(there, "metadata", "resourceVersion")}
            ]
            ops += [] if under(there, "data") else [{"op": "add", "path": "/data", "value": {}}]
            ops += [
                {"op": "add", "path": "/data/state", "value": state},
                {"op": "add", "path": "/data/why", "value": why.encode()[:LONGEST_WHY].decode(errors="ignore")},
            ]
            try:
                self._patch(ops, until, while_open=False)
                return
            except (Closed, _Stale) as error:
                until.pause(str(error))

    def remove(self, until: Until | None = None) -> None:
        """Raises Unreachable."""
        remove(self.api, self.path, self.run, until or Until(LIMIT_S))

    def _patch(self, body: object, until: Until, *, while_open: bool, content_type: str = JSON_PATCH) -> None:
        while True:
            try:
                answer = call(self.api, until, "PATCH", self.path, body, content_type=content_type)
            except Lost as lost:
                until.pause(str(lost))
                continue
            if answer.good:
                return
            if answer.status == 404:
                raise Closed(f"the ledger {self.path} is gone")
            if answer.status == 422:
                there = self.read(until)
                if there is None or (while_open and there.state != OPEN):
                    raise Closed(
                        f"the ledger is {there.state}: {there.why}" if there else f"the ledger {self.path} is gone"
                    )
                if not while_open:
                    raise _Stale(f"the ledger {self.path} doesn't take it: {answer.said}")
            elif answer.status not in AGAIN:
                raise Unreachable(f"the ledger {self.path} can't be written: {answer.said}")
            until.pause(answer.said, answer.retry_after_s)


def _short(detail: str) -> str:
    """As much of it as room is kept for."""
    kept, room = 0, LONGEST_DETAIL - 8
    for char in detail[:room]:
        if (room := room - (1 if " " <= char <= "~" and char not in '"\\' else len(json.dumps(char)) - 2)) < 0:
            break
        kept += 1
    return detail if kept == len(detail) else f"{detail[:kept]}…"


def _room(entry: Armed) -> int:
    """What may at most be written of what became of it."""
    return len(Ended(entry.injection, Undone("superseded", "", "a look into the container"), "watchdog").written()) + (
        LONGEST_DETAIL
    )


def book(there: dict[str, object]) -> Book:
    """Of a ledger's ConfigMap. What can't be read is left out and named."""
    data = under(there, "data")
    armed: list[Armed] = []
    ended: dict[str, Ended] = {}
    unreadable: list[str] = []
    for key, value in data.items():
        try:
            if key.startswith(ARMED):
                armed.append(_armed(json.loads(str(value))))
            elif key.startswith(ENDED):
                entry = _ended(json.loads(str(value)))
                ended[entry.injection] = entry
        except (ValueError, KeyError, TypeError) as error:
            unreadable.append(f"{key}: {error}")
    made = Book(
        run=text(there, "metadata", "labels", naming.LABEL),
        state=text(there, "data", "state"),
        stop=_stop(there),
        why=text(there, "data", "why"),
        about=_object(data.get("run.json")),
        armed=tuple(sorted(armed, key=lambda entry: entry.number)),
        ended=ended,
        watchdog=_object(data.get("watchdog")),
        unreadable=tuple(unreadable),
    )
    if not (spoilt := _spoilt(made)):
        return made
    return replace(made, state=REVERTING, why="; ".join(said for said in (spoilt, made.why) if said), spoilt=spoilt)


def _spoilt(made: Book) -> str:
    if made.state not in (OPEN, REVERTING, CLOSED):
        what = f"its state is {made.state!r}" if made.state else "its state is missing"
        return f"somebody has edited the ledger: {what}"
    if made.state == CLOSED and (made.left or made.unreadable):
        left = [entry.injection for entry in made.left] + list(made.unreadable)
        return f"the ledger says closed, and {len(left)} entries are not known to be reverted"
    return ""


def _stop(there: dict[str, object]) -> str:
    annotations = under(there, "metadata", "annotations")
    if naming.STOP not in annotations:
        return ""
    return str(annotations[naming.STOP]).strip() or "no reason given"


def _object(written: object) -> Mapping[str, object]:
    try:
        read_ = json.loads(str(written))
    except ValueError:
        return {}
    return read_ if isinstance(read_, dict) else {}


def _armed(written: dict[str, object]) -> Armed:
    listed = written["undo"]
    undos = [undo_from_json(dict(item)) for item in listed] if isinstance(listed, list) else []
    known = tuple(undo for undo in undos if isinstance(undo, (KubePatch, KubeDelete, KubeEndExec)))
    if len(known) != len(undos):
        raise ValueError("an undo in it is not one of a cluster")
    expires, number = written["expires_in_s"], written["number"]
    if not isinstance(expires, (int, float)) or not isinstance(number, int):
        raise ValueError("expires_in_s and number must be numbers")
    return Armed(str(written["injection"]), known, float(expires), number, str(written["at"]))


def _ended(written: dict[str, object]) -> Ended:
    undone = Undone(str(written["word"]), str(written["detail"]), str(written.get("witness", "")))
    return Ended(str(written["injection"]), undone, str(written["by"]), str(written["at"]))
