"""Faults on containers that somebody else has made: they come back as they were, and what others do stays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fake_engine import Box, FakeEngine, fake_engine
from stormdrill.errors import Unreachable
from stormdrill.keeper.undo import perform
from stormdrill.model.mechanism import CpuLimit, How
from stormdrill.model.plan import Injection
from stormdrill.ports import Mechanism
from stormdrill.targets.docker.engine import Engine
from stormdrill.targets.docker.fleet import Fleet, Member
from stormdrill.targets.docker.halting import Freezing
from stormdrill.targets.docker.limiting import Limiting


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[FakeEngine]:
    with fake_engine(tmp_path) as fake:
        yield fake


@pytest.fixture
def box(engine: FakeEngine) -> Box:
    engine.networks = {"net": {}}
    return engine.add("web", "net")


@pytest.fixture
def fleet(box: Box) -> Fleet:
    known = Fleet()
    known.join(Member("web", "web", "system", box.id, "web", "image", owned=False))
    return known


def injection(mechanism: str, how: How | None = None) -> Injection:
    return Injection(f"f/{mechanism}", "f", 0, "web", mechanism, "undo", 0.0, 5.0, how=how)


def harmed(by: Mechanism, one: Injection) -> str:
    """Armed, harmed and undone; the undo's outcome."""
    (undo,) = by.undo(one)
    by.apply(one)
    return perform(undo).word


# --- CPU ---

HALF = injection("cpu-limit", CpuLimit(0.5))
LIMITS = [{}, {"CpuQuota": 70_000}, {"CpuPeriod": 50_000}, {"CpuPeriod": 50_000, "CpuQuota": 40_000}]


@pytest.mark.parametrize("before", [*LIMITS, {"NanoCpus": 1_500_000_000}])
def test_a_lowered_limit_becomes_what_it_was_and_a_period_is_set_for_none_that_had_none(
    engine: FakeEngine, box: Box, fleet: Fleet, before: dict[str, int]
) -> None:
    box.limits = dict(before)
    limiting = Limiting(Engine(engine.url), fleet)
    (undo,) = limiting.undo(HALF)
    limiting.apply(HALF)
    assert limiting.observe(HALF).gone is False
    assert perform(undo).word == "done"
    without_none = {key: value for key, value in box.limits.items() if (key, value) != ("CpuQuota", -1)}
    assert without_none == before
    assert perform(undo).word == "superseded"


def test_after_the_undo_people_can_set_a_number_of_cpus_again(engine: FakeEngine, box: Box, fleet: Fleet) -> None:
    assert harmed(Limiting(Engine(engine.url), fleet), HALF) == "done"
    assert Engine(engine.url).call("POST", f"/containers/{box.id}/update", {"NanoCpus": 10**9}).status == 200


def test_a_limit_that_a_person_has_set_meanwhile_is_never_overwritten(
    engine: FakeEngine, box: Box, fleet: Fleet
) -> None:
    limiting = Limiting(Engine(engine.url), fleet)
    (undo,) = limiting.undo(HALF)
    limiting.apply(HALF)
    box.limits["CpuQuota"] = 150_000
    assert (perform(undo).word, box.limits["CpuQuota"]) == ("superseded", 150_000)
    box.limits["CpuQuota"] = json.loads(undo.ours)["CpuQuota"]
    engine.troubles = [("/json", "500"), ("/update", "lost")]
    assert (perform(undo).word, box.limits["CpuQuota"]) == ("done", -1), "an engine with a bad day is asked again"
    del engine.boxes[box.id]
    assert perform(undo).word == "superseded"


# --- freeze ---


def test_a_container_that_somebody_has_paused_is_not_ours_to_let_go_on(
    engine: FakeEngine, box: Box, fleet: Fleet
) -> None:
    box.paused = True
    with pytest.raises(Unreachable, match="web is paused already, by somebody else: unpause it first"):
        Freezing(Engine(engine.url), fleet).undo(injection("freeze"))
    box.paused = False
    assert harmed(Freezing(Engine(engine.url), fleet), injection("freeze")) == "done"
    assert not box.paused
