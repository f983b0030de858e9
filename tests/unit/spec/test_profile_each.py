"""A stream for each item of a list: the profile's own when read by itself, else its system's where that has it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stormdrill.errors import Refused
from stormdrill.faults.region_loss import Parameters
from stormdrill.spec.load import Loaded, read_experiment
from stormdrill.spec.parameters import Filled
from stormdrill.spec.profile import read_profile, resolve_profile
from stormdrill.spec.yaml import parse

REPOSITORY = Path(__file__).parent / "repository"
STREAMS = """\
user: platform_user
streams:
  any: {share: 90%, labels: {tier: 1}, deadline: 1s}
  bound: {share: 10%, each: zones, labels: {zone: in-$zone, tier: $$1}, deadline: 1s, parameters: {zone: $zone}}
"""
PROFILE = "parameters: {zones: [eu, us]}\n" + STREAMS
names = st.lists(st.from_regex(r"[a-z][a-z0-9]{0,3}(-[a-z0-9]{1,3})?", fullmatch=True), min_size=1, unique=True)


def looking_for_nobody(*_: object) -> None:
    raise AssertionError("the profile is like no other")


@given(names)
def test_each_item_has_the_same_part_of_the_share_and_stands_where_its_name_does(zones: list[str]) -> None:
    document = parse("demand.yaml", PROFILE)
    theirs: dict[str, Filled] = {"zones": tuple(zones), "strange": 5}
    found = resolve_profile(document, looking_for_nobody, theirs).profile.streams
    assert not document.problems
    assert [one.name for one in found] == ["any", *(f"bound-{zone}" for zone in zones)]
    assert [one.parameters for one in found[1:]] == [{"zone": zone} for zone in zones]
    assert [one.labels for one in found[1:]] == [{"zone": f"in-{zone}", "tier": "$1"} for zone in zones]
    assert {one.share for one in found[1:]} == {0.1 / len(zones)}


def test_by_itself_it_has_its_own_list(tmp_path: Path) -> None:
    (tmp_path / "demand.yaml").write_text(PROFILE)
    (tmp_path / "alike.yaml").write_text("like: demand\n")
    for name in ("demand", "alike"):
        assert [one.name for one in read_profile(tmp_path / f"{name}.yaml").streams] == ["any", "bound-eu", "bound-us"]


def test_what_the_systems_parameter_holds_counts_and_one_that_is_no_list_is_refused(tmp_path: Path) -> None:
    def loaded(parameters: str, settings: dict[str, str]) -> Loaded:
        path = shutil.copytree(REPOSITORY, tmp_path / "repository", dirs_exist_ok=True)
        (path / "loadgen" / "peak.yaml").write_text(f"parameters: {parameters}\n{STREAMS.replace('zone', 'region')}")
        faults = {"region-loss": Parameters}
        return read_experiment(path / "experiments" / "region-crash.yaml", faults=faults, settings=settings)

    profile = loaded("{regions: [mars]}", {}).profile
    assert profile is not None
    assert [one.name for one in profile.streams] == ["any", "bound-eu", "bound-us"]
    with pytest.raises(Refused, match="bug is a list here, and the parameter of that name"):
        loaded("{bug: [one], regions: [eu]}", {})
