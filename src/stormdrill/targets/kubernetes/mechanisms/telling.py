"""`tell`: requests to the system itself, by a pod of ours that takes back what it asked for when it ends.

A request of the runner's own could be taken back by nobody else: the watchdog changes objects, and isn't in the
system's network. So the undo is the deletion of that pod. Its kubelet tells it to end, it takes the request back, and
only then is it gone. Its own deadline does the same.
"""

from __future__ import annotations

from typing import Protocol

from stormdrill.cluster.changes import Change
from stormdrill.cluster.naming import LABEL
from stormdrill.errors import Unreachable
from stormdrill.model.mechanism import Tell
from stormdrill.model.permission import Need, to_stream
from stormdrill.model.plan import Injection
from stormdrill.model.system import ImagePolicy
from stormdrill.model.undo import Undo
from stormdrill.ports import Effect
from stormdrill.targets.kubernetes.mechanism import Clusters, Left, at, texts
from stormdrill.targets.kubernetes.mechanisms.ours import OF_ONE, Off, name_of, nowhere, short
from stormdrill.targets.kubernetes.mechanisms.own_pod import ByOwnPod, pods_of
from stormdrill.targets.kubernetes.mechanisms.policies import closed_to, confining
from stormdrill.targets.kubernetes.mechanisms.within import WhichPod

GRACE_S = 10.0
"""After the planned end it takes back by itself what it asked for; so long it may also take for that at its end."""


class Asks(Protocol):
    """What `portable.telling.Telling` does from outside: it looks, and sees whether the undo would put things right."""

    def undo(self, injection: Injection) -> tuple[Undo, ...]: ...
    def observe(self, injection: Injection) -> Effect: ...


class TellingByPod(ByOwnPod):
    """Witness: the system itself, asked by the runner, over another way than the one that told it."""

    permission = "run pods of stormdrill's own in the system's namespace, which ask the system's admin interface"
    why = "to ask the system for something from inside of the cluster"

    def __init__(self, clusters: Clusters, image: ImagePolicy, which: WhichPod, asks: Asks, off: Off = nowhere) -> None:
        super().__init__(clusters, image, which, off)
        self._asks = asks

    def name(self, injection: Injection) -> str:
        return name_of(injection, "stormdrill-tell")

    def refusal(self, injection: Injection) -> str:
        found = self._which(injection.instance)
        if found is None:
            return f"{injection.instance} has no pod now, and can be told nothing; choose one that runs"
        if not found.port:
            return f"nothing says on which port {injection.instance} listens; add port: to its service"
        policies = list(self.items(found.cluster, _policies(found.namespace)))
        told = self.get(found.cluster, f"{pods_of(found.namespace)}/{found.pod}")
        ours = {LABEL: self.clusters.run, OF_ONE: short(injection)}
        if closed := closed_to(policies, [texts(at(told, "metadata", "labels"))], ours) or confining(policies, ours):
            said = f"NetworkPolicy {', '.join(closed)} would keep a pod of ours from {injection.instance}"
            return f"{said}; allow pods with the label {OF_ONE} there"
        return ""

    def notes(self, injection: Injection) -> tuple[str, ...]:
        how = _tell(injection)
        said = (
            f"{how.method} {how.path} is asked of {injection.instance} by a pod of ours, which takes it back at its end"
        )
        return (said, f"should that pod's node be lost meanwhile, nobody does: then ask for {injection.undo} yourself")

    def undo(self, injection: Injection) -> tuple[Undo, ...]:
        self._asks.undo(injection)  # for what it refuses: an undo that would leave things other than they are
        return super().undo(injection)

    def changes(self, injection: Injection) -> tuple[Change, ...]:
        how = _tell(injection)
        found, told = self.met(injection, "can be told nothing")
        address = at(told, "status", "podIP")
        if not isinstance(address, str) or not address:
            raise Unreachable(f"{found.pod} has no address yet, and can be told nothing")
        host = f"[{address}]" if ":" in address else address
        argv = (
            *("python3", "-m", "stormdrill.beside", "tell", "--at", f"{host}:{found.port}"),
            *(f"--method={how.method}", f"--path={how.path}", f"--body={how.body}"),
            *(f"--undo-method={how.undo_method}", f"--undo-path={how.undo_path}", f"--undo-body={how.undo_body}"),
            *(f"--look-path={how.look_path}", f"--look={how.look}"),
            *("--deadline-s", f"{injection.for_s + GRACE_S:g}", "--tag", self.marker(injection)),
        )
        body = self.pod(
            injection,
            found,
            argv,
            limits={"cpu": "500m", "memory": "64Mi"},
            restartPolicy="OnFailure",
            # of the first process of a namespace the kernel drops a SIGTERM until it is caught: it would ask after it
            shareProcessNamespace=True,
            terminationGracePeriodSeconds=int(GRACE_S),
            activeDeadlineSeconds=int(injection.longest_s + 2 * GRACE_S),
        )
        return (self.made(found, body),)

    def also(self, injection: Injection) -> tuple[Need, ...]:
        found = self._which(injection.instance)
        if found is None:
            return ()
        where = (found.namespace, "", "", found.cluster)
        return (
            Need("list", "networking.k8s.io", "networkpolicies", *where, "to see who is let in"),
            Need("get", "", "pods", *where, "to see under which address an instance is told"),
            *to_stream("portforward", found.namespace, cluster=found.cluster, why="to see what it was told"),
        )

    def look(self, injection: Injection, left: Left) -> Effect:
        seen = self._asks.observe(injection)
        return Effect(seen.bit, False, seen.witness, seen.detail)

    def lingers(self, injection: Injection) -> str:
        """What nobody can see is no comfort; an instance that has gone was told nothing else."""
        if self._which(injection.instance) is None:
            return ""
        seen = self._asks.observe(injection)
        return "" if seen.gone else f"{seen.witness}: {seen.detail}"


def _policies(namespace: str) -> str:
    return f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies"


def _tell(injection: Injection) -> Tell:
    assert isinstance(injection.how, Tell)
    return injection.how
