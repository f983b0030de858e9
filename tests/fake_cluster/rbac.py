"""Who asks, and what they may: tokens, Roles and their bindings, as the recorded server answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fake_cluster.calls import Call, User
from fake_cluster.kinds import RBAC
from fake_cluster.problems import Problem, forbidden, named, problem

if TYPE_CHECKING:
    from fake_cluster.registry import Admitted, Registry
    from fake_cluster.store import Event


STREAMS = ("attach", "exec", "portforward")


@dataclass(frozen=True, slots=True)
class Asked:
    """What RBAC is asked."""

    verb: str
    group: str = ""
    resource: str = ""
    sub: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    """Of what is no resource."""

    @property
    def whole(self) -> str:
        return f"{self.resource}/{self.sub}" if self.sub else self.resource


@dataclass(frozen=True, slots=True)
class Allowance:
    """The rules of one binding for one user."""

    namespace: str
    """Empty: everywhere."""
    rules: tuple[dict[str, Any], ...]
    why: str


def account_user(namespace: str, name: str, uid: str = "") -> User:
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
    return User(f"system:serviceaccount:{namespace}:{name}", groups, uid)


class Rights:
    """The rights of users, read from the objects in the store; kept until one of them changes."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.streams_take_create = True
        """As from Kubernetes 1.35 on: whoever opens a websocket to a Pod (GET) must be allowed `create` as well."""
        self._known: dict[User | str, list[Allowance]] = {}
        registry.store.subscribe(self._forget)
        registry.admission(lambda asked: refuse_escalation(self, asked))

    def _forget(self, event: Event) -> None:
        if event.kind.group == RBAC:
            self._known.clear()

    def allows(self, user: User, asked: Asked) -> str | None:
        """Why it is allowed (empty for administrators), or None."""
        if user.admin:
            return ""
        for allowance in self.of(user):
            if allowance.namespace and allowance.namespace != asked.namespace:
                continue
            if any(covers(rule, asked) for rule in allowance.rules):
                return allowance.why
        return None

    def besides(self, call: Call) -> str:
        """The verb that a request takes besides its own, when it is allowed. Raises Problem 403, which doesn't name it:
        it comes from behind what refuses all others."""
        streams = self.streams_take_create and call.plural == "pods" and call.sub in STREAMS and call.verb == "get"
        if not streams:
            return ""
        if self.allows(call.user, replace(asked_by(call), verb="create")) is None:
            raise forbidden("pods", "", "pods", call.name, "")
        return "create"

    def holds(self, asked: Admitted) -> Callable[[Asked], bool]:
        return lambda wanted: self.allows(asked.user, wanted) is not None

    def of(self, user: User) -> list[Allowance]:
        with self._registry.store.lock:
            if user.name not in self._known:
                self._known[user.name] = [
                    *self._bound("clusterrolebindings", user),
                    *self._bound("rolebindings", user),
                ]
            return self._known[user.name]

    def _bound(self, plural: str, user: User) -> list[Allowance]:
        found = []
        for binding in self._registry.list(plural):
            subject = next((one for one in binding.get("subjects") or [] if _is(one, user, binding)), None)
            if subject is None:
                continue
            ref, meta = binding["roleRef"], binding["metadata"]
            namespace = meta.get("namespace", "")
            roles = "roles" if ref["kind"] == "Role" else "clusterroles"
            role = self._registry.store.get(
                self._registry.kinds.named(roles), namespace if roles == "roles" else "", ref["name"]
            )
            if role is None:
                continue
            bound = f"{meta['name']}/{namespace}" if namespace else meta["name"]
            kind = "RoleBinding" if namespace else "ClusterRoleBinding"
            whom = f"{subject['name']}/{subject['namespace']}" if subject.get("namespace") else subject["name"]
            why = f'RBAC: allowed by {kind} "{bound}" of {ref["kind"]} "{ref["name"]}" to {subject["kind"]} "{whom}"'
            found.append(Allowance(namespace, tuple(role.obj.get("rules") or ()), why))
        return found


