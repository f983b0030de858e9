"""The pods that a load is sent from: a Job each, in the suite's own namespace, away from the nodes that are harmed."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Struct

from stormdrill.cluster.api import Api, Lost
from stormdrill.cluster.asking import AGAIN, Until, call, text, under
from stormdrill.cluster.confined import CONFINED, placed
from stormdrill.cluster.naming import LABEL, PART, PREFIX
from stormdrill.errors import SystemNotReady, Unreachable
from stormdrill.model.permission import Need, to_stream

CONTAINER = "load"
WHO = f"{PREFIX}load"
"""Label of a pod: which of the load's programs runs there."""
PODS_LIMIT_S = 120.0
"""For images to be pulled and nodes to be found."""
SPARE_S = 180
"""Of an active deadline, beyond what the run is planned to take."""
KEPT_S = 60
"""Of a Job that has ended, until the cluster takes it away by itself."""
CPU, MEMORY, MOST_MEMORY = "500m", "256Mi", "1Gi"
CREATE_LIMIT_S = 10.0
"""For one, where the API server is overloaded or its answers are lost."""
REMOVE_LIMIT_S = 10.0
"""For all of them, where the API server doesn't answer."""
_LOOK_EVERY_S = 0.25
_FATE_LIMIT_S = 2.0
_HOPELESS = frozenset({"ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError"})
_PULLS = frozenset({"ErrImagePull", "ImagePullBackOff"})
_PULL_LIMIT_S = 30.0
"""For an image that can't be pulled now: a registry may be slow, a name that is wrong stays so."""

Object = dict[str, object]


class Owner(Struct, frozen=True):
    """The run's ledger: what is of this run goes with it."""

    name: str
    uid: str


class Place(Struct, frozen=True):
    """Where in a cluster a load is sent from."""

    namespace: str
    image: str
    run: str
    longest_s: float
    """The run is planned to take."""
    pull: str = ""
    pull_secret: str = ""
    account: str = ""
    owner: Owner | None = None
    avoid: tuple[str, ...] = ()
    """Nodes that faults harm."""
    nodes: dict[str, str] = {}
    """Labels of those that it may be sent from; empty: any."""
    cpu: str = CPU


class Pod(NamedTuple):
    name: str
    uid: str
    ip: str
    node: str


