"""Reverts what a ledger tells, for whoever comes after the runner: the watchdog, or `recover`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from stormdrill.cluster import objects
from stormdrill.cluster.api import Api
from stormdrill.cluster.asking import Until, read, under
from stormdrill.cluster.ledger import Armed, Closed, Ended, Ledger
from stormdrill.cluster.undoing import DONE, FAILED, SUPERSEDED, Runs, together, undo
from stormdrill.errors import StormdrillError
from stormdrill.model.undo import InCluster, KubeDelete, KubeEndExec, KubePatch

AT_ONCE = 8
"""Injections that have no object in common are reverted at the same time."""
LIMIT_S = 10.0
Given = TypeVar("Given")
Said = TypeVar("Said")


@dataclass(slots=True)
class Reverter:
    """Goes through what is armed, as often as it is asked to."""

    api: Api
    ledger: Ledger
    by: str
    runs: Runs | None = None
    tell: Callable[[str], None] = lambda _: None
    ended: dict[str, Ended] = field(default_factory=dict)
    """What it has done itself, also where that could not be written down."""

    def go_through(self, armed: Sequence[Armed]) -> list[Armed]:
        """Once, the last armed first. Returns what could not be shown to be reverted, in the order of arming."""
        waiting = [entry for entry in armed if not self._settled(entry)]
        at_once(self._lane, lanes_of(waiting))
        return [entry for entry in waiting if not self._settled(entry)]

    def look_again(self, armed: Sequence[Armed], namespaces: Sequence[str]) -> list[str]:
        """Remove the anchors, then look once more: what came late is found now or ended by the cluster, and so is an
        object that was being made again while its undo found none of that name. Says what is left."""
        left = at_once(self._anchor, namespaces)
        for lane in at_once(self._late_of, lanes_of(armed)):
            left += lane
        return [said for said in left if said]

    def unsettled(self) -> list[str]:
        """Write down what the ledger lacks of what was reverted. Says what is left in it all the same: it may not be
        closed with that."""
        try:
            there = self.ledger.read(Until(LIMIT_S))
            left = there.left if there is not None else ()
            if known := [self.ended[entry.injection] for entry in left if self._settled(entry)]:
                self.ledger.end(known, Until(LIMIT_S))
        except Closed:  # somebody has removed it: nobody will read there what became of anything
            return []
        except StormdrillError as error:
            return [f"what became of injections could not be written down: {error}"]
        return [shown(entry, self.ended.get(entry.injection)) for entry in left if not self._settled(entry)]

    def _anchor(self, namespace: str) -> str:
        """Remove it; what is wrong with that, or nothing."""
        try:
            objects.remove_anchor(self.api, self.ledger.run, namespace, Until(LIMIT_S))
        except StormdrillError as error:
            return f"the anchor in namespace {namespace}: {error}"
        return ""

    def _late_of(self, lane: Sequence[Armed]) -> list[str]:
        """One after another, for what was before one of them is what the one before it had left."""
        return [self._late(entry) for entry in lane]

    def _late(self, entry: Armed) -> str:
        """Undo what of it came late; what is left of it, or nothing. Of a patch only the marker tells so: the same
        value without it is somebody's wish by now."""
        words = [word for word in entry.undos if isinstance(word, KubeDelete) or self._marked(word)]
        undone = together([undo(self.api, word, self.runs) for word in words])
        if undone.word == FAILED:
            return f"{entry.injection}: {undone.detail}"
        if undone.word == DONE:
            self._note(Ended(entry.injection, undone, self.by))
        return ""

    def _marked(self, word: InCluster) -> bool:
        """Where that can't be read: its undo has seen that it wasn't."""
        if isinstance(word, KubePatch):
            with contextlib.suppress(StormdrillError):
                return word.marker in under(read(self.api, word.path, Until(LIMIT_S)), "metadata", "annotations")
        return False

    def _settled(self, entry: Armed) -> bool:
        ended = self.ended.get(entry.injection)
        return ended is not None and ended.undone.word in (DONE, SUPERSEDED)

    def _lane(self, lane: Sequence[Armed]) -> None:
        for entry in lane:
            undone = together([undo(self.api, word, self.runs) for word in entry.undos])
            self._note(Ended(entry.injection, undone, self.by))
            self.tell(f"{entry.injection}: {undone.word}: {undone.detail}")

    def _note(self, ended: Ended) -> None:
        known = self.ended.get(ended.injection)
        self.ended[ended.injection] = ended
        if known is not None and known.undone == ended.undone:
            return
        try:
            self.ledger.end([ended], Until(LIMIT_S))
        except StormdrillError as error:  # also credentials that can't be renewed; `unsettled` writes it
            self.tell(f"{ended.injection}: what became of it could not be written down: {error}")


def at_once(do: Callable[[Given], Said], each: Sequence[Given]) -> list[Said]:
    """Side by side, a few at a time: a server that doesn't answer takes the limit of each once, and not of all. What
    is returned is in the order of what was given."""
    if len(each) < 2:
        return [do(one) for one in each]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(do, each))


def lanes_of(armed: Sequence[Armed]) -> list[list[Armed]]:
    """Given in the order of arming: those that have an object in common stay one after another, the last first."""
    lanes: list[tuple[set[str], list[Armed]]] = []
    for entry in reversed(armed):
        touches = {place(word) for word in entry.undos}
        meets = [lane for lane in lanes if lane[0] & touches]
        merged = ({*touches, *(path for lane in meets for path in lane[0])}, [e for lane in meets for e in lane[1]])
        merged[1].sort(key=lambda e: -e.number)
        merged[1].append(entry)
        lanes = [lane for lane in lanes if not any(lane is met for met in meets)] + [merged]
    return [lane for _, lane in lanes]


def place(word: InCluster) -> str:
    return f"/api/v1/namespaces/{word.namespace}/pods/{word.pod}" if isinstance(word, KubeEndExec) else word.path


def shown(armed: Armed, ended: Ended | None) -> str:
    """In people's words, of what is left."""
    places = ", ".join(place(word) for word in armed.undos)
    return f"{armed.injection} ({places}): {ended.undone.detail if ended else 'not tried yet'}"
