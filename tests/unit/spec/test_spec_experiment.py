"""What an experiment file means once its parameters, its system, its profile and `fast:` are in place."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import pytest
from msgspec import Meta, Struct

from stormdrill.errors import Refused
from stormdrill.faults.region_loss import Parameters
from stormdrill.model.experiment import FaultUse, LoadUse, Objective, Phases, RunbookUse, Window
from stormdrill.model.expression import AlertWithin, Comparison
from stormdrill.spec.kinds import Duration, Rate, Share, Size, Speed
from stormdrill.spec.load import Loaded, read_experiment

REPOSITORY = Path(__file__).parent / "repository"
GOOD = REPOSITORY / "experiments" / "region-loss.yaml"


class Late(Struct, frozen=True, forbid_unknown_fields=True):
    """A fault's parameters, of every type that a fault may ask for."""

    name: str
    delay: Duration = "1s"
    stall: bool = False
    tries: int = 1
    factor: float = 1.0
    kind: Literal["slow", "stale"] = "slow"
    note: Annotated[str | None, "an annotation that is not ours"] = None


FAULTS: dict[str, type[Struct]] = {"region-loss": Parameters, "late-dependency": Late}
Edit = Callable[..., Path]


@pytest.fixture
def edited(tmp_path: Path) -> Edit:
    """A copy of the repository with texts replaced in one of its files; returns the experiment."""

    def edit(*pairs: tuple[str, str], file: str = "experiments/region-loss.yaml") -> Path:
        shutil.copytree(REPOSITORY, tmp_path / "repo", dirs_exist_ok=True)
        path = tmp_path / "repo" / file
        text = path.read_text()
        for old, new in pairs:
            assert old in text
            text = text.replace(old, new)
        path.write_text(text)
        return tmp_path / "repo" / "experiments" / "region-loss.yaml"

    return edit


def read(path: Path = GOOD, *, fast: bool = False, **settings: str) -> Loaded:
    return read_experiment(path, faults=FAULTS, settings=settings, fast=fast)


def refusals(path: Path, *, fast: bool = False, **settings: str) -> list[str]:
    with pytest.raises(Refused) as refused:
        read(path, fast=fast, **settings)
    return [f"{problem.what}; {problem.fix}" for problem in refused.value.problems]


def test_the_design_s_own_experiment_is_read_as_it_is_meant() -> None:
    experiment = read().experiment
    assert experiment.name == "region-loss"
    assert experiment.phases == Phases(warmup_s=5, baseline_s=20, fault_s=30, recovery_s=20)
    assert experiment.load == LoadUse("peak", 60.0)
    assert experiment.faults == (FaultUse("region-loss", {"region": "eu", "mode": "freeze", "share": "100%"}),)
    assert experiment.runbook == RunbookUse(
        "region-loss", AlertWithin("alert(RegionDown)", "RegionDown"), 12.0, ("shed",)
    )
    assert [(one.window.text, one.expression.text) for one in experiment.objectives] == [
        ("baseline", "success{tier=1} > 98%"),
        ("recovery", "success{tier=1} > 98%"),
        ("fault after 10s", "success{tier=1} > 95%"),
        ("fault after 10s", "p95{tier=1} < 400ms"),
        ("whole run", "alert(RegionDown) within 10s"),
        ("whole run", "jobs_lost = 0"),
        ("whole run", "jobs_doubled = 0"),
    ]


def test_every_file_that_a_run_rests_on_is_kept_as_it_was_written() -> None:
    loaded = read()
    assert sorted(loaded.sources) == ["experiment.yaml", "policy.yaml", "profile.yaml", "runbook.md", "system.yaml"]
    assert loaded.sources["experiment.yaml"].text == GOOD.read_text()
    assert loaded.runbook == loaded.sources["runbook.md"].path
    assert loaded.sources["system.yaml"].path.name == "platform.yaml"


def test_fast_replaces_the_whole_of_what_it_names_and_nothing_else() -> None:
    slow, fast = read().experiment, read(fast=True).experiment
    assert fast.fast
    assert not slow.fast
    assert fast.phases == Phases(warmup_s=2, baseline_s=5, fault_s=10, recovery_s=5)
    assert {one.expression.text for one in fast.objectives} == {
        "success{tier=1} > 90%",
        "alert(RegionDown) within 8s",
        "jobs_lost = 0",
        "jobs_doubled = 0",
    }
    assert (fast.load, fast.guards, fast.faults) == (slow.load, slow.guards, slow.faults)


