"""What a path means: group, version, resource, namespace, name, subresource; and the verb that RBAC asks about."""

from __future__ import annotations

from urllib.parse import unquote

from fake_cluster.calls import Call

ONE = {"GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "POST": "create"}
MANY = {
    "GET": "list",
    "HEAD": "list",
    "POST": "create",
    "DELETE": "deletecollection",
    "PUT": "update",
    "PATCH": "patch",
}


def is_resource(path: str) -> bool:
    """Below a group and version there is something: the rest is no resource for RBAC."""
    parts = path.strip("/").split("/")
    return (parts[0] == "api" and len(parts) > 2) or (parts[0] == "apis" and len(parts) > 3)


def resolve(call: Call) -> None:
    """Fills in what the path says."""
    parts = [unquote(part) for part in call.request.path.strip("/").split("/")]
    if parts[0] == "api":
        call.group, call.version, rest = "", parts[1], parts[2:]
    else:
        call.group, call.version, rest = parts[1], parts[2], parts[3:]
    watching = rest[0] == "watch" and len(rest) > 1
    if watching:
        rest = rest[1:]
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
        call.namespace, rest = rest[1], rest[2:]
    elif rest[0] == "namespaces" and len(rest) > 1:
        call.namespace = rest[1]
    call.plural = rest[0]
    call.name = rest[1] if len(rest) > 1 else ""
    call.sub = rest[2] if len(rest) > 2 else ""
    call.rest = "/".join(rest[3:])
    call.kind = call.registry.kinds.at(call.group, call.version, call.plural)
    call.verb = _verb(call, watching)


def _verb(call: Call, watching: bool) -> str:
    verb = (ONE if call.name else MANY).get(call.method, call.method.lower())
    wanted = watching or call.query.get("watch", "").lower() in ("1", "true")
    return "watch" if wanted and verb in ("list", "get") and not call.sub else verb
