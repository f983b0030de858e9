"""The kinds that the cluster knows: what lies under which path, and in what they differ."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True)
class Sub:
    """A subresource, as discovery tells it."""

    name: str
    kind: str = ""
    verbs: tuple[str, ...] = ("get", "patch", "update")
    group: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Kind:
    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    subs: tuple[Sub, ...] = ()
    short: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    generation: bool = False
    """metadata.generation begins at 1 and rises with the spec."""
    tells: bool = False
    """DELETE answers with the object even when it is gone at once."""
    put_creates: bool = False
    """PUT of an absent object creates it."""
    put_needs_version: bool = False
    custom: bool = False
    verbs: tuple[str, ...] = VERBS
    hash: str = ""
    """storageVersionHash of discovery."""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """leases.coordination.k8s.io, pods."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def full(self) -> str:
        """Lease.coordination.k8s.io, Pod."""
        return f"{self.kind}.{self.group}" if self.group else self.kind

    @property
    def singular(self) -> str:
        return self.kind.lower()

    def sub(self, name: str) -> Sub | None:
        return next((sub for sub in self.subs if sub.name == name), None)


STATUS = Sub("status")
SCALE = Sub("scale", "Scale", group="autoscaling", version="v1")
PROXY_VERBS = ("create", "delete", "get", "patch", "update")
POD_SUBS = (
    Sub("attach", "PodAttachOptions", ("create", "get")),
    Sub("binding", "Binding", ("create",)),
    Sub("ephemeralcontainers"),
    Sub("eviction", "Eviction", ("create",), "policy", "v1"),
    Sub("exec", "PodExecOptions", ("create", "get")),
    Sub("log", "", ("get",)),
    Sub("portforward", "PodPortForwardOptions", ("create", "get")),
    Sub("proxy", "PodProxyOptions", PROXY_VERBS),
    STATUS,
)
RBAC = "rbac.authorization.k8s.io"
ALL = ("all",)
REVIEW = ("create",)

