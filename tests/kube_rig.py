"""A cluster for the laws that every mechanism on clusters keeps: the fake one, or that of $STORMDRILL_TEST_KUBECONFIG.

On a real one everything happens in namespaces that a test makes and removes. Its pods stand on nodes with the label
`stormdrill.dev/drill=allowed`, or, where none has it, on nodes with a kubelet; faults take only nodes with the label.
Pods run the image $STORMDRILL_TEST_IMAGE, which is to be that of `make image`.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TypeGuard

import pytest
import yaml

import kube_ground
from fake_cluster import FakeCluster, scenes
from kube_ground import LABELLED, NODE_LABEL, OURS, RUNS, SESSION, SESSION_LABEL, leaving
from stormdrill.cluster import naming
from stormdrill.cluster.api import JSON, MERGE_PATCH, Api
from stormdrill.cluster.asking import under
from stormdrill.cluster.changes import Change, Undone
from stormdrill.cluster.changing import apply
from stormdrill.cluster.confined import CONFINED, hardened
from stormdrill.cluster.exec import Exec
from stormdrill.cluster.undoing import FAILED, undo
from stormdrill.errors import Unreachable
from stormdrill.model.mechanism import How, Toxic
from stormdrill.model.plan import Injection
from stormdrill.model.system import ImagePolicy
from stormdrill.model.undo import KubeDelete, KubeEndExec, KubePatch
from stormdrill.ports import Effect
from stormdrill.targets.kubernetes.mechanism import OPTED_IN, Changing, Object, at, objects
from stormdrill.targets.kubernetes.mechanisms import mechanisms, pod_mechanisms
from stormdrill.targets.kubernetes.mechanisms.swap import Swapping
from stormdrill.targets.kubernetes.reach import Bound, Reach
from stormdrill.targets.kubernetes.target import THROUGH_LIMIT_S
from stormdrill.targets.portable.telling import Telling

VARIABLE, IMAGE = "STORMDRILL_TEST_KUBECONFIG", "STORMDRILL_TEST_IMAGE"
REAL = bool(os.environ.get(VARIABLE))
WAIT_S = 120.0 if REAL else 20.0
"""The longest that a cluster may take for anything here; the fake one takes milliseconds."""
ANCHOR = f"/stormdrill-{RUNS}"
"""Begins the name of what a rig's run owns its creations by: it stays until the namespace goes."""
SLEEPS = ["sleep", "3600"]
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
UNPRIVILEGED = {name: CONFINED[name] for name in ("allowPrivilegeEscalation", "capabilities")}
"""Of a container of the tests: all that the restricted level asks, and no more."""
KINDS = {
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "StatefulSet": "/apis/apps/v1/namespaces/{}/statefulsets",
    "DaemonSet": "/apis/apps/v1/namespaces/{}/daemonsets",
    "Service": "/api/v1/namespaces/{}/services",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "ResourceQuota": "/api/v1/namespaces/{}/resourcequotas",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "HorizontalPodAutoscaler": "/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers",
    "Pod": "/api/v1/namespaces/{}/pods",
}
PASSING = {
    "resourceVersion", "managedFields", "generation", "observedGeneration", "lastUpdateTime", "lastTransitionTime",
    "lastHeartbeatTime", "timeAdded", "deployment.kubernetes.io/revision", "conditions", "images", "volumesInUse",
    "volumesAttached",
}  # fmt: skip
"""Fields that change by themselves, or by a rollout there and back."""
REPLACED = ("pods", "events", "replicasets", "endpoints", "endpointslices", "controllerrevisions", "leases")
"""Resources that controllers make anew, or write all the time."""


