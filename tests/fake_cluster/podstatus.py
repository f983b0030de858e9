"""What a kubelet says of a Pod. Pure: from the states of its containers to its status."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

from fake_cluster.ground import now
from fake_cluster.matching import Obj

REAL = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
SIMULATED = ("Initialized", "Ready", "ContainersReady", "PodScheduled", "PodReadyToStartContainers")


@dataclass(slots=True)
class Container:
    """One container as its kubelet knows it."""

    name: str
    image: str
    state: Obj = field(default_factory=lambda: {"waiting": {"reason": "ContainerCreating"}})
    last: Obj = field(default_factory=dict)
    ready: bool = False
    restarts: int = 0
    id: str = ""
    image_id: str = ""

    @property
    def running(self) -> bool:
        return "running" in self.state

    @property
    def exit_code(self) -> int | None:
        return self.state["terminated"]["exitCode"] if "terminated" in self.state else None

    def told(self) -> Obj:
        status = {
            "name": self.name, "state": copy.deepcopy(self.state), "lastState": copy.deepcopy(self.last),
            "ready": self.ready, "restartCount": self.restarts, "image": self.image, "imageID": self.image_id,
            "started": self.running,
        }  # fmt: skip
        return status | ({"containerID": self.id} if self.id else {})

    def told_briefly(self) -> Obj:
        """As an ephemeral container's."""
        return {key: value for key, value in self.told().items() if key != "started"}


def terminated(exit_code: int, began: str, container_id: str) -> Obj:
    return {
        "terminated": {
            "exitCode": exit_code, "reason": "Completed" if exit_code == 0 else "Error",
            "startedAt": began, "finishedAt": now(), "containerID": container_id,
        }
    }  # fmt: skip


def phase_of(containers: list[Container], policy: str, ending: bool) -> str:
    """`ending`: the Pod is being deleted, nothing is started again."""
    codes = [one.exit_code for one in containers]
    if all(code is not None for code in codes) and (
        ending or policy == "Never" or (policy == "OnFailure" and not any(codes))
    ):
        return "Failed" if any(codes) else "Succeeded"
    seen = any(one.running or one.exit_code is not None or one.last for one in containers)
    return "Running" if seen else "Pending"


def pod_status(
    pod: Obj, containers: list[Container], ip: str, host_ip: str, *, ending: bool = False, order: tuple[str, ...] = REAL
) -> Obj:
    """The whole status. Conditions of others stay, in front; a time of transition moves with its status only."""
    before = pod.get("status") or {}
    phase = phase_of(containers, pod["spec"].get("restartPolicy", "Always"), ending)
    unready = [one.name for one in containers if not one.ready]
    why: Obj = {}
    if unready:
        why = {"reason": "ContainersNotReady", "message": f"containers with unready status: [{' '.join(unready)}]"}
    if phase in ("Succeeded", "Failed"):
        why = {"reason": "PodCompleted" if phase == "Succeeded" else "PodFailed"}
    creating = all(one.state.get("waiting", {}).get("reason") == "ContainerCreating" for one in containers)
    started = not creating and phase not in ("Succeeded", "Failed")
    old = {one["type"]: one for one in before.get("conditions") or []}
    gates = [one["conditionType"] for one in pod["spec"].get("readinessGates") or []]
    shut = [name for name in gates if old.get(name, {}).get("status") != "True"]
    gated: Obj = {"reason": "ReadinessGatesNotReady"} if shut else {}
    states: dict[str, tuple[bool, Obj]] = {
        "PodReadyToStartContainers": (started, {}),
        "Initialized": (True, {"reason": "PodCompleted"} if phase == "Succeeded" else {}),
        "Ready": (not unready and not shut, why or gated), "ContainersReady": (not unready, why),
        "PodScheduled": (True, {}),
    }  # fmt: skip
    conditions = [one for one in before.get("conditions") or [] if one["type"] not in states]
    for kind in order:
        on, more = states[kind]
        was = old.get(kind)
        at = was["lastTransitionTime"] if was and was["status"] == str(on) else now()
        conditions.append({"type": kind, "status": str(on), "lastProbeTime": None, "lastTransitionTime": at, **more})
    status: Obj = {"phase": phase, "conditions": conditions, "hostIP": host_ip}
    if order == REAL:
        status["hostIPs"] = [{"ip": host_ip}]
    if ip:
        status |= {"podIP": ip, "podIPs": [{"ip": ip}]}
    status["startTime"] = before.get("startTime") or now()
    status["containerStatuses"] = [one.told() for one in containers]
    kept = ("qosClass", "nominatedNodeName", "ephemeralContainerStatuses")
    return status | {key: copy.deepcopy(before[key]) for key in kept if key in before}
