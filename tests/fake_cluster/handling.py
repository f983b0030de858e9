"""The verbs on resources, as HTTP asks for them."""

from __future__ import annotations

import json
from typing import Any

from fake_cluster.applying import apply
from fake_cluster.calls import Call, Reply
from fake_cluster.decoding import body_object, dry_run, patched_object
from fake_cluster.kinds import Kind
from fake_cluster.listing import delete_many, list_or_watch
from fake_cluster.patching import json_patch, merge, strategic
from fake_cluster.problems import (
    Problem,
    bad_request,
    conflict,
    invalid,
    modified,
    not_allowed,
    not_found,
    problem,
    unknown_resource,
)
from fake_cluster.registry import Deletion
from fake_cluster.store import Object, Stored, clone

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"
POLICIES = ("Foreground", "Background", "Orphan")


def dispatch(call: Call) -> Reply:
    """A request for a resource, allowed already. Raises Problem."""
    kind = call.kind
    if kind is None:
        raise unknown_resource()
    if not kind.namespaced and call.namespace and kind.plural != "namespaces":
        raise unknown_resource()
    if call.sub:
        handler = call.registry.handlers.get((kind.resource, call.sub, call.method))
        if handler is not None:
            return handler(call)
        if call.sub != "status" or not kind.sub("status"):
            raise not_allowed() if kind.sub(call.sub) else unknown_resource()
    review = call.registry.handlers.get((kind.resource, "", call.method))
    if review is not None:
        return review(call)
    many = {"GET": list_or_watch, "HEAD": list_or_watch, "POST": create, "DELETE": delete_many}
    one = {"GET": get, "HEAD": get, "PUT": put, "PATCH": patch, "DELETE": delete}
    verb = (one if call.name else many).get(call.method)
    if verb is None or (kind.namespaced and not call.namespace and verb is create):
        raise not_allowed()
    if call.verb not in kind.verbs and call.verb != "watch":
        raise not_allowed()
    return verb(call)


def key(call: Call, kind: Kind) -> tuple[str, str]:
    return (call.namespace if kind.namespaced else ""), call.name


def held(call: Call) -> Stored:
    kind = call.served()
    found = call.registry.store.get(kind, *key(call, kind))
    if found is None:
        raise not_found(kind, call.name)
    return found


def get(call: Call) -> Reply:
    return Reply(200, held(call).whole)


def create(call: Call) -> Reply:
    kind = call.served()
    dry = dry_run(call)
    obj = body_object(call, kind)
    return Reply(201, call.registry.create(kind, call.namespace, obj, user=call.user, dry_run=dry))


def put(call: Call) -> Reply:
    kind = call.served()
    dry = dry_run(call)
    obj = body_object(call, kind)
    meta = obj.setdefault("metadata", {})
    if not meta.get("name"):
        raise bad_request(
            f"the name of the object ({call.name} based on URL) was undeterminable: name must be provided"
        )
    if meta["name"] != call.name:
        raise bad_request(f"the name of the object ({meta['name']}) does not match the name on the URL ({call.name})")
    registry = call.registry
    with registry.store.lock:
        before = registry.store.get(kind, *key(call, kind))
        if before is None:
            if not kind.put_creates:
                raise not_found(kind, call.name)
            meta.pop("resourceVersion", None)
            if meta.get("uid"):
                raise other_uid(kind, call, meta["uid"], "")
            return Reply(201, registry.create(kind, call.namespace, obj, user=call.user, dry_run=dry))
        check_identity(kind, call, before, meta)
        if not meta.get("resourceVersion") and kind.put_needs_version:
            cause = (
                "metadata.resourceVersion",
                "FieldValueInvalid",
                "Invalid value: 0x0: must be specified for an update",
            )
            raise invalid(kind.plural, kind.group, call.name, [cause])
        return Reply(200, registry.commit(kind, before, obj, user=call.user, sub=call.sub, dry_run=dry))


def check_identity(kind: Kind, call: Call, before: Stored, meta: Object) -> None:
    """The uid and the version that a PUT names must be the object's."""
    uid, version = before.obj["metadata"]["uid"], before.obj["metadata"]["resourceVersion"]
    if meta.get("uid", uid) != uid:
        raise other_uid(kind, call, meta["uid"], uid)
    if meta.get("resourceVersion", version) != version:
        raise modified(kind, call.name)
    if kind.namespaced and meta.setdefault("namespace", call.namespace) != call.namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")


