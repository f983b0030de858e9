"""Faults on containers that somebody else has made: they come back as they were, and what others do stays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fake_engine import Box, FakeEngine, fake_engine
from fault_world import planned
from stormdrill.api.targets import make
from stormdrill.errors import Unreachable
from stormdrill.keeper.undo import perform
from stormdrill.model.experiment import FaultUse
from stormdrill.model.mechanism import CpuLimit, How, Pressure, Sever
from stormdrill.model.plan import Injection
from stormdrill.model.system import DockerSpec, ServiceInstance, System
from stormdrill.ports import Mechanism
from stormdrill.targets.docker.engine import Engine
from stormdrill.targets.docker.fleet import Fleet, Member
from stormdrill.targets.docker.halting import Freezing
from stormdrill.targets.docker.limiting import Limiting
from stormdrill.targets.docker.severing import Severing


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


# --- what runs already ---


def attached(*more: str) -> System:
    """Containers of somebody else's, chosen by their label."""
    chosen = [ServiceInstance(name, name, (), port=8080, select={"app": name}) for name in ("web", *more)]
    where = DockerSpec(attach={"drill": "allowed"})
    return System(name="theirs", entry="web", instances=tuple(chosen), labels=("region",), docker=where)


def test_a_container_that_its_engine_removes_when_it_ends_is_never_ended(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The undo of a crash is a start, and there would be nothing left to start."""
    monkeypatch.setenv("DOCKER_HOST", engine.url)
    box = engine.add("web-1", app="web", drill="allowed")

    def refused(one: Injection) -> str:
        target = make("docker", attached(), tmp_path, lasts_s=60.0)
        target.world()
        return target.mechanisms[one.mechanism].refusal(one)

    ends = [injection("crash"), injection("pressure", Pressure(10.0, 64.0))]
    box.limits = {"Memory": 256 << 20}
    assert [refused(one) for one in ends] == ["", ""]
    box.limits["AutoRemove"] = True
    for one in ends:
        assert "web was started with --rm" in refused(one)
        assert "; start it without --rm" in refused(one)
    assert [refused(one) for one in (injection("freeze"), HALF)] == ["", ""]


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


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({}, ""),
        ({"NanoCpus": 600_000_000}, ""),
        ({"NanoCpus": 500_000_000}, "web has no more than 0.5 cores as it is; write less"),
        ({"CpuPeriod": 50_000, "CpuQuota": 20_000}, "web has no more than 0.4 cores as it is; write less"),
    ],
)
def test_nobody_is_starved_by_more_than_they_have(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limits: dict[str, int], said: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", engine.url)
    engine.add("web-1", app="web", drill="allowed").limits = limits
    target = make("docker", attached(), tmp_path, lasts_s=60.0)
    target.world()
    assert target.mechanisms["cpu-limit"].refusal(HALF).startswith(said)
    assert bool(target.mechanisms["cpu-limit"].refusal(HALF)) is bool(said)


def test_a_limit_that_the_system_file_sets_is_known_before_the_start(tmp_path: Path) -> None:
    web = ServiceInstance("web", "web", (), cpus=0.25)
    target = make("docker", System("s", "web", (web,), docker=DockerSpec(image="x")), tmp_path, lasts_s=60.0)
    assert "no more than 0.25 cores" in target.mechanisms["cpu-limit"].refusal(HALF)


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


# --- the network ---

ASKED = {
    "IPAMConfig": {"IPv4Address": "10.9.0.7", "IPv6Address": "fd00::7", "LinkLocalIPs": ["169.254.1.7"]},
    "Links": ["db:database"],
    "DriverOpts": {"priority": "9"},
    "Aliases": ["shop"],
}
TOLD = {"IPAddress": "10.9.0.7", "Gateway": "10.9.0.1", "EndpointID": "e"}
GIVEN, MADE = "92:d0:c6:0a:29:33", "02:42:0a:09:00:07"


def severing(engine: FakeEngine, fleet: Fleet, loses: str = "") -> Severing:
    return Severing(Engine(engine.url), fleet, str, str, lambda _: loses)


@pytest.mark.parametrize("asked", [ASKED, {"Aliases": []}, {**ASKED, "MacAddress": GIVEN}])
def test_a_disconnected_container_asks_for_all_that_it_had_asked_for(
    engine: FakeEngine, box: Box, fleet: Fleet, asked: dict[str, object]
) -> None:
    box.ends["net"] = {"MacAddress": MADE, **TOLD, **asked, "Aliases": [*ASKED["Aliases"], box.id[:12]]}
    assert harmed(severing(engine, fleet), injection("sever", Sever())) == "done"
    assert box.ends["net"] == {**asked, "Aliases": ASKED["Aliases"]}


@pytest.mark.parametrize("fixed", [True, False])
def test_the_plan_says_that_an_address_may_change_which_nobody_asked_for(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fixed: bool
) -> None:
    monkeypatch.setenv("DOCKER_HOST", engine.url)
    web = engine.add("web-1", "net", app="web", drill="allowed", region="eu")
    web.ends["net"] = {**TOLD, **(ASKED if fixed else {})}
    target = make("docker", attached(), tmp_path, lasts_s=60.0)
    plan = planned(FaultUse("region-loss", {"region": "eu", "mode": "isolate"}), offers=target, world=target.world())
    lost = "web: the address that its engine chose (it may get another) is lost"
    assert plan.irreversible == (() if fixed else (lost,))


def test_rules_are_made_in_the_network_that_an_instance_has_now_and_count_for_no_other(
    engine: FakeEngine, box: Box, fleet: Fleet
) -> None:
    """A container that is started again gets a new network; its helper keeps the old one, rules and counters."""
    helper = engine.add("web.net")
    helper.joins = box.id
    fleet.join(Member("web.net", "web.net", "helper", helper.id, "web.net", "image"))
    cut, sever = injection("sever", Sever(("db",))), severing(engine, fleet)
    restart = f"POST /containers/{helper.id}/restart?t=0"
    sever.apply(cut)
    assert restart not in engine.asked
    box.started_at = "2026-01-01T00:00:00.5Z"
    seen = sever.observe(cut)
    assert (seen.bit, seen.gone, seen.witness) == (False, True, "container state")
    made = len(engine.execs)
    sever.apply(cut)
    assert restart in engine.asked
    assert len(engine.execs) == made + 1, "and then the rules"
    assert "started again" not in sever.observe(cut).detail
    box.started_at, box.running = "2099-01-01T00:00:00Z", False
    with pytest.raises(Unreachable, match="web does not run, and has no network to be cut from"):
        sever.apply(cut)
    assert helper.running
    engine.stop()
    with pytest.raises(Unreachable):
        sever.observe(cut)


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
