"""What can be known to fail, before anything is touched: rights, dry runs, and what the suite needs in the cluster.

Every problem is found, not the first alone; questions are asked side by side, and all of it has a limit.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from msgspec.structs import replace

from stormdrill.cluster.api import Api, Lost
from stormdrill.cluster.asking import Until, patient
from stormdrill.errors import Problem, Refused
from stormdrill.model.permission import Need
from stormdrill.targets.kubernetes.rbac import normal, said

T = TypeVar("T")
LIMIT_S = 30.0
"""For all questions together."""
BUSY_S = 5.0
"""So long a server may say to one of them that it can't answer now."""
AT_ONCE = 8
MANY = 16
"""From so many names of one kind on it is asked first whether any name is allowed."""
AUTHORIZATION = "/apis/authorization.k8s.io/v1"
MAY_ASK = Need("create", "authorization.k8s.io", "subjectaccessreviews")
"""What others may do is not for everybody to ask."""
PRINTS = "stormdrill plan EXPERIMENT --rbac prints the rules"


@dataclass(frozen=True, slots=True)
class Asker:
    """In whose name it is asked what is allowed."""

    account: str = ""
    """NAMESPACE/NAME of a ServiceAccount; empty: oneself."""

    @property
    def who(self) -> str:
        return f"ServiceAccount {self.account}" if self.account else "this user"

    @property
    def path(self) -> str:
        return f"{AUTHORIZATION}/{'subject' if self.account else 'selfsubject'}accessreviews"

    def body(self, need: Need) -> dict[str, object]:
        spec: dict[str, object] = {"resourceAttributes": attributes(need)}
        kind = "SelfSubjectAccessReview"
        if self.account:
            kind, (namespace, _, name) = "SubjectAccessReview", self.account.partition("/")
            spec["user"] = f"system:serviceaccount:{namespace}:{name}"
            spec["groups"] = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
        return {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec}


def attributes(need: Need) -> dict[str, str]:
    need = normal(need)
    found = {
        "verb": need.verb,
        "group": need.group,
        "resource": need.resource,
        "subresource": need.subresource,
        "namespace": need.namespace,
        "name": need.name,
    }
    return {key: value for key, value in found.items() if value}


def not_allowed(api: Api, needs: Iterable[Need], asker: Asker | None = None) -> list[Problem]:
    """What of it is not allowed, each told once. Raises Lost, also where nobody may ask it."""
    asker = asker or Asker()
    whys: dict[Need, str] = {}
    for need in map(normal, needs):
        bare = replace(need, why="", cluster="")
        whys[bare] = whys.get(bare) or need.why
    counts = Counter(replace(need, name="") for need in whys if need.name)
    for broad in [need for need, count in counts.items() if count >= MANY]:
        if _allowed(api, broad, asker):
            whys = {need: why for need, why in whys.items() if not need.name or replace(need, name="") != broad}
    told = at_once([partial(_allowed, api, need, asker) for need in whys])
    return [
        Problem("", 0, 0, f"{asker.who} may not {said(need)}{f': needed {why}' if why else ''}", PRINTS)
        for (need, why), good in zip(whys.items(), told, strict=True)
        if not good
    ]


def _allowed(api: Api, need: Need, asker: Asker) -> bool:
    answer = patient(Until(BUSY_S), lambda: api.call("POST", asker.path, asker.body(need)))
    if not answer.good:
        raise Lost(f"what is allowed can't be asked: {answer.said}", sent=False)
    status = answer.read().get("status")
    return isinstance(status, dict) and status.get("allowed") is True


def at_once(questions: Sequence[Callable[[], T]], limit_s: float = LIMIT_S) -> list[T]:
    """Their answers, in their order. Raises what the first that failed raised, Lost at the limit."""
    if not questions:
        return []
    until_s = time.monotonic() + limit_s
    pool = ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="preflight")
    try:
        asked = [pool.submit(question) for question in questions]
        _, open_ = wait(asked, timeout=max(0.0, until_s - time.monotonic()))
        if open_:
            raise Lost(f"{len(open_)} of {len(asked)} questions were not answered within {limit_s:g} s", sent=False)
        return [future.result() for future in asked]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def refuse(problems: Sequence[Problem]) -> None:
    """Raises Refused with all of them, each once."""
    if problems:
        raise Refused(list(dict.fromkeys(problems)))


def here(cluster: str, problems: Iterable[Problem]) -> list[Problem]:
    """With the cluster's name, where there are several."""
    return [Problem(f"cluster {cluster}" if cluster else "", 0, 0, item.what, item.fix) for item in problems]
