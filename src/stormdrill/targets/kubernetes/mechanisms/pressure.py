"""`pressure`: memory is taken in the container itself, within its limit, by an allocator that is started there.

It ends with its stream: when the runner is gone, the kubelet closes what it reads from. And by itself, soon after its
time. With cgroup v2 the kernel ends a whole container at its limit, so that the allocator leaves room unless the
application is meant.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from stormdrill.cluster.api import Lost
from stormdrill.cluster.exec import Exec, Refusal, Stream
from stormdrill.errors import Unreachable
from stormdrill.model.mechanism import Pressure
from stormdrill.model.permission import Need, to_stream
from stormdrill.model.plan import Injection
from stormdrill.model.undo import InCluster, KubeEndExec, Undo
from stormdrill.ports import Effect
from stormdrill.targets.docker.pressing import FIRST_TO_DIE, GRACE_S, IN_SH, TEXT
from stormdrill.targets.kubernetes.mechanism import API_SERVER, Changing, Clusters, Object, at, number, objects, texts
from stormdrill.targets.kubernetes.mechanisms.within import (
    WHILE_STDIN,
    Blind,
    Slot,
    WhichPod,
    run,
    slot_of,
    tagged,
)
from stormdrill.targets.kubernetes.quantity import megabytes
from stormdrill.targets.process.pressing import BITES_MB, HELD_BEFORE_MB, LEAST_CEILING_MB

SHARE_OF_LIMIT = 0.9
"""Of a container's limit, at most, with all that is in it: beyond, the kernel would end it."""
USED = ("cat", "/sys/fs/cgroup/memory.current")
USED_BEFORE_V2 = ("cat", "/sys/fs/cgroup/memory/memory.usage_in_bytes")
MB = 1 << 20


class Prepared(NamedTuple):
    slot: Slot
    container: str
    """Its id: another one is a container that was started since."""
    restarts: int
    argv: tuple[str, ...]