def test_the_fast_section_is_checked_even_when_it_is_not_asked_for(edited: Edit) -> None:
    path = edited(("fault after 5s, recovery", "fault after 10s, recovery"))
    assert refusals(path) == [
        "fault lasts 10s: nothing is left after 10s; write a shorter time, or make the phase longer"
    ]


def test_fast_is_refused_where_the_experiment_has_no_fast_section(tmp_path: Path, edited: Edit) -> None:
    path = edited()
    path.write_text(GOOD.read_text().partition("fast:")[0])
    read(path)
    assert refusals(path, fast=True) == ["this experiment has no fast: section; add one, or run it without --fast"]


def test_set_reaches_experiment_and_system() -> None:
    loaded = read(region="us", bug="no-failover")
    assert loaded.experiment.parameters == {"region": "us"}
    assert loaded.experiment.faults[0].parameters["region"] == "us"
    assert loaded.system.parameters == {"bug": "no-failover", "regions": "eu,us"}
    gateway = next(one for one in loaded.system.instances if one.name == "gateway-eu")
    assert gateway.command[-1] == "no-failover"


def test_a_list_parameter_is_set_with_commas() -> None:
    names = [one.name for one in read(regions="eu,ap").system.instances if one.service == "gateway"]
    assert names == ["gateway-eu", "gateway-ap"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"bug": "no-failovr"}, "no-failovr is not one of the choices of bug; write no-failover"),
        ({"regoin": "us"}, "no parameter regoin in the experiment or its system; write region"),
        ({"region": ""}, "region is empty; write --set region=eu"),
        ({"region": "a\nb"}, "a control character; remove it"),
        ({"region": "mars"}, "no instance has region=mars; known: eu, us"),
        ({"regions": "eu,,us"}, "regions is a list; write --set regions=one,two"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused(settings: dict[str, str], said: str) -> None:
    assert said in refusals(GOOD, **settings)


@pytest.mark.parametrize(
    ("default", "given", "expected"),
    [("3", "4", 4), ("0.5", "2", 2.0), ("true", "false", False), ("null", "eu", "eu"), ("null", "null", None)],
)
def test_a_parameter_has_the_type_of_its_default(edited: Edit, default: str, given: str, expected: object) -> None:
    path = edited(("parameters: {region: eu}", f"parameters: {{region: eu, extra: {default}}}"))
    value = read(path, extra=given).experiment.parameters["extra"]
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("default", "given", "said"),
    [
        ("3", "x", "extra is a whole number; write --set extra=3"),
        ("3", "1.5", "extra is a whole number; write --set extra=3"),
        ("0.5", "half", "extra is a number; write --set extra=0.5"),
        ("true", "yes", "extra is true or false; write --set extra=true"),
    ],
)
def test_a_setting_of_another_type_is_refused(edited: Edit, default: str, given: str, said: str) -> None:
    path = edited(("parameters: {region: eu}", f"parameters: {{region: eu, extra: {default}}}"))
    assert refusals(path, extra=given) == [said]


def test_parameters_fill_expressions_and_durations_and_dollars_are_written_twice(edited: Edit) -> None:
    path = edited(
        ("parameters: {region: eu}", "parameters: {region: eu, share: 98%, wait: 30s}"),
        ("title: Tier 1 survives losing a region within 15 s", "title: Losing $region costs $$5"),
        ("success{tier=1} > 98%", "success{tier=1} > $share"),
        ("fault: 30s", "fault: $wait"),
    )
    experiment = read(path, wait="25s").experiment
    assert experiment.title == "Losing eu costs $5"
    assert experiment.phases.fault_s == 25.0
    assert experiment.objectives[0].expression.text == "success{tier=1} > 98%"


def test_a_parameter_s_value_is_never_read_as_something_else(edited: Edit) -> None:
    path = edited(("owner: serving", "owner: $team"), ("parameters: {region: eu}", "parameters: {region: eu, team: x}"))
    assert read(path, team="no").experiment.owner == "no"
    assert read(path, team="$region").experiment.owner == "$region"


