"""A small system on a cluster, and a run's whole hold on it: Lease, ledger, the real watchdog Job, the least rights.

As a program it is the runner, which harms what its first argument tells it and then only lives.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from cluster_rig import created, patch_of, scaled
from kube_ground import SESSION, SESSION_LABEL
from kube_rig import REAL, Kube
from stormdrill.cluster import naming
from stormdrill.cluster.api import Api
from stormdrill.cluster.changes import Change
from stormdrill.cluster.hold import Hold
from stormdrill.cluster.job import Wanted
from stormdrill.cluster.rights import Right
from stormdrill.model.permission import Need
from stormdrill.targets.kubernetes.kubeconfig import access_for
from stormdrill.targets.kubernetes.mechanism import Object, at, objects, texts
from stormdrill.targets.kubernetes.preflight import not_allowed

APPLY = "application/apply-patch+yaml"
LEASE_S = 5.0 if REAL else 1.5
SYSTEM = "shop"
INJECTIONS = ("workers", "quota")
OURS = ("configmaps", "apis/batch/v1 jobs", "apis/coordination.k8s.io/v1 leases", "pods", "resourcequotas")
FILES = {
    "policy.yaml": "targets: [kubernetes]\nmax_share: 100%\n",
    "experiments/systems/shop.yaml": """
name: shop
entry: web
kubernetes:
  namespace: {shop}
  suite: {suite}
  image: {{name: "{image}", pull: IfNotPresent}}
  nodes: {place}
  lease: 10s
  stands_for: {{freeze: crash}}
  services:
    web: {{select: {{app: web}}, port: 8080, ready: GET /}}
metrics:
  depth: {{prometheus: depth, from: web}}
""",
    "experiments/held.yaml": """
title: The shop without its workers
hypothesis: nothing is left of it
owner: tests
system: shop
phases: {{baseline: 5s, fault: 20s, recovery: 5s}}
faults:
  - queue-backlog: {{service: web}}
  - quota-exhaustion: {{resource: pods}}
objectives:
  baseline, fault:
    - depth < 100
guards: []
""",
}


@dataclass(frozen=True)
class Held:
    """What there is, as the runner is told it."""

    kubeconfig: str
    image: str
    suite: str
    shop: str
    place: dict[str, str]
    quota: str
    """Name of what the plan would create."""
    rights: list[dict[str, str]]
    """Of the watchdog, for the undos."""
    run: str

    @property
    def workers(self) -> str:
        return f"/apis/apps/v1/namespaces/{self.shop}/deployments/web"

    @property
    def quota_path(self) -> str:
        return f"/api/v1/namespaces/{self.shop}/resourcequotas/{self.quota}"

    @property
    def ledger(self) -> str:
        return f"/api/v1/namespaces/{self.suite}/configmaps/{naming.ledger(self.run)}"

    def hold(self, api: Api) -> Hold:
        return Hold(
            api,
            self.run,
            SYSTEM,
            self.image,
            suite=self.suite,
            lease_s=LEASE_S,
            wanted=Wanted("IfNotPresent", nodes=self.place),
            namespaces=(self.shop,),
            needs=[Right.of(one) for one in self.rights],
            ready_s=120.0 if REAL else 20.0,
        )

    def changes(self, api: Api) -> dict[str, Change]:
        """A workload is scaled away, and a quota created."""
        there: dict[str, Any] = api.call("GET", self.workers).read()
        spec = {"hard": {"pods": "2"}}
        quota: Object = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": self.quota}, "spec": spec}
        return {
            "workers": patch_of(there, self.workers, self.run, "workers", scaled(0, 2)),
            "quota": created(self.quota_path, self.run, quota),
        }

    def harm(self, held: Hold) -> None:
        for injection, change in self.changes(held.api).items():
            held.arm(injection, (change.undo,), 600.0)
            held.apply(injection, change)

    def harmed(self, kube: Kube) -> bool:
        """All of it."""
        return at(kube.read(self.workers), "spec", "replicas") == 0 and kube.read(self.quota_path) is not None

    def as_before(self, kube: Kube) -> bool:
        there = kube.read(self.workers)
        marked = [name for name in texts(at(there, "metadata", "annotations")) if naming.is_marker(name)]
        return at(there, "spec", "replicas") == 2 and not marked and kube.read(self.quota_path) is None

    def left(self, kube: Kube) -> set[str]:
        """Kinds and names of all that carries the run's label, and of the Lease while somebody holds it."""
        found = set()
        for kind in OURS:
            root, _, plural = kind.rpartition(" ")
            for namespace in (self.suite, self.shop):
                for one in kube.all(f"/{root or 'api/v1'}/namespaces/{namespace}/{plural}"):
                    mine = texts(at(one, "metadata", "labels")).get(naming.LABEL) == self.run
                    if mine if plural != "leases" else at(one, "spec", "holderIdentity"):
                        found.add("pods" if plural == "pods" else f"{plural}/{at(one, 'metadata', 'name')}")
        return found

    def nothing_left(self, kube: Kube) -> None:
        last: list[set[str]] = []

        def gone() -> bool:
            last[:] = [self.left(kube)]
            return not last[0]

        try:
            kube.until(gone, "")
        except AssertionError:
            raise AssertionError(f"left of the run: {', '.join(sorted(last[0]))}") from None


