"""A scheduled run: one at a time, never tried twice, under the suite's account, with its files as they are."""

from __future__ import annotations

from typing import Any

import pytest

from stormdrill.errors import Refused
from stormdrill.targets.kubernetes.scheduled import LARGEST, Scheduled, manifests

FILES = {"experiments/node-loss.yaml": "title: x\n", "experiments/systems/shop.yaml": "y\n", "policy.yaml": "z\n"}


def scheduled(**more: Any) -> Scheduled:
    said = {
        "experiment": "node-loss",
        "path": "experiments/node-loss.yaml",
        "schedule": "0 3 * * 1",
        "files": FILES,
        "image": "stormdrill:1",
        "suite": "stormdrill",
        "account": "drill",
        "lasts_s": 75.0,
        **more,
    }
    return Scheduled(**said)


def pod(made: list[Any]) -> Any:
    return made[1]["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def test_one_run_at_a_time_and_none_is_tried_again() -> None:
    cron: Any = manifests(scheduled())[1]
    assert cron["spec"]["concurrencyPolicy"] == "Forbid"
    assert cron["spec"]["jobTemplate"]["spec"]["backoffLimit"] == 0
    assert pod(manifests(scheduled()))["restartPolicy"] == "Never"


def test_its_files_are_where_a_repository_has_them() -> None:
    made: list[Any] = manifests(scheduled())
    (files,) = [one["configMap"] for one in pod(made)["volumes"] if "configMap" in one]
    assert files["name"] == made[0]["metadata"]["name"]
    assert {item["path"]: made[0]["data"][item["key"]] for item in files["items"]} == FILES


def test_it_may_do_what_the_account_may_and_nothing_on_its_node() -> None:
    found = pod(manifests(scheduled()))
    assert found["serviceAccountName"] == "drill"
    assert found["securityContext"]["runAsNonRoot"] is True
    (container,) = found["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_what_it_is_told_is_what_a_person_would_write() -> None:
    (container,) = pod(manifests(scheduled(settings={"region": "us"}, fast=True)))["containers"]
    said = " ".join(container["args"])
    assert (
        said == "run /drill/experiments/node-loss.yaml --target kubernetes --json --runs /runs --set region=us --fast"
    )


@pytest.mark.parametrize("claim", ["", "drill-runs"])
def test_the_record_goes_where_it_is_asked_to(claim: str) -> None:
    (runs,) = [one for one in pod(manifests(scheduled(claim=claim)))["volumes"] if one["name"] == "runs"]
    assert ("emptyDir" in runs) is (claim == "")
    assert runs.get("persistentVolumeClaim", {}).get("claimName", "") == claim


def test_secrets_come_from_a_secret_and_are_written_nowhere() -> None:
    (container,) = pod(manifests(scheduled(secrets=["SHOP_TOKEN"])))["containers"]
    (found,) = [one for one in container["env"] if one["name"] == "SHOP_TOKEN"]
    assert found["valueFrom"]["secretKeyRef"] == {"name": "stormdrill-node-loss", "key": "SHOP_TOKEN"}


@pytest.mark.parametrize("text", ["0 3 * * 1", "*/5 0-6 1,15 * MON-FRI", "@weekly", "15 2 * * sun"])
def test_a_schedule_is_taken_as_cron_has_it(text: str) -> None:
    cron: Any = manifests(scheduled(schedule=text))[1]
    assert cron["spec"]["schedule"] == text


@pytest.mark.parametrize("text", ["", "at three", "0 3 * *", "0 3 * * 1 2026", "@every 5m", "0 3 * * 1; rm"])
def test_what_is_no_schedule_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="five fields"):
        manifests(scheduled(schedule=text))


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("61 * * * *", r"61 is no minute \(0-59\)"),
        ("0 24 * * *", "24 is no hour"),
        ("0 3 0 * *", "0 is no day of the month"),
        ("0 3 * 13 *", "13 is no month"),
        ("0 3 * foo *", "foo is no month"),
        ("0 3 * * 7", r"7 is no day of the week \(0-6 or sun-sat\)"),
        ("0 3 * * FRI-MON", "FRI-MON is no day of the week"),
        ("*/0 * * * *", r"\*/0 is no minute"),
        ("5,60 * * * *", "5,60 is no minute"),
        ("0 3 * *", "it has 4 fields"),
    ],
)
def test_a_field_out_of_its_range_is_named_with_what_it_may_be(text: str, wrong: str) -> None:
    with pytest.raises(Refused, match=wrong):
        manifests(scheduled(schedule=text))


def test_files_that_are_too_large_are_refused() -> None:
    with pytest.raises(Refused, match="ConfigMap"):
        manifests(scheduled(files={"trace": "x" * (LARGEST + 1)}))
