"""Objects of the suite's own: made at most once whatever becomes of the answers, and removed."""

from __future__ import annotations

from stormdrill.cluster import naming
from stormdrill.cluster.api import Api, Lost
from stormdrill.cluster.asking import AGAIN, IN_DOUBT, Until, call, read, text, under
from stormdrill.errors import Refused, Unreachable


def create(api: Api, collection: str, body: dict[str, object], until: Until) -> dict[str, object]:
    """POST. Found there afterwards with the same labels, after an answer was lost, it is the one that was made.
    Raises Refused when there is one of that name already or the server won't have it, Unreachable."""
    path = f"{collection}/{text(body, 'metadata', 'name')}"
    sent = False
    while True:
        try:
            answer = call(api, until, "POST", collection, body)
        except Lost as lost:
            sent = sent or lost.sent
            until.pause(f"POST {collection}: {lost}")
            continue
        if answer.good:
            return answer.read()
        if answer.reason == "AlreadyExists":
            there = read(api, path, until)
            if there is not None:
                if sent and under(there, "metadata", "labels") == under(body, "metadata", "labels"):
                    return there
                raise Refused(f"{path} exists already: it is what another run left, or somebody else's")
        elif answer.status not in AGAIN:
            raise Refused(f"{path} can't be made: {answer.said}")
        sent = sent or answer.status in IN_DOUBT
        until.pause(f"POST {collection}: {answer.said}", answer.retry_after_s)


def remove(api: Api, path: str, run: str, until: Until) -> None:
    """DELETE what carries the run's label; gone, or somebody else's, is as good. Raises Unreachable."""
    while True:
        there = read(api, path, until)
        if there is None or text(there, "metadata", "labels", naming.LABEL) != run:
            return
        if text(there, "metadata", "deletionTimestamp"):
            return
        delete(api, path, there, until)


def delete(api: Api, path: str, there: dict[str, object], until: Until, policy: str = "Background") -> None:
    """Ask once for the end of the object that was looked at, and of no other of that name: the next look tells what
    became of it. Raises Unreachable with what no look will change."""
    options = {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "preconditions": {"uid": text(there, "metadata", "uid")},
        "propagationPolicy": policy,
    }
    try:
        answer = call(api, until, "DELETE", path, options)
    except Lost as lost:
        until.pause(str(lost))
        return
    if answer.good or answer.status == 404:
        return
    if answer.status not in AGAIN:
        raise Unreachable(f"DELETE {path}: {answer.said}")
    until.pause(f"DELETE {path}: {answer.said}", answer.retry_after_s)


def anchor(run: str, namespace: str) -> dict[str, object]:
    """What owns everything that the run creates in a namespace: when it goes, the cluster ends what comes late."""
    labels = {naming.LABEL: run, naming.PART: "anchor"}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": naming.ledger(run), "namespace": namespace, "labels": labels},
        "data": {"about": "owns what this drill creates here; removed when the drill is reverted"},
    }


def anchor_path(run: str, namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps/{naming.ledger(run)}"
