"""What is refused in Pods and in what makes Pods: mistakes that manifests make, told in unrecorded words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from fake_cluster.problems import Cause
from fake_cluster.registry import Registry
from fake_cluster.store import Object
from fake_cluster.validation import containers, lacking, wrong

LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
QUANTITY = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+|[munkMGTPE]|[KMGTPE]i)?"
QUANTITY_RULE = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
LONGEST_LABEL, LONGEST_PORT = 63, 15
UNITS = {
    "n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50, "Ei": 2.0**60,
}  # fmt: skip
ENDING = ("OnFailure", "Never")


def install(registry: Registry) -> None:
    registry.validation("pods")(lambda obj, before: [] if before else list(pod_spec(obj.get("spec") or {}, "spec")))
    for resource in ("deployments.apps", "replicasets.apps", "statefulsets.apps", "daemonsets.apps"):
        registry.validation(resource)(lambda obj, before: list(template(obj, "Always")))
    registry.validation("jobs.batch")(job)
    registry.validation("cronjobs.batch")(cron_job)


def template(obj: Object, restart: str, where: str = "spec.template.spec") -> Iterator[Cause]:
    spec = ((obj.get("spec") or {}).get("template") or {}).get("spec") or {}
    if restart and spec.get("restartPolicy", restart) != restart:
        told = f'Unsupported value: {json.dumps(spec["restartPolicy"])}: supported values: "{restart}"'
        yield (f"{where}.restartPolicy", "FieldValueNotSupported", told)
    yield from pod_spec(spec, where)


def job(obj: Object, before: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes = list(ending(spec, "spec"))
    if before is not None:
        for part in ("completions", "selector", "template", "completionMode"):
            if _settled(before["spec"].get(part)) != _settled(spec.get(part)):
                causes.append((f"spec.{part}", "FieldValueInvalid", f"Invalid value: {part}: field is immutable"))
    return causes


def _settled(part: Any) -> Any:
    """A template without the labels that a controller adds."""
    if not isinstance(part, dict) or "spec" not in part:
        return part
    return part["spec"]


def ending(spec: Object, where: str) -> Iterator[Cause]:
    """The Pods of a Job end."""
    pods = (spec.get("template") or {}).get("spec") or {}
    if pods.get("restartPolicy") not in ENDING:
        yield lacking(f"{where}.template.spec.restartPolicy", 'valid values: "OnFailure", "Never"')
    yield from containers(pods, f"{where}.template.spec")
    yield from pod_spec(pods, f"{where}.template.spec")


def cron_job(obj: Object, before: Object | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    causes = []
    if len(str(spec.get("schedule", "")).split()) != 5 and not str(spec.get("schedule", "")).startswith("@"):
        causes.append(wrong("spec.schedule", spec.get("schedule", ""), "expected exactly 5 fields"))
    if spec.get("concurrencyPolicy", "Allow") not in ("Allow", "Forbid", "Replace"):
        told = f'Unsupported value: "{spec["concurrencyPolicy"]}": supported values: "Allow", "Forbid", "Replace"'
        causes.append(("spec.concurrencyPolicy", "FieldValueNotSupported", told))
    return causes + list(ending((spec.get("jobTemplate") or {}).get("spec") or {}, "spec.jobTemplate.spec"))


def pod_spec(spec: Object, where: str) -> Iterator[Cause]:
    """What `validation` says of missing containers, names and images is not said again."""
    volumes = [one.get("name", "") for one in spec.get("volumes") or []]
    for place, name in enumerate(volumes):
        if not re.fullmatch(LABEL, name) or len(name) > LONGEST_LABEL:
            yield wrong(f"{where}.volumes[{place}].name", name, LABEL_RULE)
        if name in volumes[:place]:
            yield (f"{where}.volumes[{place}].name", "FieldValueDuplicate", f'Duplicate value: "{name}"')
    names: list[str] = []
    for part in ("initContainers", "containers"):
        for place, one in enumerate(spec.get(part) or []):
            here, name = f"{where}.{part}[{place}]", one.get("name", "")
            if name and (not re.fullmatch(LABEL, name) or len(name) > LONGEST_LABEL):
                yield wrong(f"{here}.name", name, LABEL_RULE)
            if name in names:
                yield (f"{here}.name", "FieldValueDuplicate", f'Duplicate value: "{name}"')
            names.append(name)
            yield from container(one, here, volumes)


def container(one: Object, here: str, volumes: list[str]) -> Iterator[Cause]:
    for place, mount in enumerate(one.get("volumeMounts") or []):
        if mount.get("name") not in volumes:
            name = json.dumps(mount.get("name", ""))
            yield (f"{here}.volumeMounts[{place}].name", "FieldValueNotFound", f"Not found: {name}")
        if not mount.get("mountPath"):
            yield lacking(f"{here}.volumeMounts[{place}].mountPath")
    for place, variable in enumerate(one.get("env") or []):
        if not variable.get("name"):
            yield lacking(f"{here}.env[{place}].name")
        if variable.get("value") and variable.get("valueFrom"):
            yield wrong(f"{here}.env[{place}].valueFrom", "", "may not be specified when `value` is not empty")
    for place, port in enumerate(one.get("ports") or []):
        name, number = port.get("name", ""), port.get("containerPort", 0)
        if name and (len(name) > LONGEST_PORT or not re.fullmatch(LABEL, name) or not re.search("[a-z]", name)):
            yield wrong(f"{here}.ports[{place}].name", name, f"must be no more than {LONGEST_PORT} characters")
        if not 0 < number < 65536:
            yield wrong(f"{here}.ports[{place}].containerPort", number, "must be between 1 and 65535, inclusive")
    yield from resources(one.get("resources") or {}, f"{here}.resources")


def resources(given: Object, here: str) -> Iterator[Cause]:
    limits = given.get("limits") or {}
    for part in ("limits", "requests"):
        for name, amount in (given.get(part) or {}).items():
            if not re.fullmatch(QUANTITY, str(amount)):
                yield wrong(f"{here}.{part}[{name}]", amount, QUANTITY_RULE)
    for name, amount in (given.get("requests") or {}).items():
        if name not in limits and "/" in name:
            yield lacking(f"{here}.limits", "Limit must be set for non overcommitable resources")
        elif name in limits and (amounts(amount) or 0.0) > (amounts(limits[name]) or 0.0):
            yield wrong(f"{here}.requests", amount, f"must be less than or equal to {name} limit of {limits[name]}")


def amounts(text: object) -> float | None:
    found = re.fullmatch(r"([+-]?[\d.]+)([a-zA-Z]*)", str(text))
    if found is None or found[2] not in UNITS:
        return None
    return float(found[1]) * UNITS[found[2]]
