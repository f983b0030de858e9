"""What somebody writes into an object of ours, or writes anew with our own values, is seen like what they remove: while
the fault is in force, and by its undo, which says what went with it."""

from __future__ import annotations

import json

import pytest

from kube_rig import Kube, Rig, injection
from stormdrill.cluster import naming
from stormdrill.cluster.changes import Undone
from stormdrill.cluster.standing import Found, Met, edits, together
from stormdrill.model.mechanism import Isolate, Quota, Scale
from stormdrill.model.plan import Injection
from stormdrill.model.undo import KubeDelete, KubePatch, undo_from_json, undo_to_json
from stormdrill.ports import Stood
from stormdrill.targets.kubernetes.mechanism import Object, at, texts
from stormdrill.targets.kubernetes.standing import standing, undone

MERGE = "application/merge-patch+json"
PERSON = {"fieldManager": "kubectl-edit"}
LIMITS = {"pods": "2", "requests.nvidia.com/gpu": "1"}
HARD_PODS, HARD_GPU = ("spec", "hard", "pods"), ("spec", "hard", "requests.nvidia.com/gpu")


def stands(rig: Rig, one: Injection) -> Stood:
    found = standing(rig.mechanisms[one.mechanism], one)
    assert found is not None
    return found


def written(rig: Rig, one: Injection) -> KubeDelete:
    (word,) = rig.words[one.id]
    assert isinstance(word, KubeDelete)
    return word


def quota(kube: Kube, rig: Rig) -> Injection:
    one = injection("quota", Quota(kube.namespace(), dict(LIMITS)))
    rig.harm(one)
    return one


def policy(kube: Kube, rig: Rig) -> Injection:
    place = kube.namespace()
    kube.deployment(place)
    one = injection("isolate", Isolate(place, {"app": "web"}))
    rig.harm(one)
    return one


def edit(kube: Kube, path: str, body: object) -> None:
    answer = kube.api.call("PATCH", path, body, content_type=MERGE, query=PERSON)
    assert answer.good, answer.said


ANYBODY: Object = {"spec": {"ingress": [{}]}}
NOBODY_IS_MEANT: Object = {"spec": {"podSelector": {"matchLabels": {"app": "none"}}}}
EDITS = {
    "more is allowed": (quota, {"spec": {"hard": {"pods": "9"}}}, "spec.hard.pods was written anew"),
    "no limit any more": (quota, {"spec": {"hard": {"pods": None}}}, "spec.hard.pods was "),
    "another limit": (quota, {"spec": {"hard": {"limits.cpu": "1"}}}, "spec.hard.limits.cpu was put there"),
    "for other pods": (quota, {"spec": {"scopes": ["Terminating"]}}, "spec.scopes was put there"),
    "everybody let in": (policy, ANYBODY, "spec.ingress was put there"),
    "nobody is meant": (policy, NOBODY_IS_MEANT, "spec.podSelector"),
    "one way is open": (policy, {"spec": {"policyTypes": ["Ingress"]}}, "spec.policyTypes was written anew"),
    "everybody let out": (policy, {"spec": {"egress": [{}]}}, "spec.egress was written anew"),
}


@pytest.mark.parametrize("case", EDITS)
def test_whatever_somebody_edits_in_an_object_of_ours_is_seen_and_told_by_its_undo(
    kube: Kube, rig: Rig, case: str
) -> None:
    make, body, said = EDITS[case]
    one = make(kube, rig)
    path = written(rig, one).path
    assert stands(rig, one) == Stood(False, "", "the API server")
    edit(kube, path, body)
    found = stands(rig, one)
    assert (found.gone, found.edited) == (True, True), "nobody knows what it does now"
    assert said in found.changed
    assert "(kubectl-edit)" in found.changed or "taken out" in found.changed
    (undone,) = rig.revert(one)
    assert kube.read(path) is None, "it is ours to delete"
    assert undone.word == "done"
    assert "and with it what somebody had changed in it: " in undone.detail
    assert said in undone.detail
    assert undone.found is not None
    assert (undone.found.stood, undone.found.edited) == (False, True)