def test_the_column_after_a_filled_parameter_is_the_file_s(edited: Edit) -> None:
    path = edited(("success{tier=1} > 98%\n  fault", "queue_age{region=$region} < 10\n  fault"))
    with pytest.raises(Refused) as refused:
        read(path)
    problem = refused.value.problems[0]
    line = path.read_text().splitlines()[problem.line - 1]
    assert line[problem.column - 1 :].startswith("10")


def test_a_fault_s_own_parameters_are_typed_and_times_are_common_to_all(edited: Edit) -> None:
    late = "late-dependency: {name: feed, delay: 3s, stall: true, tries: 2, factor: 1, kind: stale, start: 2s, for: 5s}"
    path = edited(("region-loss: {region: $region, mode: freeze}", late))
    (use,) = read(path).experiment.faults
    assert (use.start_s, use.for_s) == (2.0, 5.0)
    assert use.parameters == {
        "name": "feed",
        "delay": "3s",
        "stall": True,
        "tries": 2,
        "factor": 1.0,
        "kind": "stale",
        "note": None,
    }


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("name: 7", '7 is a number where text is meant; write "7" in quotes'),
        ("name: x, delay: 3", "3 is not a duration: it has no unit; write 3s"),
        ("name: x, stall: yes", "yes where true or false is meant; write true"),
        ("name: x, tries: many", "many where a whole number is meant; write for instance 2"),
        ("name: x, kind: stael", "unknown value stael for kind; write stale"),
        ("name: x, delays: 3s", "unknown key delays in late-dependency; write delay"),
        ("name: x, for: 31s", "it would outlast the fault phase (30s); write at most 30s, or make the phase longer"),
        ("name: x, for: 0s", "a fault that lasts no time; write for instance 10s"),
        ("delay: 3s", "late-dependency lacks name; add name: …"),
    ],
)
def test_a_fault_s_parameters_are_checked_by_the_fault_s_own_model(edited: Edit, written: str, said: str) -> None:
    path = edited(("region-loss: {region: $region, mode: freeze}", f"late-dependency: {{{written}}}"))
    assert said in refusals(path)


def test_problems_of_all_files_are_said_at_once(edited: Edit) -> None:
    path = edited(("owner: serving", "owner: 7"))
    root = path.parent.parent
    for name, old, new in (
        ("loadgen/peak.yaml", "share: 50%", "share: 5"),
        ("experiments/systems/platform.yaml", "entry: edge", "entry: egde"),
        ("policy.yaml", "max_share: 50%", "max_share: half"),
    ):
        (root / name).write_text((root / name).read_text().replace(old, new))
    with pytest.raises(Refused) as refused:
        read(path, bugs="x")
    files = {Path(problem.where).name for problem in refused.value.problems}
    assert files == {"region-loss.yaml", "platform.yaml", "peak.yaml", "policy.yaml", "--set bugs=x"}


def test_an_experiment_without_load_reads_the_system_s_own_metrics(edited: Edit) -> None:
    path = edited()
    path.write_text(
        "title: t\nhypothesis: h\nowner: o\nsystem: platform\n"
        "phases: {baseline: 1s, fault: 1s, recovery: 1s}\n"
        "faults: [{region-loss: {region: eu}}]\n"
        "objectives:\n  baseline: ['queue_age{region=us} < 3s']\n"
    )
    loaded = read(path)
    assert loaded.profile is None
    assert loaded.runbook is None
    assert loaded.experiment.objectives == (
        Objective(
            Window("baseline"),
            Comparison("queue_age{region=us} < 3s", "queue_age", "<", 3.0, unit="s", labels={"region": "us"}),
        ),
    )


def test_a_metric_may_declare_labels_of_its_own_samples(edited: Edit) -> None:
    assert read(edited(("success{tier=1} > 98%\n  fault", "queue_depth{queue=a} < 10\n  fault")))
    assert "unknown label queue; known: pool, region, role, tier" in refusals(
        edited(("success{tier=1} > 98%\n  fault", "queue_age{queue=a} < 10s\n  fault"))
    )