def other_uid(kind: Kind, call: Call, wanted: str, held_uid: str) -> Problem:
    path = f"/registry/{kind.plural}/" + (f"{call.namespace}/" if kind.namespaced else "") + call.name
    return conflict(
        kind,
        call.name,
        f"StorageError: invalid object, Code: 4, Key: {path}, ResourceVersion: 0, AdditionalErrorMsg: Precondition "
        f"failed: UID in precondition: {wanted}, UID in object meta: {held_uid}",
    )


def patch(call: Call) -> Reply:
    kind = call.served()
    dry = dry_run(call)
    accepted = (JSON_PATCH, MERGE, APPLY) if kind.custom else (JSON_PATCH, MERGE, STRATEGIC, APPLY)
    if call.content_type not in accepted:
        raise unsupported(call, accepted)
    if call.content_type == APPLY:
        return apply(call)
    if call.query.get("force"):
        cause = ("force", "FieldValueForbidden", "Forbidden: may not be specified for non-apply patch")
        raise invalid("PatchOptions", "meta.k8s.io", "", [cause])
    asked = patch_body(call)
    registry = call.registry
    with registry.store.lock:
        before = held(call)
        obj = patched_object(call, kind, patched(call.content_type, before.obj, asked, kind))
        meta = obj.get("metadata") or {}
        if meta.get("name") != call.name:
            raise bad_request(
                f"the name of the object ({meta.get('name')}) does not match the name on the URL ({call.name})"
            )
        uid = before.obj["metadata"]["uid"]
        if meta.get("uid", uid) != uid:
            told = ("metadata.uid", "FieldValueInvalid", f'Invalid value: "{meta["uid"]}": field is immutable')
            raise invalid(kind.kind, kind.group, call.name, [told, told])
        if meta.get("resourceVersion") not in (None, "", before.obj["metadata"]["resourceVersion"]):
            raise modified(kind, call.name)
        return Reply(200, registry.commit(kind, before, obj, user=call.user, sub=call.sub, dry_run=dry))


def patched(content_type: str, obj: Object, asked: Any, kind: Kind) -> Object:
    if content_type == JSON_PATCH:
        made = json_patch(obj, asked)
    elif content_type == STRATEGIC:
        made = strategic(obj, asked, kind.kind)
    else:
        made = merge(obj, asked)
    return clone(made) if isinstance(made, dict) else {}


def patch_body(call: Call) -> Any:
    try:
        asked = json.loads(call.body)
    except ValueError:
        raise bad_request("error decoding patch: unexpected end of JSON input") from None
    if call.content_type == JSON_PATCH and not isinstance(asked, list):
        raise bad_request(
            "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"
        )
    return asked


def unsupported(call: Call, accepted: tuple[str, ...]) -> Problem:
    if call.content_type in (STRATEGIC, APPLY, MERGE, JSON_PATCH):
        known = ", ".join(accepted)
        message = f"the body of the request was in an unknown format - accepted media types include: {known}"
        return problem(415, message, "UnsupportedMediaType")
    return problem(415, "415: Unsupported Media Type", "UnsupportedMediaType", {})


def deletion(call: Call) -> Deletion:
    """What a DELETE asks: in its body, or in its query when it has none."""
    body: Object = call.json() if call.body else {}
    if not call.body:
        body = {
            "dryRun": call.values.get("dryRun"),
            "propagationPolicy": call.query.get("propagationPolicy"),
            "gracePeriodSeconds": int(call.query["gracePeriodSeconds"]) if "gracePeriodSeconds" in call.query else None,
        }
    policy = body.get("propagationPolicy") or ""
    if policy and policy not in POLICIES:
        told = f'Unsupported value: "{policy}": supported values: "Foreground", "Background", "Orphan", "nil"'
        raise invalid("DeleteOptions", "meta.k8s.io", "", [("propagationPolicy", "FieldValueNotSupported", told)])
    wanted = body.get("preconditions") or {}
    return Deletion(
        body.get("gracePeriodSeconds"),
        wanted.get("uid") or "",
        wanted.get("resourceVersion") or "",
        policy,
        dry_run(call, body),
    )


def delete(call: Call) -> Reply:
    kind = call.served()
    obj, over = call.registry.delete(kind, *key(call, kind), deletion(call), user=call.user)
    if kind.tells or not over:
        return Reply(200, obj)
    details = {"name": call.name, "group": kind.group, "kind": kind.plural, "uid": obj["metadata"]["uid"]}
    return Reply(
        200,
        {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": {key: value for key, value in details.items() if value},
        },
    )
