"""Rollout: a template is changed place by place, seen by the pods that it made, and put back so."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from fake_cluster import FakeCluster
from kube_rig import SLEEPS, UNPRIVILEGED, Kube, Rig, injection
from stormdrill.cluster.elements import OTHER, OURS, state
from stormdrill.errors import Unreachable
from stormdrill.model.mechanism import Rollout
from stormdrill.model.plan import Injection
from stormdrill.model.undo import Element, undo_to_json
from stormdrill.targets.kubernetes.mechanism import Object, at, objects, text

BAD = Rollout("deployments/web", "", "", image="stormdrill.invalid/bad:$run", broken=True)
RELEASE = Rollout("deployments/web", "", "", env={"VERSION": "2"})


@pytest.fixture
def web(kube: Kube) -> str:
    """A Deployment of two pods that run. Its path."""
    return kube.deployment(kube.namespace())


def on(path: str, how: Rollout) -> Injection:
    return injection("rollout", replace(how, namespace=path.split("/")[5], container=how.container or "main"))


def container(kube: Kube, path: str, name: str = "main") -> Object:
    found = objects(at(kube.read(path), "spec", "template", "spec", "containers"))
    return next(one for one in found if one["name"] == name)


def template(kube: Kube, path: str) -> object:
    return at(kube.read(path), "spec", "template")


def reshape(kube: Kube, path: str, **changed: object) -> None:
    """Somebody else writes the list of containers anew: this one changed so, a sidecar before it."""
    sidecar = {"name": "sidecar", "image": kube.image, "command": SLEEPS, "securityContext": UNPRIVILEGED}
    whole = [sidecar, {**container(kube, path), **changed}]
    kube.patch(path, {"spec": {"template": {"spec": {"containers": whole}}}})


def test_the_rollout_stops_at_a_pod_that_is_not_ready_and_the_old_ones_stay(kube: Kube, rig: Rig, web: str) -> None:
    one, before = on(web, BAD), template(kube, web)
    rig.harm(one)
    bitten = rig.seen(one, lambda effect: effect.bit and "ImagePullBackOff" in effect.detail)
    assert bitten.detail.startswith("1 pods of the release, 0 of them ready")
    assert kube.ready(web) == 2
    assert container(kube, web)["image"] == f"stormdrill.invalid/bad:{rig.run}"
    rig.revert(one)
    rig.seen(one, lambda effect: effect.gone)
    assert template(kube, web) == before
    assert rig.marked(web) == []


def test_it_has_bitten_only_once_a_pod_of_it_is_there(fake: FakeCluster, rig: Rig, web: str) -> None:
    one = on(web, BAD)
    fake.behaviour.loop.pause(True)
    rig.harm(one)
    assert not rig.mechanisms["rollout"].observe(one).bit
    fake.behaviour.loop.pause(False)
    rig.seen(one, lambda effect: effect.bit)


def test_a_bad_release_whose_pod_gets_ready_has_not_bitten(rig: Rig, web: str) -> None:
    one = on(web, replace(RELEASE, broken=True))
    rig.harm(one)
    rig.seen(one, lambda effect: "2 pods of the release, 2 of them ready" in effect.detail)
    assert not rig.mechanisms["rollout"].observe(one).bit


def test_it_is_gone_only_when_no_pod_of_it_is_left(fake: FakeCluster, rig: Rig, web: str) -> None:
    one = on(web, BAD)
    rig.harm(one)
    rig.seen(one, lambda effect: effect.bit)
    fake.behaviour.loop.pause(True)
    rig.revert(one)
    looked = rig.seen(one, lambda effect: not effect.bit)
    assert not looked.gone
    assert "1 pods of the release are still there" in looked.detail
    fake.behaviour.loop.pause(False)
    rig.seen(one, lambda effect: effect.gone)


def test_a_variable_that_was_there_gets_its_value_back_and_a_new_one_goes(kube: Kube, rig: Rig) -> None:
    spec = kube.pod(SLEEPS, env=[{"name": "A", "value": "1"}])
    labels = {"app": "web"}
    path = kube.deployment(kube.namespace(), template={"metadata": {"labels": labels}, "spec": spec})
    one = on(path, replace(RELEASE, env={"A": "2", "B": "3"}))
    rig.harm(one)
    assert container(kube, path)["env"] == [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}]
    rig.revert(one)
    assert container(kube, path)["env"] == [{"name": "A", "value": "1"}]


def test_an_empty_value_which_the_server_leaves_out_is_known_again_and_taken_back(kube: Kube, rig: Rig) -> None:
    spec = kube.pod(SLEEPS, env=[{"name": "A", "value": "1"}])
    path = kube.deployment(kube.namespace(), template={"metadata": {"labels": {"app": "web"}}, "spec": spec})
    one = on(path, replace(RELEASE, env={"A": "", "B": ""}))
    rig.harm(one)
    there = objects(container(kube, path)["env"])
    reshape(kube, path, env=[{key: value for key, value in item.items() if value} for item in there])
    rig.seen(one, lambda effect: effect.bit)
    rig.revert(one)
    assert container(kube, path)["env"] == [{"name": "A", "value": "1"}]


def test_a_value_that_somebody_gives_to_a_variable_that_was_added_empty_is_theirs() -> None:
    added = Element(("env",), text({"name": "B", "value": ""}), key=("name",))
    assert state(added, {"env": [{"name": "B"}]}) == OURS
    assert state(added, {"env": [{"name": "B", "value": "5"}]}) == OTHER


def test_what_others_change_in_the_template_stays_and_ours_is_found_where_it_moved(
    kube: Kube, rig: Rig, web: str
) -> None:
    one = on(web, replace(RELEASE, image="other:2"))
    rig.harm(one)
    reshape(kube, web, workingDir="/srv")
    rig.revert(one)
    rig.seen(one, lambda effect: effect.gone)
    assert container(kube, web, "sidecar")["image"] == kube.image
    assert (container(kube, web)["image"], container(kube, web)["workingDir"]) == (kube.image, "/srv")
    assert not container(kube, web).get("env")


def test_a_release_that_somebody_rolls_out_meanwhile_stays(kube: Kube, rig: Rig, web: str) -> None:
    one = on(web, BAD)
    rig.harm(one)
    rig.seen(one, lambda effect: effect.bit)
    reshape(kube, web, image="theirs:3")
    (undone,) = rig.revert(one)
    assert undone.word == "superseded"
    rig.seen(one, lambda effect: effect.gone)
    assert container(kube, web)["image"] == "theirs:3"
    assert rig.marked(web) == []


def test_a_person_may_roll_back_during_the_fault(kube: Kube, rig: Rig, web: str) -> None:
    one = on(web, BAD)
    before = template(kube, web)
    rig.harm(one)
    rig.seen(one, lambda effect: effect.bit)
    answer = kube.api.call(
        "PATCH",
        web,
        [{"op": "replace", "path": "/spec/template", "value": before}],
        content_type="application/json-patch+json",
    )
    assert answer.good
    assert {undone.word for undone in rig.revert(one)} <= {"done", "superseded"}
    rig.seen(one, lambda effect: effect.gone)
    assert template(kube, web) == before


def test_one_that_is_deleted_during_the_fault_is_gone_when_its_pods_are(kube: Kube, rig: Rig, web: str) -> None:
    one = on(web, BAD)
    rig.harm(one)
    rig.seen(one, lambda effect: effect.bit)
    kube.do("DELETE", web)
    rig.seen(one, lambda effect: effect.gone)
    assert {undone.word for undone in rig.revert(one)} == {"superseded"}


def test_what_would_show_nothing_or_never_come_back_is_refused(kube: Kube, rig: Rig, web: str) -> None:
    def why(how: Rollout = BAD) -> str:
        return rig.mechanisms["rollout"].refusal(on(web, how))

    assert not why()
    assert "a StatefulSet waits for ever for a broken pod" in why(replace(BAD, workload="statefulsets/web"))
    assert "is not there; name one that is" in why(replace(BAD, workload="deployments/absent"))
    assert "has no container side; name one of main" in why(replace(BAD, container="side"))
    assert "is that release already" in why(Rollout("deployments/web", "", "", image=kube.image))
    kube.patch(web, {"spec": {"paused": True}})
    assert "is paused, and would roll nothing out" in why()
    kube.patch(web, {"spec": {"paused": False, "replicas": 0}})
    assert "has 0 replicas" in why()


HELD = "hunter2-prod"


def started_with(kube: Kube, *argv: str, **variables: object) -> str:
    """A Deployment whose container has these. Its path."""
    env = [{"name": name, **(v if isinstance(v, dict) else {"value": v})} for name, v in variables.items()]
    template: Object = {"metadata": {"labels": {"app": "web"}}, "spec": kube.pod(argv or SLEEPS, env=env)}
    return kube.deployment(kube.namespace(), template=template)


def test_what_looks_like_a_secret_is_never_replaced_and_so_never_written_down(kube: Kube, rig: Rig) -> None:
    path = started_with(kube, DB_PASSWORD=HELD, DATABASE=f"postgres://app:{HELD}@db/shop", VERSION="1")
    before = template(kube, path)
    for name in ("DB_PASSWORD", "DATABASE"):
        one = on(path, replace(RELEASE, env={name: "wrong"}))
        refused = rig.mechanisms["rollout"].refusal(one)
        assert f"variable {name} of container main" in refused
        assert "secretKeyRef" in refused
        with pytest.raises(Unreachable) as unable:  # it came after the plan was made
            rig.mechanisms["rollout"].undo(one)
        assert HELD not in refused + str(unable.value)
    beside = on(path, RELEASE)
    assert HELD not in "".join(json.dumps(undo_to_json(word)) for word in rig.mechanisms["rollout"].undo(beside))
    rig.harm(beside)
    rig.revert(beside)
    assert template(kube, path) == before


def test_a_command_that_is_given_a_secret_is_never_replaced(kube: Kube, rig: Rig) -> None:
    path = started_with(kube, "sh", "-c", f"PASSWORD={HELD} exec sleep 3600")
    one = on(path, replace(RELEASE, env={}, command=("false",)))
    refused = rig.mechanisms["rollout"].refusal(one)
    assert "the command of container main" in refused
    assert HELD not in refused
    with pytest.raises(Unreachable):
        rig.mechanisms["rollout"].undo(one)
    assert not rig.mechanisms["rollout"].refusal(on(path, replace(RELEASE, env={"VERSION": "2"})))


def test_a_variable_that_is_taken_from_a_secret_may_be_replaced(kube: Kube, rig: Rig) -> None:
    source = {"valueFrom": {"secretKeyRef": {"name": "db", "key": "password", "optional": True}}}
    path = started_with(kube, DB_PASSWORD=source)
    before = template(kube, path)
    one = on(path, replace(RELEASE, env={"DB_PASSWORD": "wrong"}))
    assert not rig.mechanisms["rollout"].refusal(one)
    rig.harm(one)
    rig.revert(one)
    assert template(kube, path) == before


def test_what_somebody_gives_a_container_meanwhile_is_told_by_its_place_and_not_by_its_value(
    kube: Kube, rig: Rig
) -> None:
    path = started_with(kube, VERSION="1")
    one = on(path, RELEASE)
    rig.harm(one)
    reshape(kube, path, env=[{"name": "VERSION", "value": HELD}])
    told = rig.mechanisms["rollout"].in_force(one).said
    (undone,) = rig.revert(one)
    assert undone.word == "superseded"
    for said in (told, undone.detail, *(undone.found.changed if undone.found else ())):
        assert "env.[name=VERSION] is set" in said
        assert HELD not in said


def test_the_plan_says_whether_old_pods_stay(kube: Kube, rig: Rig, web: str) -> None:
    assert any(
        "keeps old pods until new ones are ready" in note for note in rig.mechanisms["rollout"].notes(on(web, BAD))
    )
    other = kube.deployment(kube.namespace(), strategy={"type": "Recreate"})
    assert any("ends all of its pods" in note for note in rig.mechanisms["rollout"].notes(on(other, BAD)))