def test_the_rate_of_any_selection_follows_from_the_profile() -> None:
    loaded = read()
    assert loaded.rate_per_s({}) == pytest.approx(60.0)
    assert loaded.rate_per_s({"tier": "1"}) == pytest.approx(30.0)
    assert loaded.rate_per_s({"tier": "1", "kind": "batch"}) == 0.0


def test_the_policy_named_by_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tmp_path / "strict.yaml"
    policy.write_text("max_share: 10%\n")
    monkeypatch.setenv("STORMDRILL_POLICY", str(policy))
    loaded = read()
    assert loaded.policy.max_share == pytest.approx(0.1)
    assert loaded.sources["policy.yaml"].path == policy


def test_a_policy_named_by_the_environment_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORMDRILL_POLICY", str(tmp_path / "none.yaml"))
    assert refusals(GOOD) == ["no such file; check the path"]


def test_what_the_user_s_repository_lacks_comes_from_the_catalogue(edited: Edit) -> None:
    path = edited()
    (path.parent.parent / "policy.yaml").unlink()
    loaded = read(path)
    assert loaded.policy.targets == ("process", "docker", "kubernetes")
    assert not loaded.sources["policy.yaml"].path.is_relative_to(path.parent.parent)


def test_an_experiment_is_found_from_inside_its_own_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOOD.parent)
    loaded = read(Path("region-loss.yaml"))
    assert loaded.sources["system.yaml"].path == Path("systems/platform.yaml")


def test_a_missing_experiment_is_one_plain_problem() -> None:
    with pytest.raises(Refused, match=r"^no/such\.yaml: no such file; check the path$"):
        read(Path("no/such.yaml"))


class Bounded(Struct, frozen=True, forbid_unknown_fields=True):
    """Quantities of every kind with the range that makes sense, and selectors that aren't labels."""

    delay: Annotated[Duration, Meta(extra={"least": "10ms", "most": "1m"})] = "1s"
    share: Annotated[Share, Meta(extra={"least": "1%"})] = "100%"
    ceiling: Annotated[Size, Meta(extra={"most": "1GB"})] = "200MB"
    slope: Annotated[Speed, Meta(extra={"least": "1KB/s", "most": "100MB/s"})] = "4MB/s"
    rate: Annotated[Rate, Meta(extra={"most": "600/m"})] = "1/s"
    instance: str = ""
    service: str = ""


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("delay: 9ms", "9ms is too small; write at least 10ms"),
        ("delay: 2m", "2m is too large; write at most 1m"),
        ("share: 0.5%", "0.5% is too small; write at least 1%"),
        ("ceiling: 1025MB", "1025MB is too large; write at most 1GB"),
        ("slope: 512B/s", "512B/s is too small; write at least 1KB/s"),
        ("slope: 1GB/s", "1GB/s is too large; write at most 100MB/s"),
        ("rate: 11/s", "11/s is too large; write at most 600/m"),
        ("slope: 4", "4 is not bytes a second: it has no unit; write 4MB/s"),
        ("instance: gateway-de", "no instance has instance=gateway-de; write gateway-eu"),
        ("service: gatway", "no instance has service=gatway; write gateway"),
    ],
)
def test_a_quantity_keeps_to_the_range_that_its_fault_sets_and_a_selector_to_who_is_there(
    edited: Edit, written: str, said: str
) -> None:
    path = edited(("region-loss: {region: $region, mode: freeze}", f"bounded: {{{written}}}"))
    with pytest.raises(Refused) as refused:
        read_experiment(path, faults={"bounded": Bounded, "region-loss": Parameters})
    assert [f"{problem.what}; {problem.fix}" for problem in refused.value.problems][:1] == [said]


def test_quantities_within_their_range_pass_as_written(edited: Edit) -> None:
    within = "{delay: 1m, share: 1%, ceiling: 1GB, slope: 1KB/s, rate: 10/s, instance: gateway-eu, service: gateway}"
    path = edited(("region-loss: {region: $region, mode: freeze}", f"bounded: {within}"))
    loaded = read_experiment(path, faults={"bounded": Bounded, "region-loss": Parameters})
    assert loaded.experiment.faults[0].parameters["slope"] == "1KB/s"
