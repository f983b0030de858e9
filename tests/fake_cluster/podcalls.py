"""What is asked of Pods and of scales beside the objects themselves: logs, bindings, ephemeral containers, scale."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from fake_cluster import defaults
from fake_cluster.calls import Call, Reply
from fake_cluster.handling import dry_run, held, patch_body, patched
from fake_cluster.kubelet import Kubelet
from fake_cluster.matching import Obj, deleted_at, put_condition
from fake_cluster.problems import Problem, bad_request, conflict, invalid, modified, problem
from fake_cluster.registry import Registry
from fake_cluster.store import clone, now
from fake_cluster.streams import container_of, pod_of

SCALED = ("deployments.apps", "replicasets.apps", "statefulsets.apps")


def install(registry: Registry, kubelet: Kubelet) -> None:
    registry.handler("pods", "log", "GET")(lambda call: log(call, kubelet))
    registry.handler("pods", "binding", "POST")(bind)
    registry.handler("pods", "ephemeralcontainers", "PATCH")(add_ephemeral)
    registry.handler("pods", "ephemeralcontainers", "GET")(lambda call: Reply(200, held(call).whole))
    for resource in SCALED:
        registry.handler(resource, "scale", "GET")(lambda call: Reply(200, scale_of(held(call).obj)))
        registry.handler(resource, "scale", "PUT")(put_scale)
        registry.handler(resource, "scale", "PATCH")(patch_scale)


def log(call: Call, kubelet: Kubelet) -> Reply:
    pod = pod_of(call)
    container = container_of(call, pod)["name"]
    if not pod["spec"].get("nodeName"):
        return Reply(204, b"")
    run = kubelet.runs.get(pod["metadata"]["uid"])
    at = run.containers[container].restarts if run and container in run.containers else 0
    if call.query.get("previous") == "true":
        if at == 0:
            told = f'previous terminated container "{container}" in pod "{call.name}" not found'
            raise bad_request(told)
        at -= 1
    path = kubelet.log_of(pod, container, at)
    if call.query.get("follow") == "true" and run is not None:
        return Reply(200, b"", {"Content-Type": "text/plain"}, stream=_followed(call, kubelet, path, container))
    text = path.read_bytes() if path.exists() else b""
    lines = text.splitlines(keepends=True)
    if (tail := call.query.get("tailLines")) is not None:
        lines = lines[len(lines) - int(tail) :] if int(tail) else []
    if call.query.get("timestamps") == "true":
        stamp = datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ ").encode()
        lines = [stamp + line for line in lines]
    text = b"".join(lines)
    if (limit := call.query.get("limitBytes")) is not None:
        text = text[: int(limit)]
    return Reply(200, text, {"Content-Type": "text/plain"})


def _followed(call: Call, kubelet: Kubelet, path: Path, container: str) -> Iterator[bytes]:
    """Until the container ends or the Pod goes."""
    uid, read = pod_of(call)["metadata"]["uid"], 0
    while not call.registry.closed:
        run = kubelet.runs.get(uid)
        over = run is None or not run.containers[container].running
        if path.exists():
            with path.open("rb") as source:
                source.seek(read)
                part = source.read()
            read += len(part)
            if part:
                yield part
        if over:
            return
        time.sleep(0.02)


def bind(call: Call) -> Reply:
    node = (json.loads(call.body).get("target") or {}).get("name", "")
    kind = call.served()
    with call.registry.store.lock:
        pod = pod_of(call)
        why = ""
        if deleted_at(pod):
            why = f"pod {call.name} is being deleted, cannot be assigned to a host"
        elif pod["spec"].get("nodeName"):
            why = f'pod {call.name} is already assigned to node "{pod["spec"]["nodeName"]}"'
        if why:
            refused = conflict(kind, call.name, why)
            details = {"name": call.name, "kind": "pods/binding"}
            told = f'Operation cannot be fulfilled on pods/binding "{call.name}": {why}'
            raise Problem(409, {**refused.body, "message": told, "details": details})  # type: ignore[dict-item]

        def put(thing: Obj) -> None:
            thing["spec"]["nodeName"] = node
            put_condition(thing["status"], {
                "type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now(),
            })  # fmt: skip

        if not dry_run(call):
            call.registry.change("pods", call.namespace, call.name, put)
    return Reply(201, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})


def add_ephemeral(call: Call) -> Reply:
    """Only new ones may come."""
    asked = patch_body(call)
    with call.registry.store.lock:
        before = held(call)
        obj = patched(call.content_type, before.obj, asked, call.served())
        had = before.obj["spec"].get("ephemeralContainers") or []
        has = obj["spec"].get("ephemeralContainers") or []
        for one in had:
            if one not in has:
                told = f'Forbidden: existing ephemeral containers "{one["name"]}" may not be removed\n'
                cause = ("spec.ephemeralContainers", "FieldValueForbidden", told)
                raise invalid("Pod", "", call.name, [cause])
        new = clone(before.obj)
        new["spec"]["ephemeralContainers"] = clone(has)
        for one in new["spec"]["ephemeralContainers"]:
            defaults.container(one)
        return Reply(200, call.registry.save(call.served(), before, new, dry_run=dry_run(call)))


def selector_text(selector: Obj) -> str:
    words = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for one in selector.get("matchExpressions") or []:
        values = ",".join(sorted(one.get("values") or []))
        words.append({
            "In": f"{one['key']} in ({values})", "NotIn": f"{one['key']} notin ({values})",
            "Exists": one["key"], "DoesNotExist": f"!{one['key']}",
        }[one["operator"]])  # fmt: skip
    return ",".join(words)


def scale_of(thing: Obj) -> Obj:
    """At 0 the replicas are left out of its spec."""
    meta = thing["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    size = thing["spec"].get("replicas", 1)
    return {
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {key: meta[key] for key in kept},
        "spec": {"replicas": size} if size else {},
        "status": {
            "replicas": (thing.get("status") or {}).get("replicas", 0),
            "selector": selector_text(thing["spec"].get("selector") or {}),
        },
    }  # fmt: skip


def put_scale(call: Call) -> Reply:
    asked = call.json()
    with call.registry.store.lock:
        return _rescale(call, asked)


def patch_scale(call: Call) -> Reply:
    if call.content_type not in (
        "application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json",
    ):  # fmt: skip
        raise problem(415, "415: Unsupported Media Type", "UnsupportedMediaType", {})
    asked = patch_body(call)
    with call.registry.store.lock:
        return _rescale(call, patched(call.content_type, scale_of(held(call).obj), asked, call.served()))


def _rescale(call: Call, scale: Obj) -> Reply:
    kind, before = call.served(), held(call)
    size, version = (scale.get("spec") or {}).get("replicas", 0), (scale.get("metadata") or {}).get("resourceVersion")
    if version and version != before.obj["metadata"]["resourceVersion"]:
        raise modified(kind, call.name)
    if not isinstance(size, int) or isinstance(size, bool):
        text = json.dumps(scale_ordered(scale), separators=(",", ":"))
        words = {str: "string", bool: "bool", float: f"number {size}", list: "array", dict: "object"}
        told = (
            f"Invalid value: {json.dumps(text)}: json: cannot unmarshal {words.get(type(size), 'null')} into Go struct "
            "field ScaleSpec.spec.replicas of type int32"
        )
        refused = invalid("", "", "", [("patch", "FieldValueInvalid", told)])
        raise refused
    if size < 0:
        told = f"Invalid value: {size}: must be greater than or equal to 0"
        raise invalid("Scale", "autoscaling", call.name, [("spec.replicas", "FieldValueInvalid", told)])
    new = clone(before.obj)
    new["spec"]["replicas"] = size
    done = call.registry.commit(kind, before, new, user=call.user, sub="scale", dry_run=dry_run(call))
    return Reply(200, scale_of(done))


def scale_ordered(scale: Obj) -> Obj:
    """Keys as the server writes them into its message."""
    return {key: scale[key] for key in ("apiVersion", "kind", "metadata", "spec", "status") if key in scale}