class PressingPods(Changing):
    """Witness: the pages that the kernel counts for the allocator; or the container's end for want of memory."""

    permission = "start programs in the system's pods"
    starts_inside = True
    """Not possible while its pod is gone, which `plan` refuses."""

    def __init__(self, clusters: Clusters, which: WhichPod) -> None:
        super().__init__(clusters)
        self._which = which
        self._prepared: dict[str, Prepared] = {}
        self._streams: dict[str, Stream] = {}
        self._using = threading.Lock()

    def refusal(self, injection: Injection) -> str:
        how, name = _pressure(injection), injection.instance
        found = self._pod(name)
        if found is None:
            return f"{name} has no pod now; choose one that runs"
        limit_mb = self._limit_mb(name, found)
        if not limit_mb:
            why = f"{name} has no memory limit, so that all of its node would be pressed"
            return f"{why}; give its container one: resources: {{limits: {{memory: 256Mi}}}}"
        if how.ceiling_mb < LEAST_CEILING_MB:
            return (
                f"a ceiling of {how.ceiling_mb:g} MB is no more than the allocator needs; write {LEAST_CEILING_MB:g}MB"
            )
        if how.victim == "neighbour" and how.ceiling_mb >= limit_mb:
            why = f"{name} may have {limit_mb:g} MB, and there the kernel ends the whole container"
            return f"{why}; write a lower ceiling than {how.ceiling_mb:g} MB, or victim: app"
        return ""

    def loses(self, injection: Injection) -> str:
        """The kernel ends a container as a whole, whoever is meant."""
        return "what it holds only in memory (should its container come to its limit)"

    def notes(self, injection: Injection) -> tuple[str, ...]:
        if _pressure(injection).victim == "app":
            return (f"the kernel may end the whole container of {injection.instance}; its kubelet starts it again",)
        return (f"no more is taken in {injection.instance} than leaves a tenth of its limit free at the start",)

    def changes(self, injection: Injection) -> tuple[()]:
        """None of any object: what is started ends with its stream, and by its tag."""
        return ()

    def words(self, injection: Injection) -> tuple[InCluster, ...]:
        found = self._which(injection.instance)
        if found is None:
            return ()
        return (KubeEndExec(found.cluster, found.namespace, found.pod, "", "", self.marker(injection)),)

    def also(self, injection: Injection) -> tuple[Need, ...]:
        found = self._which(injection.instance)
        if found is None:
            return ()
        inside = "to take memory in a container, to see it taken, and to give it back"
        return (
            Need("get", "", "pods", found.namespace, "", "", found.cluster, "to see whether its container still is"),
            *to_stream("exec", found.namespace, cluster=found.cluster, why=inside),
        )

    def undo(self, injection: Injection) -> tuple[Undo, ...]:
        found = self._pod(injection.instance)
        slot = self._slot(injection.instance, found)
        state = _container(found, slot.container)
        argv = self._argv(injection, slot, self._limit_mb(injection.instance, found))
        self._bound[injection.id] = ()
        self._prepared[injection.id] = Prepared(
            slot, str(state.get("containerID")), number(state.get("restartCount")), argv
        )
        return (KubeEndExec(slot.cluster, slot.namespace, slot.pod, slot.uid, slot.container, self.marker(injection)),)

    def apply(self, injection: Injection) -> None:
        prepared = self._prepared.get(injection.id)
        if prepared is None:
            raise Unreachable(f"{injection.id} was never armed: nothing was started")
        slot = prepared.slot
        hold = self.clusters.hold(slot.cluster)
        self._close(injection)
        inside = Exec(self.clusters.api(slot.cluster))
        with hold.step(injection.id):
            try:
                made = inside.open(slot.namespace, slot.pod, slot.container, prepared.argv)
            except (Lost, Refusal) as error:
                raise Unreachable(f"no allocator could be started in {slot.pod}: {error}") from error
            try:  # whoever looked for it meanwhile may have come too early
                hold.check(injection.id)
            except Unreachable:
                made.close()
                raise
        with self._using:
            self._streams[injection.id] = made

    def _seen(self, injection: Injection) -> Effect:
        prepared = self._prepared.get(injection.id)
        if prepared is None:
            return Effect(False, True, "nobody", "no allocator was started")
        slot = prepared.slot
        found = self.get(slot.cluster, _path(slot))
        if found is None or at(found, "metadata", "uid") != slot.uid:
            return self._over(injection, Effect(False, True, API_SERVER, f"pod {slot.pod} is there no more"))
        state = _container(found, slot.container)
        if number(state.get("restartCount")) > prepared.restarts:
            why = at(state, "lastState", "terminated", "reason") or "it has ended"
            said = f"the container of {injection.instance} was started anew: {why}"
            killed = why == "OOMKilled" and injection.id in self._streams
            return self._over(injection, Effect(killed, True, API_SERVER, said))
        try:
            counted = tagged(self.clusters.api(slot.cluster), slot, self.marker(injection))
        except Blind as blind:
            return Effect(False, False, "nobody", str(blind))
        if not counted.processes:
            return self._over(injection, Effect(False, True, "the kernel's account", "no allocator runs"))
        said = f"the allocator in {injection.instance} holds {counted.mb:.0f} MB"
        return Effect(counted.mb >= HELD_BEFORE_MB + BITES_MB, False, "the kernel's account", said)

    def _over(self, injection: Injection, effect: Effect) -> Effect:
        """Nobody reads from its stream any more."""
        if not effect.bit:
            self._close(injection)
        return effect

    def _close(self, injection: Injection) -> None:
        with self._using:
            stream = self._streams.pop(injection.id, None)
        if stream is not None:
            stream.close()

    def _argv(self, injection: Injection, slot: Slot, limit_mb: float) -> tuple[str, ...]:
        how, tag = _pressure(injection), self.marker(injection)
        api = self.clusters.api(slot.cluster)
        app, ceiling_mb = how.victim == "app", how.ceiling_mb
        if not app:
            ceiling_mb = min(ceiling_mb, self._room_mb(slot, limit_mb))
            if ceiling_mb < LEAST_CEILING_MB:
                raise Unreachable(
                    f"{injection.instance} has {ceiling_mb:.0f} MB left below its limit: too little to take"
                )
        deadline_s = f"{injection.for_s + GRACE_S:.0f}"
        if run(api, slot, ("sh", "-c", "")) is None:
            raise Unreachable(f"in {slot.pod} there is no sh, by which the watchdog could end an allocator")
        if run(api, slot, ("python3", "-c", "")) is not None:
            numbers = ("--mb-per-s", f"{how.mb_per_s:g}", "--ceiling-mb", f"{ceiling_mb:g}", "--deadline-s", deadline_s)
            spared = ("--spared",) if app else ()
            return ("python3", "-c", TEXT.read_text(), *numbers, *spared, "--while-stdin", "--tag", tag)
        words = (f"{how.mb_per_s * 1024:.0f}", f"{ceiling_mb:.0f}", deadline_s, "" if app else FIRST_TO_DIE, tag)
        return ("sh", "-c", WHILE_STDIN + IN_SH, "sh", *words)

    def _room_mb(self, slot: Slot, limit_mb: float) -> float:
        """What can be taken before the kernel would end the container; half of its limit where nobody can tell."""
        for argv in (USED, USED_BEFORE_V2):
            ran = run(self.clusters.api(slot.cluster), slot, argv)
            if ran is not None and not ran.code and ran.out.strip().isdigit():
                return SHARE_OF_LIMIT * limit_mb - int(ran.out) / MB
        return limit_mb / 2

    def _pod(self, instance: str) -> Object | None:
        bound = self._which(instance)
        return self.get(bound.cluster, f"/api/v1/namespaces/{bound.namespace}/pods/{bound.pod}") if bound else None

    def _slot(self, instance: str, found: Object | None) -> Slot:
        bound = self._which(instance)
        if found is None or bound is None:
            raise Unreachable(f"{instance} has no pod now: nothing was started")
        return slot_of(bound.cluster, found, bound.port)

    def _limit_mb(self, instance: str, found: Object | None) -> float:
        name = self._slot(instance, found).container
        one = next((one for one in objects(at(found, "spec", "containers")) if one.get("name") == name), None)
        return megabytes(texts(at(one, "resources", "limits")).get("memory", ""))


def _container(found: Object | None, name: str) -> Object:
    """Its status; empty where the kubelet has written none."""
    return next((one for one in objects(at(found, "status", "containerStatuses")) if one.get("name") == name), {})


def _path(slot: Slot) -> str:
    return f"/api/v1/namespaces/{slot.namespace}/pods/{slot.pod}"


def _pressure(injection: Injection) -> Pressure:
    assert isinstance(injection.how, Pressure)
    return injection.how
