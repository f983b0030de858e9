"""Bodies of requests: JSON or YAML into objects, refused with the recorded words."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import yaml

from fake_cluster.calls import Call
from fake_cluster.kinds import Kind
from fake_cluster.problems import Problem, bad_request, invalid, problem
from fake_cluster.store import Object
from fake_cluster.typed import Decoding, WrongType

OPTIONS = {"POST": "CreateOptions", "PUT": "UpdateOptions", "PATCH": "PatchOptions", "DELETE": "DeleteOptions"}
VALIDATIONS = ("", "Ignore", "Strict", "Warn")
JSONISH = ("application/json", "", "*/*")
BODIES = "application/json, application/yaml, application/vnd.kubernetes.protobuf"
HEAD = 'struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'
META_ORDER = (
    "name", "generateName", "namespace", "selfLink", "uid", "resourceVersion", "generation", "creationTimestamp",
    "deletionTimestamp", "deletionGracePeriodSeconds", "labels", "annotations", "ownerReferences", "finalizers",
)  # fmt: skip


def refused_option(call: Call, name: str, value: str, supported: str) -> Problem:
    told = f"Unsupported value: {value}: supported values: {supported}"
    return invalid(OPTIONS[call.method], "meta.k8s.io", "", [(name, "FieldValueNotSupported", told)])


def dry_run(call: Call, body: Object | None = None) -> bool:
    asked = body.get("dryRun") if body is not None else call.values.get("dryRun")
    if not asked:
        return False
    if list(asked) != ["All"]:
        listed = "[]string{" + ", ".join(f'"{one}"' for one in asked) + "}"
        raise refused_option(call, "dryRun", listed, '"All"')
    return True


def field_validation(call: Call) -> str:
    asked = call.query.get("fieldValidation", "")
    if asked not in VALIDATIONS:
        raise refused_option(call, "fieldValidation", f'"{asked}"', ", ".join(f'"{one}"' for one in VALIDATIONS))
    return asked or "Warn"


def body_object(call: Call, kind: Kind) -> Object:
    """A whole object as POST and PUT send it. Raises Problem."""
    strictness = field_validation(call)
    raw, duplicates = _loaded(call, kind)
    told_kind, told_version = raw.get("kind") or kind.kind, raw.get("apiVersion") or kind.api_version
    cannot = f'{told_kind} in version "{_version(told_version)}" cannot be handled as a {kind.kind}: '
    if told_version != kind.api_version:
        raise bad_request(
            f'{cannot}no kind "{told_kind}" is registered for version "{told_version}" in scheme '
            '"pkg/runtime/scheme.go:100"'
        )
    if told_kind != kind.kind:
        inner = kind.group.partition(".")[0] or "core"
        raise bad_request(
            f"{cannot}converting ({_version(told_version)}.{told_kind}) to ({inner}.{kind.kind}): unknown conversion"
        )
    decoding = Decoding()
    try:
        obj = decoding.read(kind, raw)
    except WrongType as wrong:
        raise bad_request(f"{cannot}{wrong}") from None
    complaints = [*(f'duplicate field "{one}"' for one in duplicates), *_unknown(decoding)]
    if strictness == "Strict" and complaints:
        raise bad_request(f"{cannot}strict decoding error: {', '.join(complaints)}")
    if strictness == "Warn":
        call.warnings += complaints
    return obj


def _version(api_version: str) -> str:
    return api_version.rpartition("/")[2]


def _unknown(decoding: Decoding) -> list[str]:
    return [f'unknown field "{path}"' for path in decoding.unknown]


def _loaded(call: Call, kind: Kind) -> tuple[Object, list[str]]:
    """The body, and the names that stand twice in one object of it."""
    if call.content_type == "application/yaml":
        return yaml.safe_load(call.body) or {}, []
    if call.content_type not in JSONISH:
        message = f"the body of the request was in an unknown format - accepted media types include: {BODIES}"
        raise problem(415, message, "UnsupportedMediaType")
    duplicates: list[str] = []

    def pairs(found: list[tuple[str, Any]]) -> Object:
        made: Object = {}
        for name, value in found:
            if name in made:
                duplicates.append(name)
            made[name] = value
        return made

    try:
        read = json.loads(call.body, object_pairs_hook=pairs)
    except ValueError:
        raise _unrecognized(kind, "unexpected end of JSON input", _glimpse(call.body)) from None
    if not isinstance(read, dict):
        kind_of = "array" if isinstance(read, list) else "string" if isinstance(read, str) else "number"
        raise _unrecognized(
            kind, f"json: cannot unmarshal {kind_of} into Go value of type {HEAD}", f"({call.body[:32].hex()})"
        )
    return read, duplicates


def _glimpse(body: bytes) -> str:
    if not body:
        return "(<empty>)"
    text = body.decode("utf-8", "replace")
    return f"({text[:30]} ...)" if len(text) > 30 else f"({text})"


def _unrecognized(kind: Kind, why: str, seen: str) -> Problem:
    return bad_request(
        f"the object provided is unrecognized (must be of type {kind.kind}): couldn't get version/kind; json parse "
        f"error: {why} {seen}"
    )


def patched_object(call: Call, kind: Kind, obj: Object) -> Object:
    """What a patch made, read again. Raises Problem 422: a patch is told so, whatever is wrong."""
    decoding = Decoding()
    try:
        made = decoding.read(kind, obj)
    except WrongType as wrong:
        raise _bad_patch(obj, str(wrong)) from None
    if decoding.unknown:
        strictness = field_validation(call)
        complaints = _unknown(decoding)
        if strictness == "Strict":
            raise _bad_patch(obj, f"strict decoding error: {', '.join(complaints)}")
        if strictness == "Warn":
            call.warnings += complaints
    return made


def _bad_patch(obj: Object, why: str) -> Problem:
    shown = json.dumps(ordered(obj), separators=(",", ":"), ensure_ascii=False)
    quoted = json.dumps(shown, ensure_ascii=False)
    return invalid("", "", "", [("patch", "FieldValueInvalid", f"Invalid value: {quoted}: {why}")])


def ordered(obj: Object) -> Object:
    """As a server writes an object it read without its type: sorted, but metadata in its own order."""
    made = {key: _sorted(obj[key]) for key in sorted(obj)}
    meta = obj.get("metadata") or {}
    names: Iterable[str] = [*(name for name in META_ORDER if name in meta), *sorted(set(meta) - set(META_ORDER))]
    made["metadata"] = {name: _sorted(meta[name]) for name in names}
    return made


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value
