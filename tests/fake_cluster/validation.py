"""What is refused with 422, and the causes that are told: as far as exchanges show it."""

from __future__ import annotations

import json
import re
from typing import Any

from fake_cluster.problems import Cause
from fake_cluster.registry import Registry, valid_name
from fake_cluster.selectors import spec_selector
from fake_cluster.store import Object

SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
CONFIG_KEY = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or "
    "'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)
LABEL_VALUE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
DNS_1035 = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    "'[a-z]([-a-z0-9]*[a-z0-9])?')"
)
LONGEST_LABEL = 63
LONGEST_CRON = 52
TOO_LONG = "must be no more than 63 characters"
LARGEST_DATA = 1_048_576
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
IMMUTABLE = "field is immutable"


def install(registry: Registry) -> None:
    registry.validation("*")(metadata)
    registry.validation("*")(name_of)
    registry.default("leases.coordination.k8s.io")(lambda obj: obj.setdefault("spec", {}))
    for resource, validate in (
        ("configmaps", config_map),
        ("leases.coordination.k8s.io", lease),
        ("nodes", node),
        ("deployments.apps", deployment),
        ("replicasets.apps", workload),
        ("statefulsets.apps", workload),
        ("pods", pod),
        ("rolebindings.rbac.authorization.k8s.io", binding),
        ("clusterrolebindings.rbac.authorization.k8s.io", binding),
    ):
        registry.validation(resource)(validate)


def wrong(field: str, value: object, why: str) -> Cause:
    return (field, "FieldValueInvalid", f"Invalid value: {json.dumps(value, ensure_ascii=False)}: {why}")


def lacking(field: str, why: str = "") -> Cause:
    return (field, "FieldValueRequired", f"Required value: {why}" if why else "Required value")


def forbidden(field: str, why: str) -> Cause:
    return (field, "FieldValueForbidden", f"Forbidden: {why}")


def unsupported(field: str, value: str, supported: tuple[str, ...]) -> Cause:
    listed = ", ".join(f'"{one}"' for one in supported)
    return (field, "FieldValueNotSupported", f"Unsupported value: {json.dumps(value)}: supported values: {listed}")


def metadata(obj: Object, before: Object | None) -> list[Cause]:
    meta = obj["metadata"]
    if before is None:
        name = meta.get("name", "")
        if not name:
            return [lacking("metadata.name", "name or generateName is required")]
        rbac = obj.get("apiVersion", "").startswith("rbac.")
        if not rbac and (not valid_name(name) or len(name) > 253):
            return [wrong("metadata.name", name, SUBDOMAIN)]
        return _labels(meta)
    causes = _labels(meta)
    if before["metadata"].get("deletionTimestamp"):
        held = before["metadata"].get("finalizers") or []
        more = [one for one in meta.get("finalizers") or [] if one not in held]
        if more:
            listed = "[]string{" + ", ".join(f'"{one}"' for one in more) + "}"
            told = f"no new finalizers can be added if the object is being deleted, found new finalizers {listed}"
            causes.append(forbidden("metadata.finalizers", told))
    # the rules for updates are gone through twice: once for every kind, once for this one
    return [*causes, *causes]


def name_of(obj: Object, before: Object | None) -> list[Cause]:
    """Names that become labels or host names are shorter than others."""
    name, kind = obj["metadata"].get("name", ""), obj.get("kind")
    if before is not None or not name:
        return []
    if kind == "Job" and len(name) > LONGEST_LABEL:
        return [wrong("spec.template.labels", name, TOO_LONG)]
    if kind == "CronJob" and len(name) > LONGEST_CRON:
        return [wrong("metadata.name", name, f"must be no more than {LONGEST_CRON} characters")]
    if kind == "Service" and not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        return [wrong("metadata.name", name, DNS_1035)]
    if kind in ("Service", "Namespace") and len(name) > LONGEST_LABEL:
        return [wrong("metadata.name", name, TOO_LONG)]
    return []


