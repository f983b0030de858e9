"""What the runner and the watchdog must be allowed for holding a cluster, and whether they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from stormdrill.cluster.api import Api, Lost
from stormdrill.cluster.asking import AGAIN, Until, call, under
from stormdrill.errors import Unreachable

REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
LEASES, JOBS = "coordination.k8s.io", "batch"


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """As `model.permission.Need`, which can't be imported where the watchdog runs."""

    verb: str
    group: str
    resource: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    def __str__(self) -> str:
        what = self.resource + (f"/{self.subresource}" if self.subresource else "")
        what += f".{self.group}" if self.group else ""
        named = f" {self.name}" if self.name else ""
        return f"{self.verb} {what}{named}" + (f" in namespace {self.namespace}" if self.namespace else "")

    def written(self) -> dict[str, str]:
        return {name: value for name, value in asdict(self).items() if value}

    @classmethod
    def of(cls, written: Mapping[str, object]) -> Right:
        names = ("verb", "group", "resource", "namespace", "name", "subresource")
        return cls(*(str(written.get(name, "")) for name in names))


def of_runner(suite: str, lease: str, namespaces: Iterable[str]) -> tuple[Right, ...]:
    """For `Hold`. Without names where they have the run in them."""
    found = [Right("create", LEASES, "leases", suite)]
    found += [Right(verb, LEASES, "leases", suite, lease) for verb in ("get", "update")]
    found += [Right(verb, "", "configmaps", suite) for verb in ("create", "get", "list", "patch", "delete")]
    found += [Right(verb, JOBS, "jobs", suite) for verb in ("create", "get", "delete")]
    found += [Right("list", "", "pods", suite)]
    for namespace in sorted(set(namespaces) - {suite}):
        found += [Right(verb, "", "configmaps", namespace) for verb in ("create", "get", "delete")]
    return tuple(found)


def of_watchdog(suite: str, lease: str, namespaces: Iterable[str]) -> tuple[Right, ...]:
    """Beyond what the undos take. A Lease that somebody has deleted is made again."""
    found = [Right("create", LEASES, "leases", suite)]
    found += [Right(verb, LEASES, "leases", suite, lease) for verb in ("get", "update")]
    found += [Right(verb, "", "configmaps", suite) for verb in ("get", "patch")]
    for namespace in sorted(set(namespaces) - {suite}):
        found += [Right(verb, "", "configmaps", namespace) for verb in ("get", "delete")]
    return tuple(found)


def missing(api: Api, rights: Iterable[Right], until: Until) -> tuple[Right, ...]:
    """Those that whoever asks has not. Raises Unreachable."""
    return tuple(right for right in dict.fromkeys(rights) if not _allowed(api, right, until))


def _allowed(api: Api, right: Right, until: Until) -> bool:
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": right.written()},
    }
    while True:
        try:
            answer = call(api, until, "POST", REVIEWS, body)
        except Lost as lost:
            until.pause(str(lost))
            continue
        if answer.good:
            return under(answer.read(), "status").get("allowed") is True
        if answer.status not in AGAIN:
            raise Unreachable(f"what is allowed can't be asked: {answer.said}")
        until.pause(answer.said, answer.retry_after_s)