def strictly(kube: Kube, documents: Sequence[Any]) -> None:
    """By server-side apply, which refuses unknown fields. What stands in no namespace of the tests is removed."""
    mine = {SESSION_LABEL: SESSION}
    for one in documents:
        root = f"/apis/{one['apiVersion']}" if "/" in one["apiVersion"] else f"/api/{one['apiVersion']}"
        namespace, name = one["metadata"].get("namespace"), one["metadata"]["name"]
        where = f"/namespaces/{namespace}" if namespace else ""
        query = urlencode({"fieldManager": "stormdrill-tests", "fieldValidation": "Strict", "force": "true"})
        kube.do("PATCH", f"{root}{where}/{one['kind'].lower()}s/{name}?{query}", one, APPLY)
        if (namespace or name) not in kube.namespaces:
            path = f"{root}{where}/{one['kind'].lower()}s/{name}"
            kube.patch(path, {"metadata": {"labels": mine}})
            kube.cleaning.append(partial(kube.api.call, "DELETE", path))


def printed(root: Path, kubeconfig: Path, values: dict[str, object]) -> list[Any]:
    """What `plan --rbac` prints, as a user runs it."""
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(**values))
    done = subprocess.run(
        [sys.executable, "-m", "stormdrill", "plan", "experiments/held.yaml", "--target", "kubernetes", "--rbac"],
        cwd=root,
        env={**os.environ, "KUBECONFIG": str(kubeconfig), "STORMDRILL_POLICY": str(root / "policy.yaml")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def laid_out(kube: Kube, root: Path) -> tuple[Held, list[Any]]:
    """The shop, the suite's namespace with its account, and the rules that were printed for it."""
    kube.needs_stormdrill()
    shop, suite = kube.namespace(), kube.namespace(drill=False)
    kube.deployment(shop)
    if kube.fake is not None:  # what begins from here on are watchdogs, as processes
        kube.fake.run_pods[kube.image] = []
    kubeconfig = kube.kubeconfig(root / "kubeconfig")
    place = json.dumps(kube.place)
    values = {"shop": shop, "suite": suite, "image": kube.image, "place": place}
    rules = printed(root, kubeconfig, values)
    strictly(kube, rules)
    where = f"/api/v1/namespaces/{suite}/serviceaccounts/stormdrill"
    kube.until(lambda: kube.read(where), "the account is not there")
    ((quota,),) = (
        rule["resourceNames"]
        for one in rules
        for rule in one.get("rules", ())
        if "resourcequotas" in rule["resources"] and "delete" in rule["verbs"]
    )
    rights = [
        {"verb": verb, "group": "apps", "resource": "deployments", "namespace": shop, "name": "web"}
        for verb in ("get", "patch")
    ]
    rights += [
        {"verb": verb, "resource": "resourcequotas", "namespace": shop, "name": quota} for verb in ("get", "delete")
    ]
    run = f"held-{uuid.uuid4().hex[:8]}"
    return Held(str(kubeconfig), kube.image, suite, shop, kube.place, quota, rights, run), rules


def as_account(kube: Kube, suite: str, account: str, root: Path, needs: Sequence[Need]) -> Api:
    """As that account, by a token that was asked for, once it may what it needs."""
    path = f"/api/v1/namespaces/{suite}/serviceaccounts/{account}/token"
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    token = str(at(kube.do("POST", path, body), "status", "token"))
    api = Api(access_for(kubeconfig=str(kube.kubeconfig(root / "account.kubeconfig", token))))
    kube.until(lambda: not not_allowed(api, needs), "its rules never came into force")
    return api


def without(rules: Sequence[Any], verb: str, resource: str) -> list[Any]:
    """The role that allows it, without that."""
    return [
        {**one, "rules": [_less(rule, verb) if resource in rule["resources"] else rule for rule in one["rules"]]}
        for one in rules
        if any(resource in rule["resources"] and verb in rule["verbs"] for rule in one.get("rules", ()))
    ]


def _less(rule: dict[str, Any], verb: str) -> dict[str, Any]:
    return {**rule, "verbs": [each for each in rule["verbs"] if each != verb]}


@contextmanager
def a_runner(held: Held) -> Iterator[subprocess.Popen[str]]:
    """A process of its own, that has harmed everything."""
    process = subprocess.Popen(
        [sys.executable, __file__, json.dumps(asdict(held))],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
        },
        stdin=subprocess.PIPE,  # it ends with whoever began it
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline().strip() == "harmed", "the runner ended early"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def jobs_of(kube: Kube, held: Held) -> list[Object]:
    path = f"/apis/batch/v1/namespaces/{held.suite}/jobs"
    return list(objects(kube.api.call("GET", path).read().get("items")))


def main() -> None:
    held = Held(**json.loads(sys.argv[1]))
    holding = held.hold(Api(access_for(kubeconfig=held.kubeconfig)))
    holding.open()
    held.harm(holding)
    sys.stdout.write("harmed\n")
    sys.stdout.flush()
    sys.stdin.read()
    os._exit(1)  # as one that was killed


if __name__ == "__main__":
    main()
