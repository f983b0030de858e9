"""Nothing that is shipped insists on what the platform's regions are called: clusters have names of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from stormdrill import api
from stormdrill.errors import Refused
from stormdrill.spec.runbook import read_runbook
from stormdrill.spec.runbook_front import wrong_with

ROOT = Path(__file__).parents[3]
HERE = {"region": "r1", "from": "r1", "to": "r2", "node": "r1-workers"}
BEYOND_PROCESSES = {"bad-release", "cpu-starvation", "quota-exhaustion", "segmentation"}
"""What local processes can't have done to them: their target refuses these, and names one that can."""
SHIPPED = sorted((ROOT / "experiments").glob("*.yaml"))
EXPERIMENTS = [path for path in SHIPPED if path.stem not in BEYOND_PROCESSES]
RUNBOOKS = sorted((ROOT / "runbooks").glob("*.md"))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=[path.stem for path in EXPERIMENTS])
def test_it_is_planned_where_regions_have_other_names(path: Path) -> None:
    written = path.read_text(encoding="utf-8")
    mine = {name: value for name, value in HERE.items() if f"${name}" in written}
    made = api.plan(path, settings={"regions": "r1,r2", **mine})
    assert {region for one in made.system.instances if (region := one.labels.get("region"))} == {"r1", "r2"}


@pytest.mark.parametrize("stem", sorted(BEYOND_PROCESSES))
def test_what_processes_cannot_have_done_to_them_is_refused_and_says_what_would_help(stem: str) -> None:
    with pytest.raises(Refused, match="--target"):
        api.plan(ROOT / "experiments" / f"{stem}.yaml")


@pytest.mark.parametrize("path", RUNBOOKS, ids=[path.stem for path in RUNBOOKS])
def test_its_runbook_takes_the_region_that_the_alert_names(path: Path) -> None:
    asked = [one for one in read_runbook(path).parameters if one.name == "region"]
    assert [wrong for one in asked for region in ("eu", "r1", "eu-west-1") for wrong in wrong_with(one, region)] == []
    assert all(wrong_with(one, "eu/../us") for one in asked)
