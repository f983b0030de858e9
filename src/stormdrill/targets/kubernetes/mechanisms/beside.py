"""`beside`: a pod of ours on the node of the one that is to suffer, which burns its cores, or floods the entry.

The scheduler places it, by the node's name as a condition: where its rules leave no room, nothing is forced. It has the
system's namespace, and the tolerations of whom it stands beside.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from urllib.parse import urlsplit

from stormdrill.cluster.changes import Change
from stormdrill.errors import Unreachable
from stormdrill.model.mechanism import Beside
from stormdrill.model.permission import Need, to_stream
from stormdrill.model.plan import Injection
from stormdrill.model.system import ImagePolicy
from stormdrill.ports import Effect
from stormdrill.targets.kubernetes.mechanism import API_SERVER, Clusters, Left, Object, at, objects
from stormdrill.targets.kubernetes.mechanisms.ours import Off, name_of, nowhere
from stormdrill.targets.kubernetes.mechanisms.own_pod import ByOwnPod
from stormdrill.targets.kubernetes.mechanisms.within import Blind, Slot, WhichPod, run, tagged
from stormdrill.targets.kubernetes.neighbours import look_again, needs
from stormdrill.targets.portable.beside import BURNT_S, GRACE_S

MOST_CORES = 64
NOTES = "/tmp/flood.json"  # noqa: S108  (of the pod alone)


class StandingBeside(ByOwnPod):
    """Witnesses: the CPU time that the kernel counts in the pod; what the entry answered to the flood."""

    permission = "run pods of stormdrill's own in the system's namespace"
    why = "to run a program beside the system"

    def __init__(
        self,
        clusters: Clusters,
        image: ImagePolicy,
        which: WhichPod,
        entries: Callable[[], tuple[str, ...]],
        off: Off = nowhere,
    ) -> None:
        """`entries`: base URLs where load enters, as pods of the cluster reach them."""
        super().__init__(clusters, image, which, off)
        self._entries = entries

    def name(self, injection: Injection) -> str:
        return name_of(injection, f"stormdrill-{_beside(injection).program}")

    def refusal(self, injection: Injection) -> str:
        how = _beside(injection)
        if self._which(injection.instance) is None:
            return f"{injection.instance} has no pod now, and nothing can stand beside it; choose one that runs"
        if how.program == "burn" and not 1 <= how.cores <= MOST_CORES:
            return f"{how.cores} cores can't be burnt; write 1 to {MOST_CORES}"
        if how.program == "flood" and not self._entries():
            return "no Service leads to where load enters; make one for the entry"
        return ""

    def notes(self, injection: Injection) -> tuple[str, ...]:
        how = _beside(injection)
        if how.program == "flood":
            return (f"a pod of ours sends the flood to {', '.join(self._entries())}",)
        found = self._which(injection.instance)
        place = f"the node of {injection.instance} ({found.pod})" if found else "its node"
        return (f"a pod of ours burns cores on {place}: whoever runs there gets less, as far as their requests allow",)

    def changes(self, injection: Injection) -> tuple[Change, ...]:
        how = _beside(injection)
        found, victim = self.met(injection, "nothing can stand beside it")
        node = at(victim, "spec", "nodeName")
        if not isinstance(node, str) or not node:
            raise Unreachable(f"{found.pod} is on no node, and nothing can stand beside it")
        burns = how.program == "burn"
        if burns:
            look_again(self, found.cluster, (node,), how)
        body = self.pod(
            injection,
            found,
            self._argv(injection),
            limits={"cpu": str(how.cores if burns else 1), "memory": "128Mi"},
            anywhere=burns,  # where its victim is
            restartPolicy="Never",
            activeDeadlineSeconds=int(injection.longest_s + GRACE_S) + 1,
            tolerations=objects(at(victim, "spec", "tolerations")),
            **({"affinity": _on(node)} if burns else {}),
        )
        return (self.made(found, body),)

    def also(self, injection: Injection) -> tuple[Need, ...]:
        found = self._which(injection.instance)
        if found is None:
            return ()
        looks, where = "to see what a program beside the system takes", (found.namespace, "", "", found.cluster)
        entry = [Need("list", "", "services", *where, "to see where load enters")]
        return (
            *(needs(found.cluster) if _beside(injection).program == "burn" else []),
            *(entry if _beside(injection).program == "flood" else []),
            Need("get", "", "pods", found.namespace, "", "", found.cluster, "to see on which node an instance is"),
            *to_stream("exec", found.namespace, self.name(injection), cluster=found.cluster, why=looks),
        )

    def look(self, injection: Injection, left: Left) -> Effect:
        how = _beside(injection)
        undo = self._bound[injection.id][0].undo
        found = self.get(undo.cluster, undo.path)
        phase = at(found, "status", "phase")
        if phase != "Running":
            return Effect(False, False, API_SERVER, f"{self.name(injection)} is {phase}{_why(found)}")
        namespace = str(at(found, "metadata", "namespace"))
        slot = Slot(undo.cluster, namespace, self.name(injection), str(at(found, "metadata", "uid")), "stormdrill", "")
        api = self.clusters.api(undo.cluster)
        if how.program == "burn":
            try:
                counted = tagged(api, slot, self._tag(injection))
            except Blind as blind:
                return Effect(False, False, "nobody", str(blind))
            return Effect(
                counted.cpu_s >= BURNT_S, False, "the kernel's account", f"burnt {counted.cpu_s:.2f} s of CPU time"
            )
        told = _told(run(api, slot, ("cat", self._notes_of(injection))))
        answered = told.get("answered", 0)
        return Effect(answered > 0, False, "answers to the flood", f"{answered} of {told.get('sent', 0)} were answered")

    def _argv(self, injection: Injection) -> tuple[str, ...]:
        how = _beside(injection)
        words = how.arguments
        if how.program == "flood":
            entries = self._entries()
            words = tuple(word.replace("$entry", ",".join(entries)) for word in words)
            hosts = dict.fromkeys(urlsplit(entry).hostname or "" for entry in entries)
            words += (*(word for host in hosts for word in ("--beyond", host)), "--status", self._notes_of(injection))
        until = ("--deadline-s", f"{injection.for_s + GRACE_S:g}", "--tag", self._tag(injection))
        return ("python3", "-m", "stormdrill.beside", how.program, *words, *until)

    def _notes_of(self, injection: Injection) -> str:
        return NOTES.replace("flood", self.name(injection))

    def _tag(self, injection: Injection) -> str:
        return self.marker(injection)


def _on(node: str) -> Object:
    """That node and no other; everything else is the scheduler's to decide."""
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}


def _told(ran: object) -> dict[str, int]:
    out = getattr(ran, "out", b"")
    try:
        read = json.loads(out)
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}


def _why(found: Object | None) -> str:
    """What the scheduler or the kubelet say of a pod that doesn't run."""
    for one in objects(at(found, "status", "conditions")):
        if one.get("status") == "False" and one.get("message"):
            return f": {one['message']}"
    return ""


def _beside(injection: Injection) -> Beside:
    assert isinstance(injection.how, Beside)
    return injection.how