BUILT_IN = (
    Kind("", "v1", "configmaps", "ConfigMap", short=("cm",), hash="qFsyl6wFWjQ="),
    Kind("", "v1", "secrets", "Secret"),
    Kind("", "v1", "events", "Event", short=("ev",), put_creates=True),
    Kind("", "v1", "endpoints", "Endpoints", short=("ep",), put_creates=True),
    Kind("", "v1", "limitranges", "LimitRange", short=("limits",), put_creates=True),
    Kind("", "v1", "resourcequotas", "ResourceQuota", short=("quota",), subs=(STATUS,), tells=True),
    Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", short=("pvc",), subs=(STATUS,), tells=True),
    Kind(
        "", "v1", "serviceaccounts", "ServiceAccount", short=("sa",), tells=True,
        subs=(Sub("token", "TokenRequest", ("create",), "authentication.k8s.io", "v1"),),
    ),
    Kind(
        "", "v1", "services", "Service", short=("svc",), categories=ALL, tells=True, hash="0/CO1lhkEBI=",
        subs=(Sub("proxy", "ServiceProxyOptions", PROXY_VERBS), STATUS),
    ),
    Kind("", "v1", "pods", "Pod", short=("po",), categories=ALL, tells=True, subs=POD_SUBS, hash="xPOwRZ+Yhw8="),
    Kind(
        "", "v1", "namespaces", "Namespace", False, short=("ns",), tells=True,
        verbs=tuple(verb for verb in VERBS if verb != "deletecollection"),
        subs=(Sub("finalize", verbs=("update",)), STATUS),
    ),
    Kind(
        "", "v1", "nodes", "Node", False, short=("no",), hash="XwShjMxG9Fs=",
        subs=(Sub("proxy", "NodeProxyOptions", PROXY_VERBS), STATUS),
    ),
    Kind(
        "apps", "v1", "deployments", "Deployment", short=("deploy",), categories=ALL, generation=True,
        subs=(SCALE, STATUS),
    ),
    Kind(
        "apps", "v1", "replicasets", "ReplicaSet", short=("rs",), categories=ALL, generation=True,
        subs=(SCALE, STATUS),
    ),
    Kind(
        "apps", "v1", "statefulsets", "StatefulSet", short=("sts",), categories=ALL, generation=True,
        subs=(SCALE, STATUS),
    ),
    Kind("apps", "v1", "daemonsets", "DaemonSet", short=("ds",), categories=ALL, generation=True, subs=(STATUS,)),
    Kind("batch", "v1", "jobs", "Job", categories=ALL, generation=True, subs=(STATUS,)),
    Kind("batch", "v1", "cronjobs", "CronJob", short=("cj",), categories=ALL, generation=True, subs=(STATUS,)),
    Kind(
        "autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", short=("hpa",), categories=ALL,
        subs=(STATUS,),
    ),
    Kind(
        "coordination.k8s.io", "v1", "leases", "Lease", put_creates=True, put_needs_version=True, hash="gqkMMb/YqFM=",
    ),
    Kind(
        "policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", short=("pdb",), generation=True, subs=(STATUS,),
        hash="EVWiDmWqyJw=",
    ),
    Kind("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", short=("netpol",), generation=True),
    Kind("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", generation=True),
    Kind("events.k8s.io", "v1", "events", "Event", short=("ev",), put_creates=True),
    Kind("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", False, short=("pc",), generation=True),
    Kind(RBAC, "v1", "roles", "Role", put_creates=True),
    Kind(RBAC, "v1", "rolebindings", "RoleBinding", put_creates=True),
    Kind(RBAC, "v1", "clusterroles", "ClusterRole", False, put_creates=True),
    Kind(RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", False, put_creates=True),
    Kind(
        "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", False,
        short=("crd", "crds"), generation=True, tells=True, subs=(STATUS,),
    ),
    Kind("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", False, verbs=REVIEW),
    Kind("authorization.k8s.io", "v1", "selfsubjectrulesreviews", "SelfSubjectRulesReview", False, verbs=REVIEW),
    Kind("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", False, verbs=REVIEW),
    Kind("authorization.k8s.io", "v1", "localsubjectaccessreviews", "LocalSubjectAccessReview", verbs=REVIEW),
    Kind("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", False, verbs=REVIEW),
    Kind("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", False, verbs=REVIEW),
)  # fmt: skip


@dataclass(slots=True)
class Kinds:
    """What the server serves now: definitions of custom kinds add to it."""

    known: dict[tuple[str, str], Kind] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for kind in BUILT_IN:
            self.add(kind)

    def add(self, kind: Kind) -> None:
        self.known[kind.group, kind.plural] = kind

    def remove(self, kind: Kind) -> None:
        self.known.pop((kind.group, kind.plural), None)

    def groups(self) -> list[str]:
        return list(dict.fromkeys(kind.group for kind in self.known.values()))

    def versions(self, group: str) -> list[str]:
        return list(dict.fromkeys(kind.version for kind in self.known.values() if kind.group == group))

    def of(self, group: str, version: str) -> Iterable[Kind]:
        return [kind for kind in self.known.values() if (kind.group, kind.version) == (group, version)]

    def at(self, group: str, version: str, plural: str) -> Kind | None:
        kind = self.known.get((group, plural))
        return kind if kind is not None and kind.version == version else None

    def named(self, plural: str) -> Kind:
        """By its plural, or plural.group; the core group first."""
        for kind in self.known.values():
            if plural in (kind.plural, kind.resource):
                return kind
        raise KeyError(f"the fake cluster serves no {plural}: add it to fake_cluster.kinds")

    def of_object(self, obj: dict[str, object]) -> Kind:
        for kind in self.known.values():
            if (kind.kind, kind.api_version) == (obj.get("kind"), obj.get("apiVersion")):
                return kind
        raise KeyError(f"the fake cluster serves no {obj.get('apiVersion')} {obj.get('kind')}")
