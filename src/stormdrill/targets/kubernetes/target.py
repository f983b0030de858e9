"""The kubernetes target: who the system's pods are, how they are reached, and what is done to them."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from msgspec.structs import replace

from stormdrill.cluster.api import Api
from stormdrill.cluster.standing import Found
from stormdrill.errors import Refused, StormdrillError
from stormdrill.keeper.limited import request
from stormdrill.model.event import Event, PodBound, Warned
from stormdrill.model.mechanism import Nodes
from stormdrill.model.permission import Need
from stormdrill.model.plan import ClusterAt, Injection
from stormdrill.model.system import Ready, System
from stormdrill.model.undo import Undo
from stormdrill.ports import Instance, Keeper, Stood, World
from stormdrill.targets.kubernetes import preflight, unread, view
from stormdrill.targets.kubernetes.answering import Answering
from stormdrill.targets.kubernetes.binding import bind, notes
from stormdrill.targets.kubernetes.clusters import LiveClusters
from stormdrill.targets.kubernetes.drilling import Drilling
from stormdrill.targets.kubernetes.entering import entered
from stormdrill.targets.kubernetes.kubeconfig import in_a_pod
from stormdrill.targets.kubernetes.mechanism import Changing
from stormdrill.targets.kubernetes.mechanisms import mechanisms, pod_mechanisms
from stormdrill.targets.kubernetes.reach import Bound, Reach
from stormdrill.targets.kubernetes.standing import standing, undone
from stormdrill.targets.portable.telling import Telling

ANSWER_LIMIT_S = 0.8
THROUGH_LIMIT_S = 2.0
"""Of a look from outside, through the API server: its connection takes four rounds and more before it is answered."""
LOOK_EVERY_S = 1.0
LOOK_SHARE = 0.1
"""Of the time, at most, that is spent on asking which pods there are."""


class KubernetesTarget:
    """One system in one or several clusters. Implements `ports.Target`, and the capabilities `ports.Mechanisms` and
    `ports.Binds`."""

    name = "kubernetes"
    permission = (
        "read pods, nodes, namespaces and workloads through the cluster's API server, and reach the system's pods by "
        "it; keep a Lease, a ledger and Jobs in the suite's own namespace, and start programs in its pods"
    )

    def __init__(
        self,
        system: System,
        run_dir: Path,
        *,
        injections: Sequence[Injection] = (),
        lasts_s: float = 0.0,
        secrets: Mapping[str, str] | None = None,
        clusters: LiveClusters | None = None,
        also: Callable[[str], Sequence[Need]] = lambda _: (),
    ) -> None:
        """`also`: what else is needed in the cluster of that name, for load."""
        if system.kubernetes is None:
            raise Refused(f"system {system.name} has no section kubernetes")
        self._system = system
        self._run_dir = run_dir
        self._injections = injections
        self.clusters = clusters or LiveClusters(system.kubernetes, run=run_dir.name, system=system.name)
        self._keeper: Keeper | None = None
        self._reach = Reach(self.clusters.api, self._bound, direct=in_a_pod())
        self.look_limit_s = ANSWER_LIMIT_S if in_a_pod() else THROUGH_LIMIT_S
        self._answering = Answering(self.answers)
        self._left = threading.Event()
        self._asked: tuple[Injection, ...] = ()
        self.mechanisms: dict[str, Changing] = {
            **mechanisms(self.clusters),
            **pod_mechanisms(
                self.clusters,
                system.kubernetes.image,
                lambda name: self._view.slots.bound(name),
                lambda: entered(self._view, self._system),
                Telling(self._reach.address, self.look_limit_s),
                self.unfit,
            ),
        }
        self._also = also
        self._drilling = Drilling(
            self.clusters,
            self.mechanisms,
            injections,
            also=also,
            off=self.unfit,
            shunned=lambda name: self._view.clusters[name].shunned,
            lasts_s=lasts_s,
            ready_s=system.ready_timeout_s,
        )
        self.keeping, self.hands = self._drilling.keeping, self._drilling.hands
        self.contacts, self.contacts_now = self._drilling.contacts, self._drilling.contacts_now

    # --- before anything is touched --------------------------------------------------------------------------

    @cached_property
    def _view(self) -> view.View:
        try:
            return view.read(self._system, self.clusters, self.clusters.names)
        except Refused as refused:
            raise self._drilling.explained(unread.explained(refused, self.clusters)) from None

    def world(self) -> World:
        return self._view.world

    def bind(self, asked: Sequence[Injection]) -> tuple[Injection, ...]:
        self._asked = tuple(asked)
        try:
            return tuple(map(self._timed, bind(self._view, asked)))
        except Refused as refused:
            raise unread.explained(refused, self.clusters) from None

    def _timed(self, one: Injection) -> Injection:
        """With the time that its mechanism takes. Some changes of a cluster are seen to be undone only once pods of
        theirs are gone, for which they have the time that the system gives pods to be ready."""
        mechanism = self.mechanisms.get(one.mechanism)
        if mechanism is None:
            return one
        return replace(
            one,
            inject_timeout_s=max(one.inject_timeout_s, mechanism.inject_timeout_s),
            starts_up=mechanism.starts_up,
            verify_timeout_s=max(one.verify_timeout_s, self._system.ready_timeout_s),
        )

    def aloud(self, bound: Sequence[Injection]) -> tuple[str, ...]:
        found = [*self.clusters.told(), *self._view.kept_off(), *self._view.unlabelled()]
        found += notes(self._view, bound, self._asked)
        if late := [one for one in bound if one.starts_up]:
            words = ", ".join(dict.fromkeys(one.fault for one in late))
            limit_s = max(one.inject_timeout_s for one in late)
            found.append(
                f"{words}: a pod of ours is started first, within {limit_s:g} s; how long it lasts counts from "
                "when it is in force, and what comes after it is as much later"
            )
        for one in _together(bound):
            mechanism = self.mechanisms.get(one.mechanism)
            found += mechanism.notes(one) if mechanism is not None else ()
        return tuple(dict.fromkeys(found))

    def where(self) -> tuple[ClusterAt, ...]:
        """The clusters, for whoever has to agree to it."""
        return self.clusters.where()

    def preflight(self) -> None:
        """Raises Refused, before anything is touched, for what can be known to fail."""
        self._view.world  # noqa: B018  (finds the pods, or refuses)
        preflight.refuse(self._view.nowhere())
        self._drilling.check()

    def needs(self, planned: Sequence[Injection], *, outside: bool | None = None) -> tuple[Need, ...]:
        """What it takes to have planned this, to do it, to revert it and to watch over it."""
        return Drilling(self.clusters, self.mechanisms, planned, also=self._also).needs(outside=outside)

    # --- the run ---------------------------------------------------------------------------------------------

    def start(self, keeper: Keeper) -> None:
        """Nothing is started: the clusters are held for the run; who the system is, is written down, and followed."""
        self._drilling.open(keeper)
        self._keeper = keeper
        for slot in self._view.slots.all():
            keeper.record(self._placed(slot.event()))
        threading.Thread(target=self._follow, name="pods", daemon=True).start()

    def _follow(self) -> None:
        """Slots whose pod has gone take the one that came; asked for as often as it takes little of the time."""
        pause_s, troubled = LOOK_EVERY_S, False
        while not self._left.wait(pause_s):
            began_s = time.monotonic()
            try:
                self.look()
                troubled = False
            except StormdrillError as error:
                if not troubled:
                    self._note(Warned(f"which pods there are is not known at the moment: {error}"))
                troubled = True
            pause_s = max(LOOK_EVERY_S, (time.monotonic() - began_s) / LOOK_SHARE)

    def look(self) -> None:
        """Binds slots anew where their pods have been replaced, and writes it down. Raises Unreachable, Refused."""
        for name, cluster in self._view.clusters.items():
            for event in self._view.slots.look(name, cluster.look()):
                self._note(self._placed(event) if isinstance(event, PodBound) else event)

    def _placed(self, event: PodBound) -> PodBound:
        """With where the runner leads connections from: whoever undoes a call after it has died leads them anew."""
        port = self._view.slot(event.instance).instance.port or 0
        if not port or in_a_pod():
            return event
        return dataclasses.replace(event, address=self._address(event.instance), port=port)

    def leave(self) -> None:
        """Nothing of the system is ended: it only isn't looked at any more."""
        self._left.set()
        self._reach.close()

    def _note(self, event: Event) -> None:
        if self._keeper is None:
            return
        try:
            self._keeper.record(event)
        except StormdrillError:
            return  # the conductor hears of a keeper that is gone, or a journal that takes no more, by itself

    # --- what is asked of it ---------------------------------------------------------------------------------

    def inventory(self) -> tuple[Instance, ...]:
        """With the loopback ports by which instances are looked at, once the run has begun."""
        found = self._view.world.instances
        if self._keeper is None:
            return found
        return tuple(Instance(one.name, one.service, one.labels, self._address(one.name)) for one in found)

    def companions(self) -> Mapping[str, int]:
        return {}

    def respawned(self, instance: str, pid: int, start_ticks: int) -> None:
        """Pods are made again by their controllers; the journal has it as `pod-bound`."""

    def ready(self) -> Mapping[str, bool]:
        return self._answering.round([slot.instance.name for slot in self._view.slots.all()])

    def answers(self, instance: str) -> bool:
        """Whether one instance answers its ready check now; without a check, whether its pod runs."""
        slot = self._view.slot(instance)
        if not slot.there:
            return False
        if slot.instance.ready is None:
            return slot.pod.status.phase == "Running"
        address = self._address(instance)
        return bool(address) and _get(address, slot.instance.ready, self.look_limit_s)

    def admin(self) -> str:
        """URL of the first instance of the admin service that answers; empty when there is none."""
        names = [slot.instance.name for slot in self._view.slots.all() if slot.instance.service == self._system.admin]
        first = self._answering.first(names, self.look_limit_s)
        return f"http://{self._address(first)}" if first else ""

    def entries(self) -> tuple[str, ...]:
        """Base URLs of the entry's instances, for looking."""
        entry = self._system.entry
        return tuple(f"http://{one.address}" for one in self.inventory() if one.service == entry)

    def entered(self) -> tuple[str, ...]:
        """Base URLs by which load enters from inside of the cluster. Raises Refused, Unreachable."""
        return entered(self._view, self._system)

    def unfit(self, cluster: str) -> tuple[str, ...]:
        """Nodes on which nothing of the suite's own would run."""
        return self._view.clusters[cluster].unfit

    def api(self, cluster: str) -> Api:
        return self.clusters.api(cluster)

    def undo_of(self, injection: Injection) -> tuple[Undo, ...]:
        return self.mechanisms[injection.mechanism].undo(injection)

    def stands(self, injection: Injection) -> Stood | None:
        return standing(self.mechanisms.get(injection.mechanism), injection)

    def undone(self, injection: Injection) -> Stood | None:
        def met(cluster: str, name: str) -> Found | None:
            held = self.clusters.holds.get(cluster)
            return held.met(name) if held is not None else None

        return undone(self.mechanisms.get(injection.mechanism), injection, met)

    def _bound(self, instance: str) -> Bound | None:
        """As the view has it by then."""
        return self._view.slots.bound(instance)

    def _address(self, instance: str) -> str:
        """Empty where there are more instances than can be reached at once."""
        try:
            return self._reach.address(instance)
        except OSError:
            return ""


def _together(bound: Sequence[Injection]) -> list[Injection]:
    """Nodes that are lost in one way as one, so that it is said once."""
    found: dict[object, Injection] = {}
    for one in bound:
        if not isinstance(one.how, Nodes):
            found[one.id] = one
            continue
        key = (one.use, one.how.cluster, one.how.empties)
        before = found.get(key)
        names = before.how.nodes if before is not None and isinstance(before.how, Nodes) else ()
        found[key] = replace(one, how=replace(one.how, nodes=(*names, *one.how.nodes)))
    return list(found.values())


def _get(address: str, ready: Ready, limit_s: float) -> bool:
    """A whole answer is required: a tunnel accepts connections whether or not anybody is behind it."""
    heard = request(ready.method, f"http://{address}{ready.path}", "", limit_s)
    return not heard.error and heard.status < 500
