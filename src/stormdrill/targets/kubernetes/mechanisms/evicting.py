"""Pods are asked to go, again and again until the revert. A disruption budget lets the next one go once the one before
has been replaced, and that takes longer than a call of the API server, or an injection's own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from stormdrill.errors import Unreachable

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 2.0
"""Before a pod is asked again, unless the answer says how long to wait; it doubles."""
LOOK_S = 0.05
NOT_ASKED = "nobody had asked it to go yet"
TAKEN_BACK = "somebody had put its node back into service"


class Pod(NamedTuple):
    """One that was on a node when it was taken."""

    namespace: str
    name: str
    uid: str
    ready: bool
    meant: bool
    """Whether its namespace lets itself be drilled."""
    leaves: bool
    """Whether it goes from the node sooner or later."""
    goes: bool
    """At once. A mirror of a static pod never does, nor does one that tolerates the taint; where pods are ended one by
    one, one of a DaemonSet, which would make it anew there."""
    node: str = ""
    """On which it was."""

    @property
    def path(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Told(NamedTuple):
    """What became of asking one pod to go."""

    why: str = ""
    """Why it stays; empty: it goes, or is gone."""
    again_s: float | None = None
    """After how long it is worth another try, where the answer says so."""
    ever: bool = True
    """Whether another try is worth anything."""


@dataclass(slots=True)
class _Waiting:
    pod: Pod
    due_s: float = 0.0
    pause_s: float = FIRST_PAUSE_S


class Evicting:
    """Of one injection: every pod once, by whoever calls `begin`; then, in a thread, those that stay."""

    def __init__(
        self,
        pods: Iterable[Pod],
        ask: Callable[[Pod], Told],
        over: Callable[[], str],
        taken_back: Callable[[str], bool],
        lasts_s: float,
    ) -> None:
        """`ask` raises Unreachable where it may not, or can't be asked. `over`: why nobody is asked any more; asks
        nobody itself. `taken_back`: whether somebody has put the nodes back meanwhile. `lasts_s`: the injection's
        time."""
        self._ask, self._over, self._taken_back = ask, over, taken_back
        self._waiting = [_Waiting(pod) for pod in pods]
        self._ends_s = time.monotonic() + lasts_s
        self.stay: dict[str, str] = {str(one.pod): NOT_ASKED for one in self._waiting}
        """Who has not gone, by name, and why."""
        self.thread: threading.Thread | None = None
        """While it goes on; None where nobody stayed."""

    def begin(self, until_s: float) -> None:
        """Ask each once; those whose turn doesn't come before `until_s` later. Raises Unreachable where nobody may be
        asked."""
        for one in list(self._waiting):
            if time.monotonic() >= until_s:
                break
            self._try(one)
        if self._waiting:
            self.thread = threading.Thread(target=self._go_on, name="evicting", daemon=True)
            self.thread.start()

    def _go_on(self) -> None:
        while self._waiting and not self._is_over():
            due = [one for one in self._waiting if one.due_s <= time.monotonic()]
            if not due:
                time.sleep(LOOK_S)
                continue
            for one in self._spared(due):
                self._waiting.remove(one)
                self.stay[str(one.pod)] = TAKEN_BACK
            for one in (one for one in due if one in self._waiting):
                if self._is_over():
                    return
                try:
                    self._try(one)
                except Unreachable as error:  # an API server in trouble; whether it is for good `over` tells
                    self._later(one, Told(str(error)))
                except Exception as error:  # the others are asked all the same, and the record tells
                    self._later(one, Told(f"{type(error).__name__}: {error}"))

    def _spared(self, due: list[_Waiting]) -> list[_Waiting]:
        """Of all that wait, also those whose turn it isn't yet."""
        back = {node for node in {one.pod.node for one in due} if self._taken_back(node)}
        return [one for one in self._waiting if one.pod.node in back]

    def _is_over(self) -> bool:
        return time.monotonic() >= self._ends_s or bool(self._over())

    def _try(self, one: _Waiting) -> None:
        told = self._ask(one.pod)
        if told.why and told.ever:
            self._later(one, told)
            return
        self._waiting.remove(one)
        if told.why:
            self.stay[str(one.pod)] = told.why
        else:
            self.stay.pop(str(one.pod), None)

    def _later(self, one: _Waiting, told: Told) -> None:
        self.stay[str(one.pod)] = told.why
        one.due_s = time.monotonic() + (one.pause_s if told.again_s is None else max(FIRST_PAUSE_S, told.again_s))
        one.pause_s = min(2 * one.pause_s, LONGEST_PAUSE_S)
