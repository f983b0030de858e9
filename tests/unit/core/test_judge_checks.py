"""Backpressure checks in the verdict of a run; and runs that inject nothing, whose load is the trigger."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from stormdrill.core.case import Case
from stormdrill.core.decide import StartRunbook, decide
from stormdrill.core.digest import digest, facts
from stormdrill.core.evidence import Evidence
from stormdrill.core.fold import fold
from stormdrill.core.judge import judge
from stormdrill.core.plan import make_plan
from stormdrill.errors import Refused
from stormdrill.model import event as ev
from stormdrill.model.experiment import CheckUse, RunbookUse
from stormdrill.model.expression import AlertWithin
from stormdrill.model.policy import Policy
from stormdrill.model.profile import Profile
from stormdrill.model.verdict import Verdict
from stormdrill.ports import World
from stormdrill.store.evidence import load
from synthetic_overload import asking, check_use, comparison, objective, simulate, write
from synthetic_run import make_run


def judged(found: Evidence) -> Verdict:
    return judge(found.plan, found.events, found.records, found.ledger)


def test_a_run_without_faults_passes_on_its_objectives_and_checks() -> None:
    verdict = judged(asking(simulate(), check_use("capacity"), check_use("goodput-plateau")))
    assert verdict.verdict == "PASS"
    assert verdict.status == "completed"
    assert verdict.sentence == "1 objective held and 2 backpressure checks held"
    assert [check.name for check in verdict.backpressure] == ["capacity", "goodput-plateau"]
    assert verdict.faults == ()


@pytest.mark.parametrize(
    ("knobs", "word"),
    [({"collapse": 1.0}, "FAIL"), ({"steps": (0.5, 1.0)}, "INCONCLUSIVE"), ({"hogs": True}, "INVALID")],
)
def test_a_check_counts_like_an_objective(knobs: dict[str, object], word: str) -> None:
    verdict = judged(asking(simulate(**knobs), check_use("goodput-plateau")))
    assert verdict.verdict == word
    if word != "INVALID":  # there the baseline, which comes first, is tainted too
        assert verdict.sentence == f"goodput-plateau: {verdict.backpressure[0].sentence}"


def test_a_fail_of_a_check_weighs_more_than_a_doubt_of_an_objective() -> None:
    found = asking(simulate(collapse=1.0), check_use("goodput-plateau"))
    doubtful = objective("recovery", comparison("success > 99.99%", "success", ">", 99.99, "%"))
    experiment = replace(found.plan.experiment, objectives=(*found.plan.experiment.objectives, doubtful))
    verdict = judged(replace(found, plan=replace(found.plan, experiment=experiment)))
    assert verdict.objectives[-1].verdict == "INCONCLUSIVE"
    assert verdict.verdict == "FAIL"


def test_a_threshold_of_the_experiment_is_the_one_that_counts() -> None:
    assert judged(asking(simulate(collapse=1.0), check_use("goodput-plateau", least="30%"))).verdict == "PASS"


def test_a_lost_worker_taints_every_check_that_rests_on_records() -> None:
    found = asking(simulate(steps=(0.5, 1.0)), check_use("capacity"), check_use("admitted-latency"))
    events = tuple(
        replace_event(one, ev.LoadEnded(9, 9, 0, 0, 0.1, 1, "")) if isinstance(one.event, ev.LoadEnded) else one
        for one in found.events
    )
    verdict = judged(replace(found, events=events))
    assert {check.verdict for check in verdict.backpressure} == {"INVALID"}
    assert "workers were lost" in verdict.backpressure[0].sentence


def replace_event(recorded: ev.Recorded, event: ev.Event) -> ev.Recorded:
    return ev.Recorded(recorded.seq, recorded.at, recorded.mono_ms, event)


def test_a_check_that_this_version_does_not_know_is_a_doubt() -> None:
    verdict = judged(asking(simulate(), CheckUse("perfection"), CheckUse("capacity", {"least": 3})))
    assert [check.verdict for check in verdict.backpressure] == ["INCONCLUSIVE", "INCONCLUSIVE"]


def test_checks_of_a_run_with_faults_change_nothing_else(tmp_path: Path) -> None:
    found = load(make_run(tmp_path / "run", outage_s=0.0))
    plain = judged(found)
    experiment = replace(found.plan.experiment, backpressure=(check_use("admitted-latency"),))
    checked = judged(replace(found, plan=replace(found.plan, experiment=experiment)))
    assert checked.backpressure[0].verdict == "PASS"
    assert "during the fault" in checked.backpressure[0].sentence
    assert (checked.verdict, checked.faults, checked.times) == (plain.verdict, plain.faults, plain.times)
    assert checked.sentence == plain.sentence.replace("held;", "held and 1 backpressure check held;")


def test_without_faults_the_load_is_the_trigger_and_comes_with_the_fault_phase() -> None:
    found = simulate().evidence
    case = Case(found.plan, found.events, found.records, None)
    assert case.inject is not None
    assert case.inject.mono_ms == case.spans["fault"].start_ms
    assert case.inject.event == ev.PhaseEntered("fault", found.plan.experiment.phases.fault_s)


def test_a_run_that_ends_before_its_load_came_is_a_doubt() -> None:
    verdict = judged(asking(simulate(stop_at_s=5.0), check_use("capacity")))
    assert verdict.verdict == "INCONCLUSIVE"
    assert "the run never came to the load that was to be the trigger" in verdict.reasons
    assert verdict.backpressure[0].verdict == "INCONCLUSIVE"


def test_a_run_directory_is_judged_as_the_run_was(tmp_path: Path) -> None:
    found = simulate(checks=("capacity", "goodput-plateau", "littles-law"))
    read = judged(load(write(tmp_path, found)))
    assert msgspec.json.encode(read) == msgspec.json.encode(judged(found.evidence))
    assert read.verdict == "PASS"


def test_without_faults_a_runbook_starts_by_the_clock_of_the_fault_phase() -> None:
    plan = simulate().plan
    use = RunbookUse("scale-out", AlertWithin("alert(QueueAgeHigh)", "QueueAgeHigh"), 5.0)
    plan = replace(plan, experiment=replace(plan.experiment, runbook=use))
    entered = [
        ev.Recorded(1, "", 0.0, ev.SystemReady(3, 900.0)),
        ev.Recorded(2, "", 0.0, ev.LoadStarted("overload", 1, 0.0)),
        ev.Recorded(3, "", 0.0, ev.PhaseEntered("fault", 60.0)),
    ]
    state = fold(plan, entered)
    assert not any(isinstance(command, StartRunbook) for command in decide(plan, state, 4_900.0))
    assert StartRunbook("else_after") in decide(plan, state, 5_100.0)


# --- planning --------------------------------------------------------------------------------------------


def planned(profile: Profile | None, *uses: CheckUse) -> str:
    plan = asking(simulate(), *uses).plan
    world = World(plan.system, (), ())
    made = make_plan(
        plan.experiment,
        plan.system,
        Policy(),
        profile,
        target="process",
        offers=object(),
        world=world,
        faults={},
        seed=1,
    )
    return made.digest


def test_an_experiment_without_faults_can_be_planned() -> None:
    assert planned(simulate().plan.profile, check_use("capacity"))


def test_what_a_check_cannot_do_without_is_refused_when_planning() -> None:
    profile = simulate(steps=()).plan.profile
    with pytest.raises(Refused) as refused:
        planned(profile, check_use("capacity"), check_use("goodput-plateau"))
    assert [problem.what for problem in refused.value.problems] == [
        "capacity needs a staircase in the load",
        "goodput-plateau needs a staircase in the load",
    ]
    assert all(problem.fix for problem in refused.value.problems)


def test_the_digest_covers_checks_and_their_thresholds() -> None:
    plans = [
        asking(simulate(), *uses).plan
        for uses in ((), (check_use("capacity"),), (check_use("capacity", least="50/s"),), (check_use("priority"),))
    ]
    assert len({digest(facts(plan)) for plan in plans}) == len(plans)
