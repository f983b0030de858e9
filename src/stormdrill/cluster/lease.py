"""The Lease: one run a system and cluster, and the sign that its runner lives.

The holder counts the age of its last success by a clock that goes on while the machine sleeps, from before the request
was sent. Whoever watches judges by change alone, on a clock of its own: no two machines' clocks are compared. Time in
which the watcher could not read counts too: a Lease that is found unchanged was not renewed in all that time, seen or
not. So both sides agree that an outage longer than the Lease ends the run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from stormdrill.cluster import naming
from stormdrill.cluster.api import Api, Lost
from stormdrill.cluster.asking import Until, call, read, text, under
from stormdrill.errors import Refused, StormdrillError, Unreachable

LEASES = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"
LOOK_S = 0.2


def awake() -> float:
    """Seconds on a clock that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def micro(at: datetime | None = None) -> str:
    """A time as a Lease takes it: six digits, always."""
    return (at or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(slots=True)
class Watch:
    """How long a Lease has not been renewed, as far as the watcher can prove."""

    now: Callable[[], float] = field(default_factory=lambda: time.monotonic)
    _seen: str | None = None
    _since_s: float = 0.0

    def unchanged_s(self, version: str, asked_s: float) -> float:
        """After a read that was sent at `asked_s` and has found this version (empty: no Lease)."""
        if version != self._seen:
            self._seen, self._since_s = version, self.now()
        return asked_s - self._since_s


@dataclass(slots=True)
class Lease:
    """One that is held, or wanted. `renew` is called by one thread only."""

    api: Api
    suite: str
    name: str
    holder: str
    """`RUN/runner`, `RUN/watchdog`."""
    duration_s: float
    clock: Callable[[], float] = field(default_factory=lambda: awake)
    lost: str = ""
    """Why it is not ours any more; stays so."""
    _stored: dict[str, object] | None = None
    """As it was written last."""
    _good_s: float = -math.inf
    _transitions: int = 0
    _since: str = ""

    @property
    def path(self) -> str:
        return f"{LEASES.format(self.suite)}/{self.name}"

    @property
    def age_s(self) -> float:
        """Since the last renewal that succeeded was sent."""
        return self.clock() - self._good_s

    def young(self) -> bool:
        """Whether something may be changed under it: nobody can think it expired for as long again."""
        return not self.lost and self.age_s < self.duration_s / 2

    def acquire(self, until: Until | None = None) -> None:
        """Take it: absent, released, or seen to be expired. Raises Refused naming the holder, Unreachable."""
        until = until or Until(30.0)
        watch = Watch(until.now)
        first = ""
        while True:
            asked_s = until.now()
            there = read(self.api, self.path, until)
            held = text(there, "spec", "holderIdentity")
            version = text(there, "metadata", "resourceVersion")
            if held and held != self.holder:
                unchanged_s = watch.unchanged_s(version, asked_s)
                first = first or version
                theirs_s = under(there, "spec").get("leaseDurationSeconds")
                wait_s = float(theirs_s) if isinstance(theirs_s, int) else self.duration_s
                if version != first:
                    raise Refused(self._held(held))
                if unchanged_s < wait_s:
                    if wait_s - unchanged_s + LOOK_S > until.left_s:
                        raise Refused(self._held(held))
                    until.sleep(min(LOOK_S, wait_s))
                    continue
            if self._write(there, until):
                return

    def renew(self, limit_s: float) -> bool:
        """Once. False when it did not succeed; `lost` tells when it never will."""
        if not self.lost and self.age_s > self.duration_s:
            self.lost = (
                f"the Lease {self.name} could not be renewed for {self.age_s:.1f} s (it lasts {self.duration_s:g} s)"
            )
        if self.lost:
            return False
        until = Until(limit_s)
        try:
            sent_s = self.clock()
            answer = call(self.api, until, "PUT", self.path, self._body(self._stored))
            if answer.status == 409:  # somebody wrote there, or an answer of ours was lost
                there = read(self.api, self.path, until)
                if (held := text(there, "spec", "holderIdentity")) != self.holder:
                    how = f"taken by {held}" if held else "released, as the watchdog does when everything is reverted"
                    self.lost = f"the Lease {self.name} was {how}"
                    return False
                sent_s = self.clock()
                answer = call(self.api, until, "PUT", self.path, self._body(there))
        except (Lost, Unreachable):
            return False
        if not answer.good:
            return False
        self._stored, self._good_s = answer.read(), sent_s
        return True

    def take_over(self, there: dict[str, object] | None, limit_s: float) -> bool:
        """From a holder that was seen not to renew it since it was read so (None: it is gone). False when it has been
        written since. Raises Unreachable when it can't be written, or nothing was heard."""
        return self._write(there, Until(limit_s))

    def release(self, until: Until | None = None) -> str:
        """Give it back, if it is ours. Never raises; says what went wrong."""
        until = until or Until(5.0)
        try:
            while True:
                there = read(self.api, self.path, until)
                if text(there, "spec", "holderIdentity").partition("/")[0] != self.holder.partition("/")[0]:
                    return ""  # another run's, or nobody's
                body = self._body(there)
                under(body, "spec")["holderIdentity"] = None
                try:
                    answer = call(self.api, until, "PUT", self.path, body)
                except Lost as lost:
                    until.pause(str(lost))
                    continue
                if answer.good:
                    return ""
                until.pause(answer.said, answer.retry_after_s)
        except StormdrillError as error:  # credentials that can't be renewed, too
            return f"the Lease {self.name} was not released and expires by itself: {error}"

    def _write(self, there: dict[str, object] | None, until: Until) -> bool:
        """Try to make it ours, given what is there. False: look again."""
        transitions = under(there, "spec").get("leaseTransitions")
        self._transitions = (transitions + 1 if isinstance(transitions, int) else 1) if there else 0
        self._since = micro()
        sent_s = self.clock()
        try:
            if there is None:
                answer = call(self.api, until, "POST", LEASES.format(self.suite), self._body(None))
            else:
                answer = call(self.api, until, "PUT", self.path, self._body(there))
        except Lost as lost:
            until.pause(str(lost))
            return False
        if answer.good:
            self._stored, self._good_s = answer.read(), sent_s
            self.lost = ""
            return True
        if answer.status in (400, 403, 404, 422):
            raise Unreachable(f"the Lease {self.path} can't be written: {answer.said}")
        until.pause(answer.said, answer.retry_after_s)
        return False

    def _body(self, there: dict[str, object] | None) -> dict[str, object]:
        """Of that version, with what others have noted on it."""
        metadata: dict[str, object] = {"name": self.name, "namespace": self.suite}
        metadata["labels"] = {naming.LABEL: self.holder.partition("/")[0]}
        if version := text(there, "metadata", "resourceVersion"):
            metadata["resourceVersion"] = version
        if noted := under(there, "metadata", "annotations"):
            metadata["annotations"] = noted
        spec = {
            "holderIdentity": self.holder,
            "leaseDurationSeconds": max(1, math.ceil(self.duration_s)),
            "acquireTime": self._since or micro(),
            "renewTime": micro(),
            "leaseTransitions": self._transitions,
        }
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}

    def _held(self, holder: str) -> str:
        run = holder.partition("/")[0]
        return (
            f"the system is held in this cluster by {holder} (Lease {self.suite}/{self.name}, being renewed); wait for "
            f"its end, or stop it: kubectl annotate configmap -n {self.suite} {naming.ledger(run)} {naming.STOP}='why'"
        )