class Pods:
    """Made once, found, and taken away."""

    def __init__(self, api: Api, place: Place) -> None:
        self.api = api
        self.place = place
        self.namespace = place.namespace
        self._pods: dict[str, Pod] = {}
        self._made: list[str] = []
        """Names of Jobs that are there, or may be."""
        self._over = False
        self._lock = threading.Lock()

    def make(self, instances: Sequence[str]) -> None:
        """A pod for each, and wait until all run. Raises SystemNotReady, with what keeps one from it."""
        for instance in instances:
            self._create(instance)
            self._not_over()
        until_s = time.monotonic() + PODS_LIMIT_S
        began_s = time.monotonic()
        while True:
            self._not_over()
            troubles = self._look(instances, time.monotonic() - began_s)
            if not troubles:
                return
            if time.monotonic() >= until_s:
                raise SystemNotReady(f"the load's pods did not start within {PODS_LIMIT_S:g} s: {'; '.join(troubles)}")
            time.sleep(_LOOK_EVERY_S)

    def pod_of(self, instance: str) -> Pod:
        """Raises SystemNotReady."""
        with self._lock:
            if instance not in self._pods:
                raise SystemNotReady(f"{instance} has no pod")
            return self._pods[instance]

    def fate(self, instance: str) -> str:
        """What became of a pod that is not as it was, for a person; empty when nothing is known of it."""
        with self._lock:
            pod = self._pods.get(instance)
        if pod is None:
            return ""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod.name}"
        try:
            answer = self.api.call("GET", path, limit_s=_FATE_LIMIT_S)
        except Lost:
            return ""
        if answer.status == 404:
            return f"its pod {pod.name} is gone"
        if not answer.good:
            return ""
        return _fate(pod, answer.read())

    def remove(self) -> str:
        """Ends all of them. Never raises; what could not be asked for is told, and ends by its deadline."""
        with self._lock:
            names, self._made = self._made, []
            self._over = True
        problems = []
        until = Until(REMOVE_LIMIT_S)
        for name in names:
            try:
                while not self._removed(name, until):
                    pass
            except Unreachable as error:
                problems.append(f"{name}: {error}")
        return "; ".join(problems)

    # --- inside ------------------------------------------------------------------------------------------------

    def _not_over(self) -> None:
        """Raises SystemNotReady, and takes away what was made since: the run was stopped meanwhile."""
        if self._over:
            self.remove()
            raise SystemNotReady("the load was ended before it began")

    def _removed(self, name: str, until: Until) -> bool:
        """Whether its end was asked for; False when that may be asked again. Raises Unreachable."""
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        try:
            answer = call(self.api, until, "DELETE", f"{self._jobs()}/{name}", body)
        except Lost as lost:
            until.pause(str(lost))
            return False
        if answer.good or answer.status == 404:
            return True
        if answer.status in AGAIN:
            until.pause(answer.said, answer.retry_after_s)
            return False
        raise Unreachable(answer.said)

    def _jobs(self) -> str:
        return f"/apis/batch/v1/namespaces/{self.namespace}/jobs"

    def _create(self, instance: str) -> None:
        job = job_of(instance, self.place)
        name = job_name(self.place.run, instance)
        with self._lock:
            self._made.append(name)
        until = Until(CREATE_LIMIT_S)
        try:
            while not self._created(name, job, until):
                pass
        except Unreachable as error:
            raise SystemNotReady(f"the load's job {name} can't be made in {self.namespace}: {error}") from error

    def _created(self, name: str, job: Object, until: Until) -> bool:
        """Whether it is there; False when it may be asked again. Raises SystemNotReady, Unreachable."""
        try:
            answer = call(self.api, until, "POST", self._jobs(), job)
        except Lost as lost:
            until.pause(str(lost))
            return False
        if answer.good or (answer.status == 409 and self._is_ours(name)):
            return True
        if answer.status != 409 and answer.status in AGAIN:
            until.pause(answer.said, answer.retry_after_s)
            return False
        raise SystemNotReady(f"the load's job {name} can't be made in {self.namespace}: {answer.said}")

    def _is_ours(self, name: str) -> bool:
        """Made before, by a request whose answer was lost."""
        try:
            found = self.api.call("GET", f"{self._jobs()}/{name}").read()
        except Lost:
            return False
        return text(found, "metadata", "labels", LABEL) == self.place.run

    def _look(self, instances: Sequence[str], since_s: float) -> list[str]:
        """Why they don't all run yet. Raises SystemNotReady for what won't get better."""
        query = {"labelSelector": f"{LABEL}={self.place.run},{WHO}"}
        try:
            answer = self.api.call("GET", f"/api/v1/namespaces/{self.namespace}/pods", query=query)
        except Lost as lost:
            return [str(lost)]
        if not answer.good:
            if answer.status in (401, 403):
                raise SystemNotReady(f"the load's pods can't be looked for: {answer.said}")
            return [answer.said]
        found = {text(pod, "metadata", "labels", WHO): pod for pod in _each(answer.read(), "items")}
        troubles = []
        for instance in instances:
            pod = found.get(instance)
            if pod is None:
                job = job_name(self.place.run, instance)
                troubles.append(f"job {job} has made no pod (kubectl -n {self.namespace} describe job {job} tells why)")
            elif not _runs(pod):
                troubles.append(self._trouble(instance, pod, since_s))
            else:
                with self._lock:
                    self._pods[instance] = Pod(
                        name=text(pod, "metadata", "name"),
                        uid=text(pod, "metadata", "uid"),
                        ip=text(pod, "status", "podIP"),
                        node=text(pod, "spec", "nodeName"),
                    )
        return troubles

    def _trouble(self, instance: str, pod: Object, since_s: float) -> str:
        phase = text(pod, "status", "phase") or "Pending"
        reason, said = _waits(under(pod, "status"))
        told = f"pod {text(pod, 'metadata', 'name')} ({instance}) is {phase}"
        if reason:
            told += f": {reason}" + (f", {said}" if said else "")
        ended = phase in ("Failed", "Succeeded")
        if ended or reason in _HOPELESS or (reason in _PULLS and since_s > _PULL_LIMIT_S):
            raise SystemNotReady(f"the load can't be sent from the cluster: {told}")
        return told


