"""Mistakes in manifests are refused as a server refuses them: 422, with the field."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fake_cluster import FakeCluster
from stormdrill.cluster.api import Api

Json = dict[str, Any]


@pytest.fixture
def api() -> Iterator[Api]:
    with FakeCluster(world=False) as cluster:
        made = Api(cluster.admin)
        yield made
        made.close()


def job() -> Json:
    container: Json = {"name": "c", "image": "c:1", "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}}
    spec: Json = {"restartPolicy": "Never", "containers": [container]}
    meta: Json = {"name": "j", "labels": {"app": "j"}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": {"template": {"spec": spec}}}


def pods(obj: Json) -> Json:
    found: Json = obj["spec"]["template"]["spec"]
    return found


def first(obj: Json) -> Json:
    found: Json = pods(obj)["containers"][0]
    return found


MISTAKES: dict[str, tuple[Callable[[Json], object], str]] = {
    "a Job whose Pods never end": (lambda obj: pods(obj).pop("restartPolicy"), "spec.template.spec.restartPolicy"),
    "no image": (lambda obj: first(obj).pop("image"), "spec.template.spec.containers[0].image"),
    "a name that is no label": (lambda obj: first(obj).update(name="A_b"), "spec.template.spec.containers[0].name"),
    "a label that is too long": (lambda obj: obj["metadata"]["labels"].update(run="x" * 64), "metadata.labels"),
    "a name that no label can hold": (lambda obj: obj["metadata"].update(name="x" * 64), "spec.template.labels"),
    "a mount of no volume": (
        lambda obj: first(obj).update(volumeMounts=[{"name": "v", "mountPath": "/v"}]),
        "spec.template.spec.containers[0].volumeMounts[0].name",
    ),
    "a request above its limit": (
        lambda obj: first(obj)["resources"]["requests"].update(cpu="2500m"),
        "spec.template.spec.containers[0].resources.requests",
    ),
    "an amount that is none": (
        lambda obj: first(obj)["resources"]["limits"].update(memory="1 GB"),
        "spec.template.spec.containers[0].resources.limits[memory]",
    ),
    "a port that is too high": (
        lambda obj: first(obj).update(ports=[{"containerPort": 70000}]),
        "spec.template.spec.containers[0].ports[0].containerPort",
    ),
    "two containers of one name": (
        lambda obj: pods(obj)["containers"].append({"name": "c", "image": "c:2"}),
        "spec.template.spec.containers[1].name",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused_with_its_field(api: Api, mistake: str) -> None:
    spoil, field = MISTAKES[mistake]
    obj = job()
    spoil(obj)
    refused = api.call("POST", "/apis/batch/v1/namespaces/default/jobs", obj)
    assert refused.status == 422
    details: Any = refused.read()["details"]
    assert field in [cause["field"] for cause in details["causes"]]


def test_without_a_mistake_it_is_created_and_its_template_stays(api: Api) -> None:
    path = "/apis/batch/v1/namespaces/default/jobs"
    assert api.call("POST", path, job()).status == 201
    patch = {"spec": {"template": {"spec": {"restartPolicy": "OnFailure"}}}}
    changed = api.call("PATCH", f"{path}/j", patch, content_type="application/merge-patch+json")
    assert changed.status == 422


def test_an_unknown_field_falls_away_with_a_warning_and_is_refused_when_asked_strictly(api: Api) -> None:
    obj = job()
    first(obj)["imagePullPolice"] = "Never"
    path = "/apis/batch/v1/namespaces/default/jobs"
    strict = api.call("POST", path, obj, query={"fieldValidation": "Strict"})
    assert strict.status == 400
    assert 'unknown field "spec.template.spec.containers[0].imagePullPolice"' in strict.said
    told = api.call("POST", path, obj)
    assert "imagePullPolice" in told.headers["warning"]
    assert "imagePullPolice" not in str(told.read())