def refuse_escalation(rights: Rights, asked: Admitted) -> None:
    """Nobody grants by a Role what they don't hold. Raises Problem 403."""
    if asked.kind.plural not in ("roles", "clusterroles") or asked.obj is None or asked.user.admin:
        return
    holds = rights.holds(asked)
    lacking = [rule for rule in asked.obj.get("rules") or () if not all(map(holds, _grants(rule, asked.namespace)))]
    if lacking:
        groups = " ".join(f'"{group}"' for group in asked.user.groups)
        why = (
            f'user "{asked.user.name}" (groups=[{groups}]) is attempting to grant RBAC permissions not currently '
            "held:\n" + "\n".join(map(_shown, lacking))
        )
        raise forbidden(asked.kind.resource, asked.kind.group, asked.kind.plural, asked.name, why)


def _grants(rule: dict[str, Any], namespace: str) -> list[Asked]:
    names = rule.get("resourceNames") or [""]
    return [
        Asked(verb, group, *_split(resource), namespace, name)
        for verb in rule.get("verbs") or ()
        for group in rule.get("apiGroups") or ()
        for resource in rule.get("resources") or ()
        for name in names
    ]


def _split(resource: str) -> tuple[str, str]:
    whole, _, sub = resource.partition("/")
    return whole, sub


def _shown(rule: dict[str, Any]) -> str:
    parts = []
    for name, key in (("APIGroups", "apiGroups"), ("Resources", "resources"), ("ResourceNames", "resourceNames"),
                      ("Verbs", "verbs")):  # fmt: skip
        if rule.get(key):
            parts.append(f"{name}:[" + " ".join(f'"{one}"' for one in rule[key]) + "]")
    return "{" + ", ".join(parts) + "}"


def _is(subject: dict[str, Any], user: User, binding: dict[str, Any]) -> bool:
    kind, name = subject.get("kind"), subject.get("name")
    if kind == "ServiceAccount":
        namespace = subject.get("namespace") or binding["metadata"].get("namespace", "")
        return user.name == f"system:serviceaccount:{namespace}:{name}"
    return name in user.groups if kind == "Group" else name == user.name


def covers(rule: dict[str, Any], asked: Asked) -> bool:
    verbs = rule.get("verbs") or ()
    if "*" not in verbs and asked.verb not in verbs:
        return False
    if asked.path:
        return any(_path_covers(path, asked.path) for path in rule.get("nonResourceURLs") or ())
    groups = rule.get("apiGroups") or ()
    if "*" not in groups and asked.group not in groups:
        return False
    resources = rule.get("resources") or ()
    if not {"*", asked.whole, f"*/{asked.sub}" if asked.sub else "*"} & set(resources):
        return False
    names = rule.get("resourceNames") or ()
    return not names or asked.name in names


def _path_covers(pattern: str, path: str) -> bool:
    return path.startswith(pattern[:-1]) if pattern.endswith("*") else pattern == path


def asked_by(call: Call) -> Asked:
    name = call.name
    if call.verb in ("list", "watch", "deletecollection") and not name:
        # a list that a field selector narrows to one name counts as asking for that name
        for part in call.query.get("fieldSelector", "").split(","):
            path, equal, value = part.partition("=")
            if equal and path == "metadata.name":
                name = value.lstrip("=")
    return Asked(call.verb, call.group, call.plural, call.sub, call.namespace, name)


def denied(user: User, asked: Asked) -> Problem:
    if asked.path:
        return problem(403, f'forbidden: User "{user.name}" cannot {asked.verb} path "{asked.path}"', "Forbidden", {})
    where = f'in the namespace "{asked.namespace}"' if asked.namespace else "at the cluster scope"
    full = f"{asked.resource}.{asked.group}" if asked.group else asked.resource
    what = f'{full} "{asked.name}"' if asked.name else full
    message = (
        f'{what} is forbidden: User "{user.name}" cannot {asked.verb} resource "{asked.whole}" in API group '
        f'"{asked.group}" {where}'
    )
    return problem(403, message, "Forbidden", named(asked.name, asked.group, asked.resource))
