"""Amounts as Kubernetes writes them: 500m, 1.5, 128Mi, 2e3."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation

from stormdrill.targets.kubernetes.mechanism import Object, at, objects, texts

FACTORS = {
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", 1)},
    **{letter: Decimal(1000) ** power for power, letter in enumerate("kMGTPE", 1)},
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
}
MB = Decimal(1024**2)
ENDED = ("Succeeded", "Failed")


def amount(written: str) -> Decimal:
    """Raises ValueError for what is none."""
    for suffix, factor in FACTORS.items():
        if written.endswith(suffix):
            return _number(written.removesuffix(suffix), written) * factor
    return _number(written, written)


def shown(value: Decimal) -> str:
    """Exactly, as a whole number or in thousandths."""
    return f"{int(value)}" if value == int(value) else f"{(value * 1000).__ceil__()}m"


def megabytes(written: str) -> float:
    """0 for nothing, and for what can't be read."""
    try:
        return float(amount(written) / MB) if written else 0.0
    except ValueError:
        return 0.0


def of_pod(pod: Object, part: str, resource: str) -> Decimal:
    """What one pod asks for or is limited to (`part`: requests, limits), as the scheduler and quotas count it."""
    beside = running = Decimal(0)
    most = Decimal(0)
    for one in objects(at(pod, "spec", "initContainers")):
        asked = _of_container(one, part, resource)
        if one.get("restartPolicy") == "Always":
            beside += asked
            most = max(most, beside)
        else:
            most = max(most, beside + asked)
    for one in objects(at(pod, "spec", "containers")):
        running += _of_container(one, part, resource)
    overhead = texts(at(pod, "spec", "overhead")).get(resource, "0")
    return max(most, beside + running) + amount(overhead)


def used(pods: Iterable[Object], resource: str) -> Decimal:
    """What the pods of a namespace use of it, as a quota counts: `pods`, `requests.cpu`, `limits.memory`."""
    alive = [pod for pod in pods if at(pod, "status", "phase") not in ENDED]
    if resource == "pods":
        return Decimal(len(alive))
    part, _, what = resource.partition(".")
    return sum((of_pod(pod, part, what) for pod in alive), Decimal(0))


def _of_container(one: Object, part: str, resource: str) -> Decimal:
    written: Mapping[str, str] = texts(at(one, "resources", part))
    return amount(written.get(resource, "0"))


def _number(written: str, whole: str) -> Decimal:
    try:
        return Decimal(written)
    except InvalidOperation:
        raise ValueError(f"{whole!r} is no amount; write for instance 500m, 2, 128Mi") from None
