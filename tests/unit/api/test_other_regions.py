"""Nothing that is shipped insists on what the platform's regions are called: clusters have names of their own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stormdrill import api
from stormdrill.errors import Refused
from stormdrill.platform.jobs import place
from stormdrill.spec.runbook import read_runbook
from stormdrill.spec.runbook_front import wrong_with

ROOT = Path(__file__).parents[3]
BEYOND_PROCESSES = {"bad-release", "cpu-starvation", "quota-exhaustion", "segmentation"}
"""What local processes can't have done to them: their target refuses these, and names one that can."""
SHIPPED = sorted((ROOT / "experiments").glob("*.yaml"))
EXPERIMENTS = [path for path in SHIPPED if path.stem not in BEYOND_PROCESSES]
RUNBOOKS = sorted((ROOT / "runbooks").glob("*.md"))


def settings_for(path: Path, regions: str) -> dict[str, str]:
    """What a person says there: the regions, and which of them the experiment is about."""
    first, second = regions.split(",")[:2]
    here = {"region": first, "from": first, "to": second, "node": f"{first}-workers"}
    written = path.read_text(encoding="utf-8")
    return {"regions": regions, **{name: value for name, value in here.items() if f"${name}" in written}}


@pytest.mark.parametrize("path", EXPERIMENTS, ids=[path.stem for path in EXPERIMENTS])
def test_it_is_planned_where_regions_have_other_names(path: Path) -> None:
    made = api.plan(path, settings=settings_for(path, "r1,r2"))
    assert {region for one in made.system.instances if (region := one.labels.get("region"))} == {"r1", "r2"}


@pytest.mark.parametrize("regions", ["eu,us", "r1,r2", "r1,r2,r3"])
@pytest.mark.parametrize("target", ["process", "kubernetes"])
@pytest.mark.parametrize("path", SHIPPED, ids=[path.stem for path in SHIPPED])
def test_its_load_asks_for_no_other_region_and_for_each_as_much(path: Path, target: str, regions: str) -> None:
    there = regions.split(",")
    profile = api.validate(path, settings_for(path, regions), target=target).profile
    streams = profile.every_stream if profile else ()
    bound = [one for one in streams if "residency" in {*one.labels, *one.parameters}]
    assert all(one.labels["residency"] == one.parameters["residency"] for one in bound)
    assert all(place("a-job", str(one.parameters["residency"]), there) for one in bound)  # else an edge answers 400
    shares = {region: sum(s.share for s in bound if s.labels["residency"] == region) for region in there}
    assert max(shares.values()) == pytest.approx(min(shares.values()))
    assert sum(one.share for one in streams) == pytest.approx(len(profile.parts) if profile else 0)


def test_the_shipped_mixes_do_keep_work_in_its_region() -> None:
    """Else the law above would hold of nothing."""
    for name in ("steady", "peak"):
        users = [path for path in SHIPPED if f"profile: {name}," in path.read_text(encoding="utf-8")]
        profile = api.validate(users[0], settings_for(users[0], "r1,r2")).profile
        assert profile is not None
        assert {one.labels["residency"] for one in profile.streams if "residency" in one.labels} == {"r1", "r2"}


def test_work_for_a_region_that_there_is_not_is_told_by_the_plan(tmp_path: Path) -> None:
    """Else all of it is refused with 400, and nobody knows why: as where a cluster's regions weren't said."""
    for name in ("experiments", "loadgen", "runbooks"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "policy.yaml", tmp_path)
    path = tmp_path / "experiments" / "late-dependency.yaml"
    assert not any("must stay in" in note for note in api.plan(path).notes)
    mix = tmp_path / "loadgen" / "steady.yaml"
    mix.write_text(mix.read_text().replace("regions: [eu, us]", "places: [eu, mars]").replace("region", "place"))
    said = [note for note in api.plan(path).notes if "must stay in mars" in note]
    assert len(said) == 1
    assert "the system's regions are eu, us" in said[0]
    assert "--set regions=" in said[0]


@pytest.mark.parametrize("stem", sorted(BEYOND_PROCESSES))
def test_what_processes_cannot_have_done_to_them_is_refused_and_says_what_would_help(stem: str) -> None:
    with pytest.raises(Refused, match="--target"):
        api.plan(ROOT / "experiments" / f"{stem}.yaml")


@pytest.mark.parametrize("path", RUNBOOKS, ids=[path.stem for path in RUNBOOKS])
def test_its_runbook_takes_the_region_that_the_alert_names(path: Path) -> None:
    asked = [one for one in read_runbook(path).parameters if one.name == "region"]
    assert [wrong for one in asked for region in ("eu", "r1", "eu-west-1") for wrong in wrong_with(one, region)] == []
    assert all(wrong_with(one, "eu/../us") for one in asked)