def _labels(meta: Object) -> list[Cause]:
    causes = []
    for value in (meta.get("labels") or {}).values():
        if len(value) > LONGEST_LABEL:
            causes.append(wrong("metadata.labels", value, TOO_LONG))
        elif re.fullmatch(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?", value) is None:
            causes.append(wrong("metadata.labels", value, LABEL_VALUE))
    return causes


def config_map(obj: Object, before: Object | None) -> list[Cause]:
    data = {**(obj.get("data") or {}), **(obj.get("binaryData") or {})}
    causes = [wrong(f"data[{key}]", key, CONFIG_KEY) for key in data if not re.fullmatch(r"[-._a-zA-Z0-9]+", key)]
    if sum(len(str(value).encode()) for value in data.values()) > LARGEST_DATA:
        causes.append(("[]", "FieldValueTooLong", f"Too long: may not be more than {LARGEST_DATA} bytes"))
    if before is not None and before.get("immutable"):
        frozen = "field is immutable when `immutable` is set"
        causes += [] if obj.get("immutable") else [forbidden("immutable", frozen)]
        for part in ("data", "binaryData"):
            causes += [forbidden(part, frozen)] if (obj.get(part) or {}) != (before.get(part) or {}) else []
    return causes


def lease(obj: Object, before: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes = []
    if spec.get("leaseDurationSeconds", 1) <= 0:
        causes.append(wrong("spec.leaseDurationSeconds", spec["leaseDurationSeconds"], "must be greater than 0"))
    if spec.get("leaseTransitions", 0) < 0:
        told = "must be greater than or equal to 0"
        causes.append(wrong("spec.leaseTransitions", spec["leaseTransitions"], told))
    return causes


def node(obj: Object, before: Object | None) -> list[Cause]:
    causes: list[Cause] = []
    seen: set[tuple[str, str]] = set()
    for place, taint in enumerate((obj.get("spec") or {}).get("taints") or []):
        key, effect = taint.get("key", ""), taint.get("effect", "")
        where = f"metadata.taints[{place}]"
        if effect not in EFFECTS:
            causes.append(unsupported(f"{where}.effect", effect, EFFECTS))
        elif (key, effect) in seen:
            shown = f'core.Taint{{Key:"{key}", Value:"{taint.get("value", "")}", Effect:"{effect}", TimeAdded:<nil>}}'
            told = f"Duplicate value: {shown}: taints must be unique by key and effect pair"
            causes.append((where, "FieldValueDuplicate", told))
        seen.add((key, effect))
    return causes if before is None else [*causes, *causes]


def workload(obj: Object, before: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    if spec.get("replicas", 0) < 0:
        causes.append(wrong("spec.replicas", spec["replicas"], "must be greater than or equal to 0"))
    if not spec.get("selector"):
        causes.append(lacking("spec.selector"))
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    if not spec_selector(spec.get("selector"))(labels):
        told = f"Invalid value: {go_map(labels)}: `selector` does not match template `labels`"
        causes.append(("spec.template.metadata.labels", "FieldValueInvalid", told))
    if before is not None and before["spec"].get("selector") != spec.get("selector"):
        told = f"Invalid value: {go_selector(spec.get('selector') or {})}: {IMMUTABLE}"
        causes.append(("spec.selector", "FieldValueInvalid", told))
    return causes


def deployment(obj: Object, before: Object | None) -> list[Cause]:
    causes = workload(obj, before)
    template = (obj.get("spec") or {}).get("template") or {}
    return causes + containers(template.get("spec") or {}, "spec.template.spec")


def containers(spec: Object, where: str) -> list[Cause]:
    if not spec.get("containers"):
        return [lacking(f"{where}.containers")]
    return [
        lacking(f"{where}.containers[{place}].{field}")
        for place, one in enumerate(spec["containers"])
        for field in ("name", "image")
        if not one.get(field)
    ]


def go_map(labels: dict[str, Any]) -> str:
    if not labels:
        return "null"
    return "map[string]string{" + ", ".join(f'"{key}":"{labels[key]}"' for key in sorted(labels)) + "}"


def go_selector(selector: Object) -> str:
    inner = go_map(selector.get("matchLabels") or {}).replace("null", "map[string]string(nil)")
    return f"v1.LabelSelector{{MatchLabels:{inner}, MatchExpressions:[]v1.LabelSelectorRequirement(nil)}}"


POD_MAY = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def pod(obj: Object, before: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes = containers(spec, "spec")
    if before is None or causes:
        return causes
    old = before["spec"]
    kept, more = old.get("tolerations") or [], spec.get("tolerations") or []
    if kept != more:
        causes += _tolerations(kept, more)
    if _fixed(old) != _fixed(spec):
        causes.append(forbidden("spec", POD_MAY))
    return causes


def _tolerations(kept: list[Object], more: list[Object]) -> list[Cause]:
    def bare(one: Object) -> Object:
        return {key: value for key, value in one.items() if key != "tolerationSeconds"}

    if all(bare(one) in [bare(other) for other in more] for one in kept):
        return []
    return [forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds")]


def _fixed(spec: Object) -> Object:
    """What a client may not change (a binding sets the node)."""
    free = ("tolerations", "activeDeadlineSeconds", "containers", "initContainers")
    fixed = {key: value for key, value in spec.items() if key not in free}
    for part in ("containers", "initContainers"):
        fixed[part] = [{k: v for k, v in one.items() if k != "image"} for one in spec.get(part) or []]
    return fixed


def binding(obj: Object, before: Object | None) -> list[Cause]:
    if before is not None and before.get("roleRef") != obj.get("roleRef"):
        ref = obj.get("roleRef") or {}
        names = (("APIGroup", "apiGroup"), ("Kind", "kind"), ("Name", "name"))
        shown = ", ".join(f'{name}:"{ref.get(key, "")}"' for name, key in names)
        told = f"Invalid value: rbac.RoleRef{{{shown}}}: cannot change roleRef"
        return [("roleRef", "FieldValueInvalid", told)]
    return []
