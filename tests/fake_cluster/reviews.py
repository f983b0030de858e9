"""What a client asks about rights and identities, and tokens for ServiceAccounts."""

from __future__ import annotations

from fake_cluster.calls import Call, Reply, User
from fake_cluster.problems import bad_request, invalid, not_found
from fake_cluster.rbac import Asked, Rights, account_user
from fake_cluster.registry import Registry
from fake_cluster.store import Event, Object, at, now
from fake_cluster.tokens import Tokens

AUTHORIZATION = "authorization.k8s.io"
SHORTEST_S = 600


def install(registry: Registry, rights: Rights, tokens: Tokens) -> None:
    @registry.handler(f"selfsubjectaccessreviews.{AUTHORIZATION}", "", "POST")
    def own_access(call: Call) -> Reply:
        spec = call.json().get("spec") or {}
        return Reply(201, reviewed(rights, "SelfSubjectAccessReview", spec, call.user, {}))

    @registry.handler(f"subjectaccessreviews.{AUTHORIZATION}", "", "POST")
    def access(call: Call) -> Reply:
        spec = call.json().get("spec") or {}
        return Reply(201, reviewed(rights, "SubjectAccessReview", spec, subject(spec), {}))

    @registry.handler(f"localsubjectaccessreviews.{AUTHORIZATION}", "", "POST")
    def local_access(call: Call) -> Reply:
        spec = call.json().get("spec") or {}
        meta = {"namespace": call.namespace}
        return Reply(201, reviewed(rights, "LocalSubjectAccessReview", spec, subject(spec), meta))

    @registry.handler(f"selfsubjectrulesreviews.{AUTHORIZATION}", "", "POST")
    def rules(call: Call) -> Reply:
        return Reply(201, rules_review(rights, call))

    @registry.handler("selfsubjectreviews.authentication.k8s.io", "", "POST")
    def who(call: Call) -> Reply:
        info: Object = {"username": call.user.name, "groups": list(call.user.groups)}
        head = {"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"}
        return Reply(201, {**head, "metadata": {"creationTimestamp": now()}, "status": {"userInfo": info}})

    @registry.handler("serviceaccounts", "token", "POST")
    def token(call: Call) -> Reply:
        return token_request(call, tokens)

    registry.store.subscribe(lambda event: _ended(event, tokens))


def _ended(event: Event, tokens: Tokens) -> None:
    """The tokens of a ServiceAccount end with it."""
    if event.type == "DELETED" and event.kind.resource == "serviceaccounts":
        tokens.revoke(event.after.obj["metadata"]["uid"])


def subject(spec: Object) -> User:
    return User(spec.get("user") or "", tuple(spec.get("groups") or ()))


def reviewed(rights: Rights, kind: str, spec: Object, user: User, meta: Object) -> Object:
    why = rights.allows(user, _asked(spec))
    status: Object = {"allowed": why is not None}
    if why:
        status["reason"] = why
    return {
        "kind": kind,
        "apiVersion": f"{AUTHORIZATION}/v1",
        "metadata": {**meta, "creationTimestamp": None},
        "spec": spec,
        "status": status,
    }


def rules_review(rights: Rights, call: Call) -> Object:
    namespace = (call.json().get("spec") or {}).get("namespace")
    if not namespace:
        raise bad_request("no namespace on request")
    resource, plain = [], []
    for allowance in rights.of(call.user):
        if allowance.namespace in ("", namespace):
            for rule in allowance.rules:
                (plain if rule.get("nonResourceURLs") else resource).append(rule)
    return {
        "kind": "SelfSubjectRulesReview",
        "apiVersion": f"{AUTHORIZATION}/v1",
        "metadata": {"creationTimestamp": None},
        "spec": {},
        "status": {"resourceRules": resource, "nonResourceRules": plain, "incomplete": False},
    }


def _asked(spec: Object) -> Asked:
    path = spec.get("nonResourceAttributes")
    if path:
        return Asked(path.get("verb", ""), path=path.get("path", ""))
    wanted = spec.get("resourceAttributes")
    if not wanted:
        told = 'Invalid value: "null": exactly one of nonResourceAttributes or resourceAttributes must be specified'
        raise invalid("", AUTHORIZATION, "", [("spec.resourceAttributes", "FieldValueInvalid", told)])
    resource, _, sub = wanted.get("resource", "").partition("/")
    return Asked(
        wanted.get("verb", ""),
        wanted.get("group", ""),
        resource,
        wanted.get("subresource", "") or sub,
        wanted.get("namespace", ""),
        wanted.get("name", ""),
    )


def token_request(call: Call, tokens: Tokens) -> Reply:
    kind = call.served()
    held = call.registry.store.get(kind, call.namespace, call.name)
    if held is None:
        raise not_found(kind, call.name)
    spec = call.json().get("spec") or {}
    seconds = spec.get("expirationSeconds") or 3600
    if seconds < SHORTEST_S:
        told = f"Invalid value: {seconds}: may not specify a duration less than 10 minutes"
        cause = ("spec.expirationSeconds", "FieldValueInvalid", told)
        raise invalid("TokenRequest", "authentication.k8s.io", "", [cause])
    token = tokens.add(account_user(call.namespace, call.name, held.obj["metadata"]["uid"]), seconds)
    return Reply(
        201,
        {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": call.name, "namespace": call.namespace, "creationTimestamp": now()},
            "spec": {
                "audiences": spec.get("audiences") or ["https://kubernetes.default.svc.cluster.local"],
                "expirationSeconds": seconds,
                "boundObjectRef": None,
            },
            "status": {"token": token, "expirationTimestamp": at(seconds)},
        },
    )