@pytest.mark.parametrize("make", [quota, policy])
def test_what_nobody_edits_is_as_it_was_left_whoever_reports_on_it(kube: Kube, rig: Rig, make: object) -> None:
    """Controllers write a status, and people labels: neither changes what it does."""
    one: Injection = make(kube, rig)  # type: ignore[operator]  # both take the same
    path = written(rig, one).path
    if make is quota:
        kube.until(lambda: at(kube.read(path), "status", "used"), "it was never counted")
    edit(kube, path, {"metadata": {"labels": {"seen": "yes"}, "annotations": {"by": "me"}}})
    assert stands(rig, one) == Stood(False, "", "the API server")
    (undone,) = rig.revert(one)
    assert (undone.word, undone.found) == ("done", Found(True, cause=False))
    assert undone.detail == f"{path} is gone"


def test_what_is_edited_and_put_right_again_was_not_in_force_all_the_time(kube: Kube, rig: Rig) -> None:
    one = quota(kube, rig)
    path = written(rig, one).path
    for pods in ("9", "2"):
        edit(kube, path, {"spec": {"hard": {"pods": pods}}})
    assert stands(rig, one).edited
    rig.revert(one)


def test_what_is_taken_out_has_no_writer_and_is_missed_all_the_same() -> None:
    """A server takes it out of the account of whoever had written it, and names nobody."""
    word = KubeDelete("", "/api/v1/namespaces/shop/resourcequotas/q", "r", wrote=(HARD_PODS, HARD_GPU))

    def account(*names: str) -> Object:
        ours: Object = {"f:spec": {"f:hard": {".": {}, **{f"f:{name}": {} for name in names}}}}
        counted: Object = {"f:status": {"f:hard": {".": {}, "f:pods": {}}}}
        fields = [
            {"manager": naming.maker("r"), "operation": "Update", "fieldsV1": ours},
            {"manager": "kube-controller-manager", "operation": "Update", "subresource": "status", "fieldsV1": counted},
        ]
        return {"metadata": {"labels": {naming.LABEL: "r"}, "managedFields": fields}}

    assert edits(word, account("pods", "requests.nvidia.com/gpu")) == []
    assert edits(word, account("pods")) == ["spec.hard.requests.nvidia.com/gpu was taken out"]


def test_what_is_removed_and_made_again_by_somebody_is_theirs_in_all_that_it_says(kube: Kube, rig: Rig) -> None:
    one = quota(kube, rig)
    path = written(rig, one).path
    copy = kube.read(path) or {}
    kube.do("DELETE", path)
    kept = {key: value for key, value in meta_of(copy).items() if key in ("name", "namespace", "labels")}
    again = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": kept, "spec": copy["spec"]}
    answer = kube.api.call("POST", path.rpartition("/")[0], again, query=PERSON)
    assert answer.good, answer.said
    assert stands(rig, one).edited
    rig.revert(one)


def meta_of(found: Object) -> Object:
    meta = found["metadata"]
    assert isinstance(meta, dict)
    return meta


def test_where_the_server_keeps_no_account_nobody_is_blamed(kube: Kube, rig: Rig) -> None:
    one = quota(kube, rig)
    path = written(rig, one).path
    edit(kube, path, {"spec": {"hard": {"pods": "9"}}})
    found = kube.read(path)
    assert edits(written(rig, one), found or {})
    bare = {**(found or {}), "metadata": {"labels": at(found, "metadata", "labels")}}
    assert edits(written(rig, one), bare) == []
    rig.revert(one)


def test_the_watchdog_knows_it_too(kube: Kube, rig: Rig) -> None:
    """What the undo has to know stands in the ledger."""
    word = written(rig, quota(kube, rig))
    assert word.wrote == (HARD_PODS, HARD_GPU)
    assert undo_from_json(json.loads(json.dumps(undo_to_json(word)))) == word


def told_deployment(kube: Kube, place: str, replicas: int) -> str:
    """One of which the server keeps account from its beginning, as real ones do of all."""
    labels = {"app": "web"}
    pod = {"containers": [{"name": "main", "image": "web:1"}]}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}}
    body = {"metadata": {"name": "web"}, "spec": {**spec, "template": {"metadata": {"labels": labels}, "spec": pod}}}
    path = f"/apis/apps/v1/namespaces/{place}/deployments"
    whole = {"apiVersion": "apps/v1", "kind": "Deployment", **body}
    assert kube.api.call("POST", path, whole, query={"fieldManager": "kubectl-create"}).good
    return f"{path}/web"


