"""`quota`: a namespace may have no more than it has now. A dry run of a pod that would be one more is the witness."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from stormdrill.cluster.api import Lost
from stormdrill.cluster.changes import Change
from stormdrill.errors import Unreachable
from stormdrill.model.mechanism import Quota
from stormdrill.model.permission import Need
from stormdrill.model.plan import Injection
from stormdrill.ports import Effect
from stormdrill.targets.kubernetes.mechanism import API_SERVER, Changing, Left, Object, at, texts
from stormdrill.targets.kubernetes.mechanisms.ours import created, name_of
from stormdrill.targets.kubernetes.quantity import amount, shown, used

COUNTED = ("pods", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory")
EXTENDED = "requests."
"""Before any other resource that nodes advertise: requests.nvidia.com/gpu."""
LEAST: Mapping[str, str] = {"cpu": "1m", "memory": "1Mi"}
"""What the pod of the dry run asks for; of anything else, one."""
EXCEEDED = "exceeded quota: "


class Tried(NamedTuple):
    """What the API server would do with one pod more."""

    refused: bool
    """By our quota."""
    said: str


class Quotas(Changing):
    """Witness: the quota's own status, and the refusal of a pod that would be one more (server-side dry run)."""

    permission = "make ResourceQuotas in the system's namespace"
    stands = True

    def refusal(self, injection: Injection) -> str:
        how = _quota(injection)
        if not how.hard:
            return "nothing is limited; write resource: pods"
        for resource, value in how.hard.items():
            part, _, what = resource.partition(".")
            if resource not in COUNTED and not (part == "requests" and "/" in what):
                known = ", ".join(COUNTED)
                return f"a quota for {resource} is not known here; write {known}, or {EXTENDED}VENDOR/RESOURCE"
            try:
                amount(value or "0")
            except ValueError as error:
                return f"{resource}: {error}"
        return ""

    def notes(self, injection: Injection) -> tuple[str, ...]:
        how = _quota(injection)
        resources = ", ".join(how.hard)
        said = [
            f"namespace {how.namespace} gets no more of {resources}: pods that run go on, and may be replaced by others"
        ]
        if any(resource != "pods" for resource in how.hard):
            said.append(f"while it lasts, pods of {how.namespace} that don't say what they ask for are refused too")
        return tuple(said)

    def changes(self, injection: Injection) -> tuple[Change, ...]:
        how = _quota(injection)
        if all(how.hard.values()):
            return self._change(injection, how.hard)
        pods = list(self.items(how.cluster, f"/api/v1/namespaces/{how.namespace}/pods"))
        return self._change(injection, {key: value or shown(used(pods, key)) for key, value in how.hard.items()})

    def touches(self, injection: Injection) -> tuple[Change, ...]:
        return self._change(injection, _quota(injection).hard)

    def _change(self, injection: Injection, hard: Mapping[str, str]) -> tuple[Change, ...]:
        how = _quota(injection)
        body: Object = {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": _name(injection), "namespace": how.namespace},
            "spec": {"hard": dict(hard)},
        }
        why = f"to let {how.namespace} have no more than it has"
        path = f"/api/v1/namespaces/{how.namespace}/resourcequotas"
        return (created(how.cluster, path, self.clusters.run, body, why),)

    def also(self, injection: Injection) -> tuple[Need, ...]:
        how = _quota(injection)
        reads, tries = "to count what is used", "to see, by a dry run, whether one pod more would be refused"
        return (
            Need("list", "", "pods", how.namespace, cluster=how.cluster, why=reads),
            Need("create", "", "pods", how.namespace, cluster=how.cluster, why=tries),
        )

    def look(self, injection: Injection, left: Left) -> Effect:
        how, name = _quota(injection), _name(injection)
        found = self.get(how.cluster, f"/api/v1/namespaces/{how.namespace}/resourcequotas/{name}")
        limits, counted = texts(at(found, "status", "hard")), texts(at(found, "status", "used"))
        if not set(how.hard) <= limits.keys() & counted.keys():
            return Effect(False, False, API_SERVER, f"quota {name} is not counted yet")
        full = [key for key in how.hard if amount(counted[key]) >= amount(limits[key])]
        said = ", ".join(f"{counted[key]} of {limits[key]} {key}" for key in how.hard)
        if not full:
            return Effect(False, False, API_SERVER, f"{how.namespace} uses {said}: there is room left")
        tried = self._tried(injection)
        return Effect(tried.refused, False, API_SERVER, f"{how.namespace} uses {said}; {tried.said}")

    def lingers(self, injection: Injection) -> str:
        """The admission of pods goes by a copy of its own, which may know the quota a moment longer."""
        tried = self._tried(injection)
        return tried.said if tried.refused else ""

    def _tried(self, injection: Injection) -> Tried:
        """Raises Unreachable. A refusal for another reason is none of ours."""
        how = _quota(injection)
        path = f"/api/v1/namespaces/{how.namespace}/pods"
        try:
            api = self.clusters.api(how.cluster)
            answer = api.call("POST", path, _one_more(how, self.clusters.run), query={"dryRun": "All"})
        except Lost as lost:
            raise Unreachable(str(lost)) from lost
        if answer.good:
            return Tried(False, "one pod more would be accepted")
        if EXCEEDED + _name(injection) in answer.said:
            return Tried(True, f"one pod more would be refused: {answer.said}")
        return Tried(False, f"one pod more would be refused by something else: {answer.said}")


def _one_more(how: Quota, run: str) -> Object:
    """Never made: it is sent as a dry run. It says all that another quota could ask for, and takes little."""
    amounts: dict[str, dict[str, str]] = {"requests": dict(LEAST), "limits": dict(LEAST)}
    for resource in how.hard:
        part, _, what = resource.partition(".")
        if what:
            amounts[part][what] = LEAST.get(what, "1")
            if what not in LEAST:  # of what can't be shared, limit and request are the same
                amounts["limits"][what] = "1"
    container: Object = {"name": "one-more", "image": "stormdrill", "resources": amounts}
    container["securityContext"] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    security = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    meta = {"generateName": "stormdrill-one-more-", "labels": {"stormdrill": run}}
    spec = {"automountServiceAccountToken": False, "securityContext": security, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def _name(injection: Injection) -> str:
    return name_of(injection, "stormdrill-quota")


def _quota(injection: Injection) -> Quota:
    assert isinstance(injection.how, Quota)
    return injection.how
