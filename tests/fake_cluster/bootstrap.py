"""What every cluster has from the start: namespaces, the roles of everybody, custom kinds that definitions add."""

from __future__ import annotations

from fake_cluster.kinds import RBAC, STATUS, Kind
from fake_cluster.namespaces import FIRST
from fake_cluster.registry import Registry
from fake_cluster.store import Event, Object

HEALTH = ("/healthz", "/livez", "/readyz", "/version", "/version/")
EVERYBODY = ("/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", *HEALTH[2:])
WELL_KNOWN = ("/.well-known", "/.well-known/*")
ISSUER = (
    "/.well-known/openid-configuration",
    "/.well-known/openid-configuration/",
    "/openid/v1/jwks",
    "/openid/v1/jwks/",
)


def install(registry: Registry) -> None:
    registry.store.subscribe(lambda event: _definition(registry, event))


def fill(registry: Registry) -> None:
    for name in FIRST:
        registry.add({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    everything = [
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
        {"nonResourceURLs": ["*"], "verbs": ["*"]},
    ]
    for name, rules, group in (
        ("cluster-admin", everything, "system:masters"),
        ("system:discovery", _plain(EVERYBODY), "system:authenticated"),
        ("system:discovery-well-known", _plain(WELL_KNOWN), "system:authenticated"),
        ("system:service-account-issuer-discovery", _plain(ISSUER), "system:serviceaccounts"),
        ("system:public-info-viewer", _plain(HEALTH), "system:authenticated"),
        (
            "system:basic-user",
            [
                {
                    "apiGroups": ["authorization.k8s.io"],
                    "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
                    "verbs": ["create"],
                },
                {"apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"], "verbs": ["create"]},
            ],
            "system:authenticated",
        ),
    ):
        for obj in _role(name, rules, group):
            registry.add(obj)


def _plain(paths: tuple[str, ...]) -> list[Object]:
    return [{"nonResourceURLs": list(paths), "verbs": ["get"]}]


def _role(name: str, rules: list[Object], group: str) -> list[Object]:
    meta = {"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}}
    api_version = f"{RBAC}/v1"
    ref = {"apiGroup": RBAC, "kind": "ClusterRole", "name": name}
    subject = {"apiGroup": RBAC, "kind": "Group", "name": group}
    return [
        {"apiVersion": api_version, "kind": "ClusterRole", "metadata": dict(meta), "rules": rules},
        {
            "apiVersion": api_version,
            "kind": "ClusterRoleBinding",
            "metadata": dict(meta),
            "roleRef": ref,
            "subjects": [subject],
        },
    ]


def _definition(registry: Registry, event: Event) -> None:
    """A CustomResourceDefinition serves its kind as soon as it is stored."""
    if event.kind.plural != "customresourcedefinitions":
        return
    spec = event.after.obj["spec"]
    names = spec["names"]
    served = next(version for version in spec["versions"] if version.get("served"))
    subs = (STATUS,) if "status" in (served.get("subresources") or {}) else ()
    kind = Kind(
        spec["group"],
        served["name"],
        names["plural"],
        names["kind"],
        spec.get("scope") == "Namespaced",
        subs,
        tuple(names.get("shortNames") or ()),
        generation=True,
        custom=True,
        put_creates=False,
    )
    if event.type == "DELETED":
        registry.kinds.remove(kind)
    else:
        registry.kinds.add(kind)
