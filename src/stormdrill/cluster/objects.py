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


def remove(api: Api, path: str, run: str, until: Until, *, seen: bool = False) -> None:
    """DELETE what carries the run's label; gone, being deleted, or somebody else's, is as good. `seen`: being deleted
    isn't; it must be gone. Raises Unreachable."""
    while True:
        there = read(api, path, until)
        if there is None or text(there, "metadata", "labels", naming.LABEL) != run:
            return
        if not text(there, "metadata", "deletionTimestamp"):
            delete(api, path, there, until)
        elif seen:
            until.pause(being_deleted(path, there))
        else:
            return


def being_deleted(path: str, there: dict[str, object]) -> str:
    """And what that waits for."""
    waits = under(there, "metadata").get("finalizers")
    held = f", waiting for {waits}: whoever put them there must take them off" if waits else ""
    return f"{path} is being deleted{held}"


def remove_anchor(api: Api, run: str, namespace: str, until: Until) -> None:
    """What it owns is ended by the cluster only once it is gone, and what comes late as well: somebody's finalizer may
    keep it, and whoever takes its labels off has not removed it. Raises Unreachable."""
    path = anchor_path(run, namespace)
    while (there := read(api, path, until)) is not None:
        whose, part = (text(there, "metadata", "labels", label) for label in (naming.LABEL, naming.PART))
        if text(there, "metadata", "deletionTimestamp"):
            until.pause(being_deleted(path, there))
        elif whose == run or (not whose and part == "anchor"):
            delete(api, path, there, until)
        else:
            raise Unreachable(
                f"{path} does not carry the label {naming.LABEL}={run} of the run's anchor, and what the run has made "
                f"may belong to it: remove it, or kubectl label --overwrite configmap -n {namespace} "
                f"{naming.ledger(run)} {naming.LABEL}={run}"
            )


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
