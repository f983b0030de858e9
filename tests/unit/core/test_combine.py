"""Several runs of one plan, judged together: what is exact stays exact, what is estimated knows that runs differ."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from msgspec.structs import replace

from stormdrill.core.combine import Combined, Repeat, combine, repeat_of
from stormdrill.core.evidence import Evidence
from stormdrill.core.validity import DISTRUST
from stormdrill.errors import Refused
from stormdrill.model import event as ev
from stormdrill.model.verdict import CheckVerdict
from stormdrill.store.evidence import load
from synthetic_run import comparison, make_run, objective


def called(found: Evidence, name: str) -> Evidence:
    """The same run under a name of its own."""

    def renamed(recorded: ev.Recorded) -> ev.Recorded:
        if not isinstance(recorded.event, ev.RunStarted):
            return recorded
        return dataclasses.replace(recorded, event=dataclasses.replace(recorded.event, run=name))

    return replace(found, events=tuple(map(renamed, found.events)))


def run(tmp_path: Path, seed: int, scenario: str = "pass", **knobs: object) -> Evidence:
    directory = make_run(tmp_path / f"{scenario}-{seed}", scenario=scenario, seed=seed, **knobs)
    return called(load(directory), f"run-{seed}")


def repeat(found: Evidence) -> Repeat:
    return repeat_of(found.plan, found.events, found.records, found.ledger)


def together(*found: Evidence) -> Combined:
    return combine([repeat(one) for one in found])


def test_runs_that_pass_pass_together_with_a_narrower_interval(tmp_path: Path) -> None:
    runs = [repeat(run(tmp_path, seed)) for seed in (1, 2, 3, 4)]
    found = combine(runs)
    assert (found.verdict, found.sentence) == ("PASS", "7 objectives held over 4 runs")
    success = found.objectives[1]
    alone = [one.verdict.objectives[1] for one in runs]
    assert success.n == sum(one.n for one in alone)
    assert success.low is not None
    assert success.low > min(one.low or 0.0 for one in alone)
    assert (success.runs, success.passed, success.failed) == (4, 4, 0)
    assert "tier-1 requests succeeded during the fault, from 10 s on, in 4 runs; " in success.sentence
    assert found.objectives[5].sentence.endswith("held in the whole run in 4 of 4 runs; 0 jobs of "
        f"{found.objectives[5].n:,} lost in all")  # fmt: skip


def test_the_order_of_the_runs_changes_nothing(tmp_path: Path) -> None:
    runs = [repeat(run(tmp_path, seed)) for seed in (1, 2, 3)]
    assert combine(runs) == combine(runs[::-1])


def test_too_few_samples_of_each_run_are_enough_together(tmp_path: Path) -> None:
    asked = objective("fault", comparison("p95 < 2s", "p95", "<", 2.0, "s"), 10.0)
    few = [
        run(tmp_path, seed, rate_per_s=2.5, served=40, outage_s=0.0, extra_objectives=(asked,)) for seed in (1, 2, 3, 4)
    ]
    alone = [repeat(one).verdict.objectives[-1] for one in few]
    assert {one.verdict for one in alone} == {"INCONCLUSIVE"}
    found = together(*few).objectives[-1]
    assert found.verdict == "PASS"
    assert found.n == sum(one.n for one in alone) > 72


def test_one_lost_job_in_any_run_is_lost_in_all(tmp_path: Path) -> None:
    for scenario in ("lost-jobs", "lost-jobs-tainted"):
        found = together(run(tmp_path, 1), run(tmp_path, 2), run(tmp_path, 3, scenario))
        assert found.verdict == "FAIL"
        assert "2 jobs of" in found.sentence
        lost = next(one for one in found.objectives if one.name == "jobs_lost = 0")
        assert (lost.value, lost.failed) == (2.0, 1)


def test_one_alert_that_did_not_fire_fails_all(tmp_path: Path) -> None:
    found = together(run(tmp_path, 1), run(tmp_path, 2), run(tmp_path, 3, "no-alert"))
    assert found.verdict == "FAIL"
    alert = found.objectives[4]
    assert alert.sentence.startswith(
        "alert(RegionDown) within 10s held in the whole run in 2 of 3 runs; at worst 2.4 s"
    )


@pytest.mark.parametrize("scenario", ["hogs", "aborted", "dirty", "not-bitten", "not-exposed", "unhealthy-baseline"])
def test_a_run_that_cannot_be_judged_is_left_out_and_named(tmp_path: Path, scenario: str) -> None:
    found = together(run(tmp_path, 1), run(tmp_path, 2), run(tmp_path, 3, scenario))
    assert found.verdict == "PASS"
    assert found.sentence == "7 objectives held over 2 runs; 1 run of 3 left out"
    (left,) = [one for one in found.runs if one.left_out]
    assert left.run == "run-3"
    assert any(reason.startswith("run-3 is left out: ") for reason in found.reasons)


def test_a_check_that_finds_the_system_s_own_figures_false_once_is_not_left_out(tmp_path: Path) -> None:
    sound = [repeat(run(tmp_path, seed)) for seed in (1, 2, 3)]
    why = "a queue that the system doesn't see: 40 waited elsewhere"
    hidden = CheckVerdict("littles-law", "INVALID", why, (), ())
    told = replace(sound[2].verdict, verdict="INVALID", sentence=f"littles-law: {why}", backpressure=(hidden,))
    found = combine([*sound[:2], replace(sound[2], verdict=told)])
    assert found.verdict == "INVALID"
    assert why in found.sentence
    distrusted = replace(hidden, sentence=f"{DISTRUST}other programs starved this machine. {why}")
    accident = replace(told, sentence=f"littles-law: {distrusted.sentence}", backpressure=(distrusted,))
    assert combine([*sound[:2], replace(sound[2], verdict=accident)]).verdict == "PASS"


def test_one_run_that_counts_is_no_repeat(tmp_path: Path) -> None:
    found = together(run(tmp_path, 1), run(tmp_path, 2, "hogs"), run(tmp_path, 3, "hogs"))
    assert found.verdict == "INCONCLUSIVE"
    assert found.sentence.startswith("only 1 of 3 runs can be judged: ")


def test_a_guard_that_tripped_once_is_a_failure_of_all(tmp_path: Path) -> None:
    found = together(run(tmp_path, 1), run(tmp_path, 2), run(tmp_path, 3, "guard"))
    assert found.verdict == "FAIL"


def test_a_runbook_that_failed_once_failed(tmp_path: Path) -> None:
    found = together(run(tmp_path, 1), run(tmp_path, 2), run(tmp_path, 3, "runbook-failed"))
    assert found.verdict == "FAIL"
    assert "runbook region-loss passed in 2 of 3 runs: " in found.sentence


def test_runs_that_differ_more_than_their_seconds_do_widen_the_interval(tmp_path: Path) -> None:
    alike = together(*(run(tmp_path / "a", seed) for seed in (1, 2, 3))).objectives[2]
    apart = together(
        *(run(tmp_path / "b", seed, fault_latency_ms=30.0 + 25.0 * seed) for seed in (1, 2, 3))
    ).objectives[2]
    assert None not in (alike.low, alike.high, apart.low, apart.high)
    assert (apart.high or 0) - (apart.low or 0) > 3 * ((alike.high or 0) - (alike.low or 0))
    assert "in 3 runs (" in apart.sentence


def test_what_one_run_failed_by_itself_does_not_pass(tmp_path: Path) -> None:
    sound, broken = repeat(run(tmp_path, 1)), repeat(run(tmp_path, 2, outage_s=20.0))
    found = combine([broken, *(replace(sound, run=f"run-{number}") for number in range(3, 40))]).objectives[1]
    assert found.low is not None
    assert found.low > 95
    assert (found.failed, found.verdict) == (1, "INCONCLUSIVE")
    assert found.sentence.endswith("1 run failed it alone: the runs differ more than their mean tells")


def test_a_limit_relative_to_the_baseline_is_judged_over_all_runs(tmp_path: Path) -> None:
    for factor, word in ((60.0, "PASS"), (1.05, "FAIL")):
        text = f"p50 < {factor:g} x baseline"
        asked = objective("fault", comparison(text, "p50", "<", factor, relative=True), 10.0)
        prompt = {"extra_objectives": (asked,), "lag_ms": 0.05}
        found = together(*(run(tmp_path / f"{factor}", seed, **prompt) for seed in (1, 2, 3)))
        last = found.objectives[-1]
        assert last.verdict == word
        assert "times the baseline's)" in last.sentence


def test_runs_of_another_plan_are_refused_and_what_differs_is_said(tmp_path: Path) -> None:
    one, other = run(tmp_path, 1), run(tmp_path, 2)
    load_use = other.plan.experiment.load
    assert load_use is not None
    experiment = replace(other.plan.experiment, load=replace(load_use, rate_per_s=80.0))
    other = replace(other, plan=replace(other.plan, experiment=experiment, digest="000000000000"))
    with pytest.raises(
        Refused, match=r"run-2 .* is no repeat of run-1 .*experiment load rate_per_s was 60.0 and is 80.0"
    ):
        together(one, other)
    with pytest.raises(Refused, match="named twice"):
        together(one, one)
    with pytest.raises(Refused, match="two runs of one experiment at least"):
        together(one)


def test_where_no_run_counts_the_first_reason_is_the_sentence(tmp_path: Path) -> None:
    found = together(run(tmp_path, 1, "hogs"), run(tmp_path, 2, "hogs"))
    assert found.sentence.startswith("only 0 of 2 runs can be judged: not to be believed: other programs starved")
    assert {(one.value, one.low, one.high, one.n) for one in found.objectives} == {(None, None, None, 0)}
