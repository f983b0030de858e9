"""An alert is worth what it tells whom: it must fire in time with the labels that were asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from judging import evidence, one, with_events

from stormdrill.model import event as ev
from stormdrill.model.experiment import Objective
from stormdrill.model.expression import AlertWithin
from stormdrill.model.verdict import ObjectiveVerdict
from synthetic_run import START_MS, objective

INJECTED_MS = START_MS + 27_012.0
WANTED = {"severity": "page", "owner": "serving", "runbook": "region-loss"}
TEXT = "alert(RegionDown{severity=page, owner=serving, runbook=region-loss}) within 10s"
ASKED = objective("fault", AlertWithin(TEXT, "RegionDown", WANTED, 10.0))


def judged(tmp_path: Path, *fired: tuple[float, Mapping[str, str]], asked: Objective = ASKED) -> ObjectiveVerdict:
    """Had RegionDown fired so many seconds after the first inject, with these labels."""
    others = evidence(tmp_path)
    told = [
        ev.Recorded(
            20_000, "", INJECTED_MS + after_s * 1000, ev.AlertChanged("RegionDown", True, dict(labels), "edge-1")
        )
        for after_s, labels in fired
    ]
    found = with_events(others, lambda item: None if isinstance(item.event, ev.AlertChanged) else item, told)
    return one(found, asked)


def test_an_alert_with_all_its_labels_in_time_passes(tmp_path: Path) -> None:
    found = judged(tmp_path, (2.4, {**WANTED, "region": "eu"}))
    assert (found.verdict, found.value) == ("PASS", 2.4)
    assert (
        found.sentence
        == f"{TEXT.removesuffix(' within 10s')} fired 2.4 s after the first inject; within 10 s was asked"
    )


@pytest.mark.parametrize(
    ("labels", "had"),
    [
        ({**WANTED, "severity": "ticket"}, "owner=serving, runbook=region-loss, severity=ticket"),
        ({"region": "eu"}, "region=eu"),
        ({}, "no labels"),
    ],
)
def test_an_alert_with_others_fails_and_says_which_it_had(labels: dict[str, str], had: str, tmp_path: Path) -> None:
    found = judged(tmp_path, (2.4, labels))
    assert found.verdict == "FAIL"
    assert found.sentence.endswith(f"did not fire within 10 s after the first inject: it did after 2.4 s with {had}")
    assert 20_000 in found.events


def test_of_several_the_nearest_is_told(tmp_path: Path) -> None:
    found = judged(tmp_path, (1.0, {"region": "eu"}), (3.0, {**WANTED, "owner": "batch"}))
    assert "it did after 3 s with owner=batch, runbook=region-loss, severity=page" in found.sentence


def test_one_that_comes_too_late_is_not_told_of_as_another(tmp_path: Path) -> None:
    late = judged(tmp_path, (12.0, WANTED))
    assert (late.verdict, late.value) == ("FAIL", 12.0)
    other = judged(tmp_path, (12.0, {"severity": "ticket"}))
    assert other.verdict == "FAIL"
    assert other.sentence.endswith("did not fire within 10 s after the first inject")