def scaled(kube: Kube, rig: Rig) -> tuple[Injection, str]:
    place = kube.namespace()
    path = told_deployment(kube, place, 3)
    one = injection("scale", Scale("deployments/web", place, 3))
    rig.harm(one)
    assert stands(rig, one) == Stood(False, "", "the API server")
    return one, path


def test_what_is_undone_and_done_again_with_our_own_values_was_not_in_force_all_the_time(kube: Kube, rig: Rig) -> None:
    """No look may have seen it away; who wrote it last was somebody else."""
    one, path = scaled(kube, rig)
    for replicas in (3, 0):
        edit(kube, path, {"spec": {"replicas": replicas}})
    found = stands(rig, one)
    assert (found.gone, found.edited) == (False, False)
    assert found.changed.endswith("spec.replicas is 0, as it was left, but written anew (kubectl-edit)")
    (undone,) = rig.revert(one)
    assert undone.found is not None
    assert undone.found.changed == (found.changed,)


def test_what_is_removed_and_made_again_was_not_in_force_all_the_time(kube: Kube, rig: Rig) -> None:
    one, path = scaled(kube, rig)
    copy = kube.read(path)
    assert copy is not None
    kube.do("DELETE", path)
    kube.until(lambda: kube.read(path) is None, "it was never removed")
    meta = {"name": "web", "annotations": dict(texts(at(copy, "metadata", "annotations")))}
    again = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": copy["spec"]}
    kube.do("POST", path.removesuffix("/web"), again)
    found = stands(rig, one)
    assert (found.gone, "deployments/web was made anew" in found.changed) == (False, True)
    kube.do("DELETE", path)


def seen(rig: Rig, one: Injection, *looks: Undone) -> Stood | None:
    """As the target tells it, of what undos found one after another."""
    met = Met()
    for word, look in zip(rig.words[one.id], looks, strict=True):
        met.note(one.id, word, look.found)
    return undone(rig.mechanisms[one.mechanism], one, lambda _, name: met.of(name, rig.words[name]))


def test_an_undo_sees_what_a_look_would_have_seen(kube: Kube, rig: Rig) -> None:
    one, path = scaled(kube, rig)
    before = stands(rig, one)
    assert seen(rig, one, *rig.revert(one)) == before == Stood(False, "", "the API server")
    rig.harm(one)
    edit(kube, path, {"spec": {"replicas": 3}})
    before = stands(rig, one)
    assert before.gone
    assert seen(rig, one, *rig.revert(one)) == before


def test_only_the_first_look_counts_for_an_undo_sees_its_own_work_after_it() -> None:
    word = KubePatch("", "/api/v1/nodes/n1", "u", "stormdrill.dev/0123456789ab", ())
    met = Met()
    assert met.of("a", (word,)) is None, "nobody has looked"
    met.note("a", word, None)
    met.note("a", word, Found(True))
    met.note("a", word, Found(False, ("it is as it was before",)))
    assert met.of("a", (word,)) == Found(True)


def test_of_what_somebody_else_has_reverted_nothing_is_said() -> None:
    word = KubeDelete("", "/api/v1/namespaces/shop/resourcequotas/q", "r")
    met = Met()
    met.note("a", word, Found(False, ("it is there no more",), cause=False))
    met.forget("a")
    assert met.of("a", (word,)) is None


def test_what_is_created_beside_a_patch_only_serves_it() -> None:
    patch, gone = Found(True), Found(False, ("services/behind is there no more",), cause=False)
    edited = Found(False, ("services/behind: spec.selector",), edited=True, cause=False)
    for one in (gone, edited):
        both = together([patch, one])
        assert both is not None
        assert (both.stood, both.changed, both.edited) == (True, one.changed, False)
        alone = together([one])
        assert alone is not None
        assert not alone.stood
    assert together([]) is None
