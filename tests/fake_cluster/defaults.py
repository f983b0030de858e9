"""What a server fills in where a client left it out: Pods and what makes them, Services, policies, priorities."""

from __future__ import annotations

import copy
from collections.abc import Callable

from fake_cluster import refusals
from fake_cluster.matching import Obj
from fake_cluster.registry import Admitted, Registry

PATIENCE = [
    {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
    for key in ("not-ready", "unreachable")
]
"""Tolerations that admission adds to every Pod."""
JOB_UID = "batch.kubernetes.io/controller-uid"
"""The label that a Job finds its Pods by."""


def install(registry: Registry) -> None:
    for resource, fill in (
        ("pods", _pod), ("deployments.apps", _deployment), ("replicasets.apps", _replica_set),
        ("statefulsets.apps", _stateful_set), ("daemonsets.apps", _daemon_set), ("jobs.batch", _job),
        ("services", _service), ("priorityclasses.scheduling.k8s.io", _priority_class),
        ("networkpolicies.networking.k8s.io", _network_policy), ("poddisruptionbudgets.policy", _budget),
        ("resourcequotas", lambda quota: quota.setdefault("status", {})), ("limitranges", _limit_range),
        ("nodes", _node),
    ):  # fmt: skip
        registry.default(resource)(_patiently(fill))
    registry.admission(_job_selects_its_own)
    refusals.install(registry)


def _patiently(fill: Callable[[Obj], object]) -> Callable[[Obj], None]:
    """What has no spec yet to fill in is for validation to refuse."""

    def default(obj: Obj) -> None:
        try:
            fill(obj)
        except (KeyError, TypeError, AttributeError):
            return

    return default


def container(one: Obj) -> None:
    resources = one.setdefault("resources", {})
    limits = resources.get("limits") or {}
    if limits:
        resources["requests"] = {**limits, **(resources.get("requests") or {})}
    one.setdefault("terminationMessagePath", "/dev/termination-log")
    one.setdefault("terminationMessagePolicy", "File")
    image = str(one.get("image", ""))
    tag = image.rpartition("/")[2].partition(":")[2]
    one.setdefault("imagePullPolicy", "IfNotPresent" if tag not in ("", "latest") or "@" in image else "Always")
    for port in one.get("ports") or []:
        port.setdefault("protocol", "TCP")
    for name in ("readinessProbe", "livenessProbe", "startupProbe"):
        if probe := one.get(name):
            for key, value in (
                ("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3),
            ):  # fmt: skip
                probe.setdefault(key, value)
            if asked := probe.get("httpGet"):
                asked.setdefault("path", "/")
                asked.setdefault("scheme", "HTTP")
    for variable in one.get("env") or []:
        if reference := (variable.get("valueFrom") or {}).get("fieldRef"):
            reference.setdefault("apiVersion", "v1")


def pod_spec(spec: Obj) -> None:
    """As in a template."""
    for one in (*(spec.get("initContainers") or []), *spec["containers"]):
        container(one)
    for one in spec.get("ephemeralContainers") or []:
        container(one)
    for volume in spec.get("volumes") or []:
        for word in ("configMap", "projected", "downwardAPI", "secret"):
            if word in volume:
                volume[word].setdefault("defaultMode", 420)
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    if spec.get("serviceAccountName"):
        spec.setdefault("serviceAccount", spec["serviceAccountName"])
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")


def _pod(pod: Obj) -> None:
    spec = pod["spec"]
    pod_spec(spec)
    spec.setdefault("serviceAccountName", "default")
    spec.setdefault("serviceAccount", spec["serviceAccountName"])
    spec.setdefault("enableServiceLinks", True)
    if "status" not in pod or not pod["status"].get("phase"):  # it is being created
        tolerations = spec.setdefault("tolerations", [])
        for one in PATIENCE:
            if not any(held.get("key") in (one["key"], None) and _same_effect(held) for held in tolerations):
                tolerations.append(dict(one))
    pod.setdefault("status", {}).setdefault("phase", "Pending")
    pod["status"].setdefault("qosClass", qos(spec))


def _same_effect(toleration: Obj) -> bool:
    return toleration.get("effect") in (None, "", "NoExecute")


def qos(spec: Obj) -> str:
    """BestEffort, Burstable or Guaranteed; only CPU and memory count."""
    given, all_limited = False, True
    for one in spec["containers"]:
        resources = one.get("resources") or {}
        requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
        given = given or any(name in part for part in (requests, limits) for name in ("cpu", "memory"))
        limited = all(name in limits and requests.get(name) == limits[name] for name in ("cpu", "memory"))
        all_limited = all_limited and limited
    return "BestEffort" if not given else "Guaranteed" if all_limited else "Burstable"


def _template(owner: Obj) -> None:
    template = owner["spec"]["template"]
    template.setdefault("metadata", {}).setdefault("creationTimestamp", None)
    pod_spec(template["spec"])


def _deployment(deployment: Obj) -> None:
    spec = deployment["spec"]
    spec.setdefault("replicas", 1)
    strategy = spec.setdefault("strategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    deployment.setdefault("status", {})
    _template(deployment)
    if spec.get("paused") is False:
        del spec["paused"]


def _replica_set(rs: Obj) -> None:
    rs["spec"].setdefault("replicas", 1)
    rs.setdefault("status", {}).setdefault("replicas", 0)
    _template(rs)


def _stateful_set(sts: Obj) -> None:
    spec = sts["spec"]
    spec.setdefault("replicas", 1)
    spec.setdefault("podManagementPolicy", "OrderedReady")
    update = spec.setdefault("updateStrategy", {})
    if update.setdefault("type", "RollingUpdate") == "RollingUpdate":
        update.setdefault("rollingUpdate", {"partition": 0})
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("serviceName", "")
    status = sts.setdefault("status", {})
    status.setdefault("replicas", 0)
    status.setdefault("availableReplicas", 0)
    _template(sts)


def _daemon_set(ds: Obj) -> None:
    spec = ds["spec"]
    update = spec.setdefault("updateStrategy", {})
    if update.setdefault("type", "RollingUpdate") == "RollingUpdate":
        update.setdefault("rollingUpdate", {"maxUnavailable": 1, "maxSurge": 0})
    spec.setdefault("revisionHistoryLimit", 10)
    status = ds.setdefault("status", {})
    for count in ("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"):
        status.setdefault(count, 0)
    _template(ds)


def _job(job: Obj) -> None:
    spec = job["spec"]
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("manualSelector", False)
    spec.setdefault("podReplacementPolicy", "TerminatingOrFailed")
    job.setdefault("status", {})
    _template(job)


def _job_selects_its_own(asked: Admitted) -> None:
    """A new Job that isn't told what to select takes what carries its uid, and its template says so. Only a new one:
    a PUT that leaves the selector out changes what can't be changed."""
    job = asked.obj
    if asked.kind.resource != "jobs.batch" or asked.operation != "CREATE" or asked.sub or job is None:
        return
    spec = job.get("spec") or {}
    if spec.get("manualSelector") or not isinstance(spec.get("template"), dict):
        return
    uid, name = job["metadata"]["uid"], job["metadata"]["name"]
    labels = _part(_part(spec["template"], "metadata"), "labels")
    for key in ("job-name", "batch.kubernetes.io/job-name"):
        labels.setdefault(key, name)
    for key in ("controller-uid", JOB_UID):
        labels.setdefault(key, uid)
    _part(_part(spec, "selector"), "matchLabels").setdefault(JOB_UID, uid)


def _part(of: Obj, name: str) -> Obj:
    """An object's part, made where it is missing or null."""
    if of.get(name) is None:
        of[name] = {}
    part: Obj = of[name]
    return part


def _service(service: Obj) -> None:
    spec = service.setdefault("spec", {})
    for port in spec.get("ports") or []:
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port["port"])
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    spec.setdefault("ipFamilies", ["IPv4"])
    spec.setdefault("ipFamilyPolicy", "SingleStack")
    spec.setdefault("internalTrafficPolicy", "Cluster")
    service.setdefault("status", {"loadBalancer": {}})


def _priority_class(made: Obj) -> None:
    made.setdefault("preemptionPolicy", "PreemptLowerPriority")


def _network_policy(policy: Obj) -> None:
    spec = policy["spec"]
    spec.setdefault("podSelector", {})
    spec.setdefault("policyTypes", ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])
    for rule in (*(spec.get("ingress") or []), *(spec.get("egress") or [])):
        for port in rule.get("ports") or []:
            port.setdefault("protocol", "TCP")


def _budget(budget: Obj) -> None:
    status = budget.setdefault("status", {})
    for count in ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"):
        status.setdefault(count, 0)


def _limit_range(limits: Obj) -> None:
    for one in limits["spec"].get("limits") or []:
        if one.get("type") != "Container":
            continue
        least = {**copy.copy(one.get("min") or {}), **(one.get("defaultRequest") or {})}
        one["defaultRequest"] = {**(one.get("default") or {}), **least}


def _node(node: Obj) -> None:
    spec = node.setdefault("spec", {})
    if spec.get("unschedulable") is False:
        del spec["unschedulable"]
    if spec.get("taints") in ([], None):
        spec.pop("taints", None)
    labels = node["metadata"].setdefault("labels", {})
    labels.setdefault("kubernetes.io/hostname", node["metadata"]["name"])
    for one in (node.get("status") or {}).get("conditions") or []:
        one.setdefault("lastHeartbeatTime", None)
        one.setdefault("lastTransitionTime", None)
    for part in ("capacity", "allocatable"):
        for name, amount in ((node.get("status") or {}).get(part) or {}).items():
            node["status"][part][name] = str(amount)