@dataclass
class Kube:
    """One cluster, as its administrator."""

    api: Api
    fake: FakeCluster | None
    image: str
    place: dict[str, str] = field(default_factory=dict)
    """Labels of the nodes on which its pods stand."""
    lacks: str = ""
    """What of stormdrill the image has not."""
    starts: bool = True
    """Whether a container of the image begins at all."""
    namespaces: list[str] = field(default_factory=list)
    cleaning: list[Callable[[], object]] = field(default_factory=list)

    @property
    def real(self) -> bool:
        return self.fake is None

    def namespace(self, *, drill: bool = True) -> str:
        """A new one, that lets itself be drilled and takes no pod that may do more than it must, whatever the cluster's
        default is; removed at the end."""
        name = f"{OURS}{uuid.uuid4().hex[:8]}"
        labels = {SESSION_LABEL: SESSION, **RESTRICTED, **({OPTED_IN[0]: OPTED_IN[1]} if drill else {})}
        self.namespaces.append(name)
        self.do("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
        if self.real:  # pods are refused before it
            self.until(lambda: self.read(f"/api/v1/namespaces/{name}/serviceaccounts/default"), "no ServiceAccount")
        return name

    def needs_stormdrill(self) -> None:
        """Skips where the image is not that of `make image`."""
        if self.lacks:
            pytest.skip(self.lacks)

    def make(self, obj: Object) -> str:
        """Create it, and say its path."""
        collection = KINDS[str(obj["kind"])].format(at(obj, "metadata", "namespace"))
        self.do("POST", collection, obj)
        return f"{collection}/{at(obj, 'metadata', 'name')}"

    def pod(self, argv: Sequence[str], **container: object) -> Object:
        """The specification of one, as the strictest namespace takes it."""
        main = {"name": "main", "image": self.image, "imagePullPolicy": "IfNotPresent", "command": list(argv)}
        return {
            "terminationGracePeriodSeconds": 1,
            "nodeSelector": self.place,
            "securityContext": hardened(),
            "containers": [{**main, "securityContext": UNPRIVILEGED, **container}],
        }

    def deployment(self, namespace: str, name: str = "web", replicas: int = 2, node: str = "", **spec: object) -> str:
        """One whose pods run, on one node where that is named. Its path."""
        if not self.starts:
            pytest.skip(self.lacks)
        pod = self.pod(SLEEPS)
        if node:
            known = under(self.read(f"/api/v1/nodes/{node}"), "metadata", "labels")
            pod["nodeSelector"] = {"kubernetes.io/hostname": known.get("kubernetes.io/hostname", node)}
        labels = {"app": name}
        template: Object = {"metadata": {"labels": labels}, "spec": pod}
        whole = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template, **spec}
        metadata = {"name": name, "namespace": namespace, "labels": labels}
        path = self.make({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": whole})
        self.until(lambda: self.ready(path) == replicas, f"{path} never had {replicas} pods ready")
        return path

    def ready(self, path: str) -> object:
        return at(self.read(path), "status", "readyReplicas") or 0

    def nodes(self, count: int = 1, empties: str = "taint") -> list[str]:
        """Nodes that may be taken, on which nobody else's pods run but those that stay where they are emptied in this
        way; where nobody is to go (`nobody`), whoever runs there. Skips without them."""
        if self.fake is not None:
            made = [_node(f"test-{number + 1}", **{NODE_LABEL: OPTED_IN[1]}) for number in range(count)]
            self.fake.apply([one for one in made if self.read(f"/api/v1/nodes/{at(one, 'metadata', 'name')}") is None])
        else:  # who is still going would be somebody's pod
            kube_ground.wait_until_gone()
        free, taken = [], list[str]()
        for one in sorted(self._opened(), key=kube_ground.has_kubelet, reverse=True):
            name, why = str(at(one, "metadata", "name")), list[str]()
            if empties != "nobody":
                pods = self.all("/api/v1/pods", fieldSelector=f"spec.nodeName={name}")
                why += [said for pod in pods if (said := kube_ground.stranger(pod, empties))]
                why += [] if kube_ground.takes_pods(one) else ["it takes no pods now"]
            taken += [f"{name}: {why[0]}"] if why else []
            free += [] if why else [name]
        if len(free) < count:
            said = "; ".join(taken) or f"kubectl label node NAME {LABELLED}"
            pytest.skip(f"too few nodes have the label {LABELLED} and no others' pods, {len(free)} of {count}: {said}")
        return free[:count]

    def _opened(self) -> list[Object]:
        """The labelled nodes, once those are open that the test before gave back: a controller takes the cordon's taint
        away a moment later."""
        found: list[Object] = []

        def settled() -> bool:
            found[:] = self.all("/api/v1/nodes", labelSelector=LABELLED)
            return not any(map(kube_ground.opens, found))

        with contextlib.suppress(AssertionError):  # then it is said of the node that stays shut
            self.until(settled, "a node's cordon outlives its end")
        return found

    def astray(self) -> list[str]:
        """Pods of the tests that are where they must not be."""
        nodes = {str(at(one, "metadata", "name")): one for one in self.all("/api/v1/nodes")}
        pods = [pod for name in self.namespaces for pod in self.all(f"/api/v1/namespaces/{name}/pods")]
        on = [(str(at(pod, "metadata", "name")), nodes.get(str(at(pod, "spec", "nodeName")))) for pod in pods]
        return [
            f"{pod} is on {at(node, 'metadata', 'name')}"
            for pod, node in on
            if node and (labels := kube_ground.labels_of(node))
            and not self.place.items() <= labels.items() and labels.get(NODE_LABEL) != OPTED_IN[1]
        ]  # fmt: skip

    def do(self, method: str, path: str, body: object = None, content_type: str = JSON) -> Object:
        answer = self.api.call(method, path, body, content_type=content_type)
        assert answer.good, f"{method} {path}: {answer.said}"
        return answer.read()

    def patch(self, path: str, body: object) -> Object:
        return self.do("PATCH", path, body, MERGE_PATCH)

    def read(self, path: str) -> Object | None:
        answer = self.api.call("GET", path)
        return None if answer.status == 404 else answer.read()

    def all(self, path: str, **query: str) -> list[Object]:
        return list(objects(self.api.call("GET", path, query=query).read().get("items")))

    def unasked(self, resource: str, namespace: str) -> list[Object]:
        """What the target knows already: on the fake cluster no request is counted for it."""
        if self.fake is not None:
            return self.fake.objects(resource, namespace)
        return self.all(f"/api/v1/namespaces/{namespace}/{resource}")

    def until(self, holds: Callable[[], object], why: str) -> None:
        deadline_s = time.monotonic() + WAIT_S
        while not holds():
            assert time.monotonic() < deadline_s, why
            time.sleep(0.02 if self.fake else 0.5)

    def snapshot(self) -> dict[str, object]:
        """What is there, without what passes: on a real cluster what the tests made and the nodes they may touch."""
        if self.fake is not None:
            taken: Mapping[str, object] = self.fake.snapshot()
            return {
                name: lasting(value)
                for name, value in taken.items()
                if name.split("/")[0].split(".")[0] not in REPLACED and ANCHOR not in name
            }
        found = {
            f"{path}/{at(one, 'metadata', 'name')}": lasting(one)
            for namespace in self.namespaces
            for kind, template in KINDS.items()
            if kind != "Pod"
            for path in [template.format(namespace)]
            for one in self.all(path)
            if not str(at(one, "metadata", "name")).startswith((ANCHOR.strip("/"), "kube-root-ca.crt"))
        }
        nodes = self.all("/api/v1/nodes", labelSelector=LABELLED)
        return {**found, **{f"nodes/{at(one, 'metadata', 'name')}": lasting(one) for one in nodes}}

    def kubeconfig(self, path: Path, token: str = "") -> Path:
        """One with the administrator's credentials, or with this token alone."""
        if self.fake is not None:
            return self.fake.kubeconfig(path, **({"token": token} if token else {}))
        named = Path(os.environ[VARIABLE]).expanduser()
        whole = yaml.safe_load(named.read_text())
        for cluster in whole["clusters"]:
            if ca := cluster["cluster"].get("certificate-authority"):
                cluster["cluster"]["certificate-authority"] = str(named.parent / ca)
        for user in whole["users"]:
            for part in ("client-certificate", "client-key", "tokenFile"):
                if file := user["user"].get(part):
                    user["user"][part] = str(named.parent / file)
            user["user"] = {"token": token} if token else user["user"]
        path.touch(0o600)
        path.write_text(yaml.safe_dump(whole))
        return path

    def close(self, *, waits: bool = False) -> None:
        """Everything is tried. A namespace takes seconds to go: those of the test before are waited for, and at the
        session's end all of them."""
        failed: list[str] = []

        def attempt(step: Callable[[], object]) -> None:
            try:
                step()
            except (Exception, pytest.skip.Exception) as error:
                failed.append(str(error))

        for clean in reversed(self.cleaning):
            attempt(clean)
        for namespace in self.namespaces:
            attempt(partial(self.api.call, "DELETE", f"/api/v1/namespaces/{namespace}"))
        mine = [(self.api, namespace) for namespace in self.namespaces]
        if self.real:
            attempt(kube_ground.wait_until_gone)
        if self.real or waits:
            leaving.extend(mine)
        if waits:
            attempt(kube_ground.wait_until_gone)
        if not self.real:  # a real one's is asked again for what is to be gone
            self.api.close()
        assert not failed, "; ".join(failed)


def _node(name: str, **labels: str) -> Object:
    """A simulated one with what a kubelet would say of itself."""
    made = scenes.node(name, "eu", **labels)
    made["status"]["daemonEndpoints"] = {"kubeletEndpoint": {"Port": 10250}}
    return made


def lasting(value: object) -> object:
    if isinstance(value, dict):
        kept = {name: lasting(item) for name, item in value.items() if name not in PASSING}
        return {name: item for name, item in kept.items() if item not in ({}, [])}
    return [lasting(item) for item in value] if isinstance(value, list) else value


@contextlib.contextmanager
def a_cluster() -> Iterator[Kube]:
    """The one that was named, else a fake one."""
    if not REAL:
        with a_fake_cluster() as kube:
            yield kube
        return
    kube = Kube(api_of(os.environ[VARIABLE]), None, os.environ.get(IMAGE, ""))
    if not kube.image:
        pytest.skip(f"${IMAGE} names no image to run in the cluster of ${VARIABLE}")
    kube.place, kube.lacks, kube.starts = ground_of(kube)
    try:
        yield kube
    finally:
        kube.close()


@contextlib.contextmanager
def a_fake_cluster() -> Iterator[Kube]:
    """With nodes for whatever isn't bound to any, and one without a kubelet."""
    with FakeCluster() as fake:
        bare = scenes.node("fake-1", "eu", "sim", 64, type="fake")
        fake.apply([bare, _node("eu-cpu-1"), _node("eu-cpu-2")])
        kube = Kube(Api(fake.admin), fake, "stormdrill-test:1")
        kube.place = kube_ground.standing(kube.all("/api/v1/nodes"), {})
        try:
            yield kube
        finally:
            kube.close()


@cache
def api_of(kubeconfig: str) -> Api:
    from stormdrill.targets.kubernetes.kubeconfig import access_for

    return Api(access_for(kubeconfig=kubeconfig))


_known: list[tuple[dict[str, str], str, bool]] = []


def ground_of(kube: Kube) -> tuple[dict[str, str], str, bool]:
    """Found out once a session, after what others left there is gone."""
    if not _known:
        kube_ground.clear(kube.api)
        besides = os.environ.get(kube_ground.NODES, "")
        place = kube_ground.standing(kube.all("/api/v1/nodes"), kube_ground.asked_for(besides))
        if place:
            kube.place = place
            _known.append((place, *kube_ground.probed(kube)))
        else:
            which = f" with {besides}" if besides else ""
            _known.append(({}, f"no node{which} has a kubelet and takes pods: the tests' pods have no place", False))
    return _known[0]


@dataclass
class Rig:
    """A run's hold on the cluster, without its ledger: `mechanism.Clusters` and `mechanism.Applies`."""

    kube: Kube
    run: str = field(default_factory=lambda: f"{RUNS}{uuid.uuid4().hex[:8]}")
    over: str = ""
    """Why nothing may be changed any more."""
    asks: Api | None = None
    """As whom it asks, where that isn't the administrator."""
    reverted: set[str] = field(default_factory=set)
    """Injections for which nothing is done any more."""
    words: dict[str, tuple[KubePatch | KubeDelete | KubeEndExec, ...]] = field(default_factory=dict)
    mechanisms: dict[str, Changing] = field(init=False)

    def __post_init__(self) -> None:
        image = ImagePolicy(self.kube.image, "IfNotPresent", nodes=self.kube.place)
        reach = Reach(self.api, self.which)
        self.kube.cleaning.append(reach.close)
        self.mechanisms = {
            **mechanisms(self),
            **pod_mechanisms(self, image, self.which, self.entries, Telling(reach.address, THROUGH_LIMIT_S)),
        }

    def which(self, instance: str) -> Bound | None:
        """Of `web-1` the first pod that runs with the label app=web, in the namespace that was made last."""
        namespace, app = self.kube.namespaces[-1], instance.rpartition("-")[0]
        for pod in self.kube.unasked("pods", namespace):
            mine = at(pod, "metadata", "labels", "app") == app and not at(pod, "metadata", "deletionTimestamp")
            if mine and at(pod, "status", "phase") == "Running":
                name, uid = str(at(pod, "metadata", "name")), str(at(pod, "metadata", "uid"))
                return Bound("", namespace, name, uid, 8080, str(at(pod, "status", "podIP")))
        return None

    def entries(self) -> tuple[str, ...]:
        """As the target finds them: with the rights that the word asks for."""
        found = self.api("").call("GET", f"/api/v1/namespaces/{self.kube.namespaces[-1]}/services").read()
        web = next(one for one in objects(found.get("items")) if at(one, "metadata", "name") == "web")
        return (f"http://{at(web, 'spec', 'clusterIP')}:80",)

    @property
    def suite(self) -> str:
        return "stormdrill"

    def api(self, cluster: str) -> Api:
        return self.asks or self.kube.api

    def hold(self, cluster: str) -> Rig:
        return self

    def apply(self, injection: str, change: Change) -> None:
        apply(self.api(""), change, self.run, injection, lambda: self.check(injection))

    def check(self, injection: str) -> None:
        if self.over:
            raise Unreachable(self.over)

    @contextlib.contextmanager
    def step(self, injection: str) -> Iterator[None]:
        self.check(injection)
        yield

    def over_for(self, injection: str) -> str:
        return self.over or ("its revert has begun" if injection in self.reverted else "")

    def anchor(self, namespace: str) -> None:
        """What a run owns its creations by in a namespace."""
        metadata = {"name": naming.ledger(self.run), "namespace": namespace, "labels": {naming.LABEL: self.run}}
        self.kube.make({"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata})

    def arm(self, one: Injection) -> None:
        refused = self.mechanisms[one.mechanism].refusal(one)
        assert not refused, refused
        words = self.mechanisms[one.mechanism].undo(one)
        assert all(isinstance(word, KubePatch | KubeDelete | KubeEndExec) for word in words)
        self.words[one.id] = words  # type: ignore[assignment]
        for namespace in {word.path.split("/namespaces/")[1].split("/")[0] for word in words if _creates(word)}:
            if self.kube.read(f"/api/v1/namespaces/{namespace}/configmaps/{naming.ledger(self.run)}") is None:
                self.anchor(namespace)

    def harm(self, one: Injection) -> None:
        self.arm(one)
        self.mechanisms[one.mechanism].apply(one)

    def revert(self, one: Injection) -> list[Undone]:
        self.reverted.add(one.id)
        return [self._undone(self.api(""), word) for word in self.words[one.id]]

    def _undone(self, api: Api, word: KubePatch | KubeDelete | KubeEndExec) -> Undone:
        """As the runner does it: what fails is tried again for a while."""
        last: list[Undone] = []

        def over() -> bool:
            last[:] = [undo(api, word, Exec(api))]
            return last[0].word != FAILED

        with contextlib.suppress(AssertionError):
            self.kube.until(over, "")
        return last[0]

    def seen(self, one: Injection, wanted: Callable[[Effect], bool]) -> Effect:
        """The first look that shows it, within a limit."""
        looks: list[Effect] = []

        def look() -> bool:
            looks.append(self.mechanisms[one.mechanism].observe(one))
            return wanted(looks[-1])

        deadline_s = time.monotonic() + WAIT_S
        while not look():
            assert time.monotonic() < deadline_s, f"never seen: {looks[-1]}"
            time.sleep(0.05)
        return looks[-1]

    def end(self) -> None:
        """Nothing is left in place, however a test ended."""
        self.reverted.update(self.words)
        left = [
            f"{word.path}: {undone.detail}"
            for words in self.words.values()
            for word in words
            if (undone := self._undone(self.kube.api, word)).word == FAILED
        ]
        assert not left, "; ".join(left)

    def marked(self, path: str) -> list[str]:
        """Markers on an object."""
        return [name for name in under(self.kube.read(path), "metadata", "annotations") if naming.is_marker(name)]


def _creates(word: object) -> TypeGuard[KubeDelete]:
    return isinstance(word, KubeDelete)


def injection(word: str, how: How | None, name: str = "one", inject_timeout_s: float = 5.0) -> Injection:
    if isinstance(how, Toxic):
        inject_timeout_s = Swapping.inject_timeout_s  # until its proxy is there, as the target has it
    if REAL:
        inject_timeout_s = max(WAIT_S, inject_timeout_s)
    return Injection(
        id=f"fault/{name}", fault="fault", use=0, instance="web-1", mechanism=word, undo="revert",
        start_s=0.0, for_s=30.0, inject_timeout_s=inject_timeout_s, how=how,
    )  # fmt: skip


Scene = Callable[[Kube], How | None]
"""Makes what is harmed, in a namespace of the test's own, and says how. Skips where this cluster can't do it."""
