"""What the server says of itself: versions, groups, resources, health."""

from __future__ import annotations

from fake_cluster.calls import Call, Reply
from fake_cluster.kinds import Kind, Kinds, Sub
from fake_cluster.openapi import ROOT, openapi
from fake_cluster.problems import page_not_found, unknown_resource

VERSION = {
    "major": "1",
    "minor": "32",
    "gitVersion": "v1.32.1",
    "gitCommit": "cc13ce0f2f8bed35ac14af6be2895e7fcf4e6623",
    "gitTreeState": "clean",
    "buildDate": "2025-07-01T00:00:00Z",
    "goVersion": "go1.23.9",
    "compiler": "gc",
    "platform": "linux/amd64",
}
HEALTH = ("/healthz", "/livez", "/readyz")


def plain(call: Call) -> Reply:
    """A path that is no resource. Raises Problem."""
    path, kinds = call.request.path.rstrip("/"), call.registry.kinds
    if path in HEALTH:
        return Reply(200, "ok")
    if path == "/version":
        return Reply(200, dict(VERSION))
    if path.startswith(ROOT):
        return openapi(path, kinds)
    parts = path.strip("/").split("/")
    if path == "/api":
        served = [{"clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1:6443"}]
        return Reply(200, {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": served})
    if path == "/apis":
        groups = [group(kinds, name) for name in kinds.groups() if name]
        return Reply(200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
    if parts[0] == "api" and len(parts) == 2:
        return Reply(200, resources(kinds, "", parts[1]))
    if parts[0] == "apis" and len(parts) in (2, 3) and parts[1] in kinds.groups():
        if len(parts) == 2:
            return Reply(200, {"kind": "APIGroup", "apiVersion": "v1", **group(kinds, parts[1])})
        return Reply(200, resources(kinds, parts[1], parts[2]))
    raise page_not_found()


def group(kinds: Kinds, name: str) -> dict[str, object]:
    versions = [{"groupVersion": f"{name}/{version}", "version": version} for version in kinds.versions(name)]
    return {"name": name, "versions": versions, "preferredVersion": versions[0]}


def resources(kinds: Kinds, name: str, version: str) -> dict[str, object]:
    served = list(kinds.of(name, version))
    if not served:
        raise unknown_resource()
    listed: list[dict[str, object]] = []
    for kind in sorted(served, key=lambda each: each.plural):
        listed.append(_main(kind))
        listed += [_sub(kind, sub) for sub in sorted(kind.subs, key=lambda each: each.name)]
    head: dict[str, object] = {"kind": "APIResourceList"}
    if name:
        head["apiVersion"] = "v1"
    return {**head, "groupVersion": f"{name}/{version}" if name else version, "resources": listed}


def _main(kind: Kind) -> dict[str, object]:
    told: dict[str, object] = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": list(kind.verbs),
    }
    optional = {"shortNames": list(kind.short), "categories": list(kind.categories), "storageVersionHash": kind.hash}
    return {**told, **{key: value for key, value in optional.items() if value}}


def _sub(kind: Kind, sub: Sub) -> dict[str, object]:
    told: dict[str, object] = {"name": f"{kind.plural}/{sub.name}", "singularName": "", "namespaced": kind.namespaced}
    if sub.group:
        told |= {"group": sub.group, "version": sub.version}
    return {**told, "kind": sub.kind or kind.kind, "verbs": list(sub.verbs)}
