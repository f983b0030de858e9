"""As much of /openapi/v3 as kubectl looks at before it applies: which options a PATCH of each kind takes."""

from __future__ import annotations

from fake_cluster.calls import Reply
from fake_cluster.kinds import Kind, Kinds
from fake_cluster.problems import page_not_found

OPTIONS = ("dryRun", "fieldManager", "fieldValidation", "force")
ROOT = "/openapi/v3"


def openapi(path: str, kinds: Kinds) -> Reply:
    """Raises Problem 404."""
    places = {_place(kind): (kind.group, kind.version) for kind in kinds.known.values()}
    if path == ROOT:
        paths = {place: {"serverRelativeURL": f"{ROOT}/{place}"} for place in places}
        return Reply(200, {"paths": paths})
    place = path.removeprefix(f"{ROOT}/")
    if place not in places:
        raise page_not_found()
    served = kinds.of(*places[place])
    return Reply(
        200,
        {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": "v1.32.1"},
            "paths": {_path(kind): {"patch": _patch(kind)} for kind in served},
        },
    )


def _place(kind: Kind) -> str:
    return f"apis/{kind.group}/{kind.version}" if kind.group else f"api/{kind.version}"


def _path(kind: Kind) -> str:
    scope = "namespaces/{namespace}/" if kind.namespaced else ""
    return f"/{_place(kind)}/{scope}{kind.plural}/{{name}}"


def _patch(kind: Kind) -> dict[str, object]:
    return {
        "operationId": f"patch{kind.kind}",
        "parameters": [{"name": name, "in": "query", "schema": {"type": "string"}} for name in OPTIONS],
        "responses": {"200": {"description": "OK"}},
        "x-kubernetes-action": "patch",
        "x-kubernetes-group-version-kind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
    }
