"""What a cluster offers to a drill. Looks only."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Literal, NamedTuple

from stormdrill.cluster import mended
from stormdrill.cluster.api import Answer, Api, Lost
from stormdrill.cluster.asking import Until
from stormdrill.errors import StormdrillError
from stormdrill.targets.kubernetes.mechanism import OPTED_IN, at, objects
from stormdrill.targets.kubernetes.sweeping import look

LIMIT_S = 5.0
CLEARS = "`stormdrill recover RUN` where it ran closes its record; stormdrill sweep --target kubernetes clears it away"


class Seen(NamedTuple):
    part: str
    state: Literal["ok", "weak", "missing"]
    seen: str
    cost: str = ""


def findings(context: str, suite: str, account: str = "stormdrill") -> list[Seen]:
    """Raises Refused where there are no credentials."""
    from stormdrill.targets.kubernetes.kubeconfig import access_for

    return list(_findings(Api(access_for(context)), suite, account))


def _findings(api: Api, suite: str, account: str) -> Iterator[Seen]:
    """The API server first: when that doesn't answer, nothing else is told."""
    try:
        version = api.call("GET", "/version", limit_s=LIMIT_S)
    except Lost as lost:
        yield Seen("API server", "missing", f"no answer: {lost}", "look at the kubeconfig's context and at the network")
        return
    if not version.good:
        cost = "log in anew" if version.status == 401 else "--target kubernetes is refused"
        yield Seen("API server", "missing", version.said, cost)
        return
    yield Seen("API server", "ok", f"Kubernetes {version.read().get('gitVersion', 'of an unknown version')}")
    made = "stormdrill plan EXPERIMENT --rbac | kubectl apply -f - makes it"
    yield _there(api, "suite", f"/api/v1/namespaces/{suite}", f"namespace {suite}", made)
    path = f"/api/v1/namespaces/{suite}/serviceaccounts/{account}"
    yield _there(api, "account", path, f"ServiceAccount {suite}/{account}", made)
    yield _opted_in(api)
    yield _open_runs(api, suite)
    yield from _mended(api, suite)


def _there(api: Api, part: str, path: str, what: str, made: str) -> Seen:
    answer = _asked(api, path)
    if isinstance(answer, str):
        return Seen(part, "weak", f"{what}: {answer}")
    if answer.status == 404:
        return Seen(part, "missing", f"there is no {what}", made)
    return Seen(part, "ok", what) if answer.good else Seen(part, "weak", f"{what}: {answer.said}", "it can't be told")


def _opted_in(api: Api) -> Seen:
    label = "=".join(OPTED_IN)
    answer = _asked(api, f"/api/v1/namespaces?labelSelector={label}")
    if isinstance(answer, str) or not answer.good:
        said = answer if isinstance(answer, str) else answer.said
        return Seen("opted in", "weak", said, "which namespaces let themselves be drilled can't be told")
    names = [str(at(one, "metadata", "name")) for one in objects(answer.read().get("items"))]
    if not names:
        return Seen(
            "opted in", "missing", "no namespace lets itself be drilled", f"kubectl label namespace NAME {label}"
        )
    return Seen("opted in", "ok", ", ".join(sorted(names)))


def _open_runs(api: Api, suite: str) -> Seen:
    try:
        things = look(api, suite)
    except StormdrillError as error:
        return Seen("runs", "weak", str(error), "what other runs have in force can't be told")
    open_ = [one for one in things if one.owner != "over"]
    if not open_:
        if not things:
            return Seen("runs", "ok", "none is open")
        kinds = Counter(one.kind for one in things)
        left = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        return Seen("runs", "ok", f"none is open; of runs that are over there are left: {left}", CLEARS)
    said = "; ".join(
        f"{one.kind} {one.name}, {one.owner}{f', until {one.expires}' if one.expires else ''}" for one in open_
    )
    stale = any(one.stale for one in open_)
    return Seen(
        "runs", "weak" if stale else "ok", said, "stormdrill sweep --target kubernetes mends it" if stale else ""
    )


def _mended(api: Api, suite: str) -> Iterator[Seen]:
    """Where there is anything to tell."""
    with contextlib.suppress(StormdrillError):
        if told := mended.look(api, suite, Until(LIMIT_S)):
            more = f"; {len(told) - 1} more, which stormdrill sweep --target kubernetes names" if told[1:] else ""
            yield Seen("mended", "ok", f"{told[0]}{more}")


def _asked(api: Api, path: str) -> Answer | str:
    try:
        return api.call("GET", path, limit_s=LIMIT_S)
    except Lost as lost:
        return str(lost)