def needs(namespace: str, cluster: str = "") -> tuple[Need, ...]:
    """What it takes to send a load from inside."""
    why = "to send the load from inside of the cluster"
    return (
        Need("create", "batch", "jobs", namespace, cluster=cluster, why=why),
        Need("get", "batch", "jobs", namespace, cluster=cluster, why=why),
        Need("delete", "batch", "jobs", namespace, cluster=cluster, why="to end the load's pods"),
        Need("list", "", "pods", namespace, cluster=cluster, why=why),
        Need("get", "", "pods", namespace, cluster=cluster, why="to tell what became of a load's pod"),
        *to_stream("exec", namespace, cluster=cluster, why=why),
    )


def job_name(run: str, instance: str) -> str:
    plain = re.sub(r"[^a-z0-9]+", "-", run.lower()).strip("-")
    return f"load-{plain[:36]}-{instance}"[:63].rstrip("-")


def job_of(instance: str, place: Place) -> Object:
    """The Job of one program. It is given no credentials of the cluster, and no token of the load."""
    labels = {LABEL: place.run, PART: "load", WHO: instance}
    longest_s = round(PODS_LIMIT_S + place.longest_s) + SPARE_S
    metadata: Object = {"name": job_name(place.run, instance), "namespace": place.namespace, "labels": labels}
    if place.owner is not None:
        metadata["ownerReferences"] = [
            {"apiVersion": "v1", "kind": "ConfigMap", "name": place.owner.name, "uid": place.owner.uid}
        ]
    annotations = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
    spec: Object = {
        "backoffLimit": 0,
        "activeDeadlineSeconds": longest_s,
        "ttlSecondsAfterFinished": KEPT_S,
        "template": {
            "metadata": {"labels": labels, "annotations": annotations},
            "spec": _pod_of(place, longest_s),
        },
    }
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def _pod_of(place: Place, longest_s: int) -> Object:
    pod: Object = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 2,
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {LABEL: place.run, PART: "load"}},
            }
        ],
        "containers": [_container_of(place, longest_s)],
        "volumes": [{"name": "scratch", "emptyDir": {}}],
        **placed(nodes=place.nodes, off=place.avoid, pull_secret=place.pull_secret),
    }
    if place.account:
        pod["serviceAccountName"] = place.account
    return pod


def _container_of(place: Place, longest_s: int) -> Object:
    container: Object = {
        "name": CONTAINER,
        "image": place.image,
        "command": ["python3", "-P", "-m", "stormdrill.load.in_cluster_holder", str(longest_s)],
        "env": [{"name": "HOME", "value": "/tmp"}],  # noqa: S108  (a volume of its own)
        "securityContext": CONFINED,
        "resources": {"requests": {"cpu": place.cpu, "memory": MEMORY}, "limits": {"memory": MOST_MEMORY}},
        "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}],  # noqa: S108
    }
    if place.pull:
        container["imagePullPolicy"] = place.pull
    return container


def _runs(pod: Object) -> bool:
    if text(pod, "metadata", "deletionTimestamp") or not text(pod, "status", "podIP"):
        return False
    states = [under(one, "state") for one in _each(pod, "status", "containerStatuses")]
    return text(pod, "status", "phase") == "Running" and any("running" in state for state in states)


def _waits(status: Object) -> tuple[str, str]:
    """What a pod waits for: its reason, and what is said of it."""
    for one in _each(status, "containerStatuses"):
        if waiting := under(one, "state", "waiting") or under(one, "state", "terminated"):
            return _reason(waiting)
    for one in _each(status, "conditions"):
        if one.get("type") == "PodScheduled" and one.get("status") == "False":
            return _reason(one)
    return _reason(status)


def _reason(found: Object) -> tuple[str, str]:
    return text(found, "reason"), text(found, "message")[:300]


def _fate(pod: Pod, found: Object) -> str:
    if text(found, "metadata", "uid") != pod.uid:
        return f"its pod {pod.name} is gone"
    phase, reason = text(found, "status", "phase"), text(found, "status", "reason")
    for one in _each(found, "status", "containerStatuses"):
        if ended := under(one, "state", "terminated"):
            reason = reason or f"{ended.get('reason', 'Error')}, exit code {ended.get('exitCode')}"
    if text(found, "metadata", "deletionTimestamp"):
        return f"its pod {pod.name} on {pod.node} was deleted or evicted" + (f" ({reason})" if reason else "")
    if reason or phase in ("Failed", "Succeeded"):
        return f"its pod {pod.name} on {pod.node} ended ({reason or phase})"
    return ""


def _each(what: Object, *path: str) -> list[Object]:
    """The objects of the list at that place."""
    found = under(what, *path[:-1]).get(path[-1])
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
