"""How a run ends, on the terminal and as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec.structs import replace

from stormdrill.cli import report
from stormdrill.errors import Problem
from stormdrill.model.verdict import (
    FaultVerdict,
    LoadVerdict,
    ObjectiveVerdict,
    RunbookVerdict,
    StepVerdict,
    Times,
    Verdict,
    Word,
)

CONTRACT = {"run", "dir", "status", "verdict", "objectives", "backpressure", "faults", "load", "runbook", "review"}


DRAIN = StepVerdict("drain", "action", "ok", 9.0)


@dataclass(frozen=True)
class Ended:
    run: str
    dir: Path
    verdict: Verdict
    exit_code: int
    head: str = "8d02aa00c1"
    note: str = ""
    problems: tuple[Problem, ...] = ()


def objective(name: str, verdict: Word, value: float | None, low: float | None, high: float | None, **more: object):  # type: ignore[no-untyped-def]
    unit = str(more.get("unit", ""))
    n = int(str(more.get("n", 600)))
    return ObjectiveVerdict(name, "fault after 10s", verdict, value, low, high, 95.0, unit, n, f"why {name}")


def verdict_of(*objectives: ObjectiveVerdict, word: Word = "PASS", reverted: bool = True) -> Verdict:
    return Verdict(
        run="r1",
        status="completed" if reverted else "dirty",
        verdict=word,
        sentence="3 of 3 objectives held.",
        objectives=objectives,
        faults=(FaultVerdict("region-loss", "gateway-eu", True, True, 2.0, reverted, 3.0, "state T after SIGCONT"),),
        load=LoadVerdict(4500, 4500, 0, 0, 0.8, True, ""),
        runbook=RunbookVerdict(
            "region-loss", "PASS", "alert(RegionDown)", (StepVerdict("drain", "action", "ok", 9.0),), ""
        ),
        times=Times(),
    )


HELD = (
    objective("success{tier=1} > 95%", "PASS", 99.2, 98.1, 99.7, unit="%"),
    objective("p95{tier=1} < 400ms", "PASS", 238.0, 221.0, 262.0, unit="ms"),
    objective("alert(RegionDown) within 10s", "PASS", 2.4, None, None, unit="s", n=0),
    objective("jobs_lost = 0", "PASS", 0.0, None, None, n=4006),
)


def test_asked_and_measured_stand_side_by_side_with_their_units() -> None:
    text = "\n".join(report.table_lines(verdict_of(*HELD)))
    for row in ("> 95%     99.2%  [98.1, 99.7]    600", "< 400 ms    238 ms    [221, 262]    600", "4,006"):
        assert row in text
    assert "< 10 s     2.4 s" in text
    assert "jobs lost" in text


def test_a_window_is_written_as_people_say_it_and_keeps_its_key_in_json(tmp_path: Path) -> None:
    verdict = verdict_of(replace(HELD[0], phase="failback after 2s"), replace(HELD[1], phase="warmup"))
    _, back, warm = report.table_lines(verdict)
    assert "  fail-back after 2s  " in back
    assert "  warm-up  " in warm
    made = report.result_object(Ended("r1", tmp_path, verdict, 0))
    assert [one["phase"] for one in made["objectives"]] == ["failback after 2s", "warmup"]  # type: ignore[attr-defined]


def test_the_verdict_and_its_sentence_come_first() -> None:
    assert report.verdict_lines(verdict_of(*HELD))[0] == "  PASS   3 of 3 objectives held."


def test_an_objective_that_did_not_hold_is_named_in_its_row_and_explained_below() -> None:
    failed = objective("success{tier=1} > 95%", "FAIL", 61.0, 57.0, 65.0, unit="%")
    lines = report.verdict_lines(verdict_of(failed, word="FAIL"))
    assert any(line.startswith("  FAIL  success{tier=1}") for line in lines)
    assert any("why success{tier=1} > 95%" in line for line in lines)


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_narrow_terminal_gets_a_block_an_objective(width: int) -> None:
    assert max(len(line) for line in report.verdict_lines(verdict_of(*HELD), width)) <= width


def test_a_dirty_end_says_what_is_left_and_how_to_mend_it(tmp_path: Path) -> None:
    lines = report.closing_lines(Ended("r1", tmp_path, verdict_of(*HELD, reverted=False), 5))
    assert "  DIRTY    region-loss on gateway-eu: state T after SIGCONT" in lines
    assert "  mend     stormdrill recover r1" in lines


def test_what_was_refused_while_it_was_set_up_is_told_without_a_table_of_what_never_came(tmp_path: Path) -> None:
    why = Problem("", 0, 0, "the watchdog (x:1) did not begin: ImagePullBackOff", "push it")
    lines = report.closing_lines(Ended("r1", tmp_path, verdict_of(*HELD, word="INCONCLUSIVE"), 2, problems=(why,)))
    assert "  refused  the watchdog (x:1) did not begin: ImagePullBackOff; push it" in lines
    assert not any("objectives held" in line or "success" in line for line in lines)
    assert lines[-1].startswith("  record ")


def test_json_has_the_keys_of_the_contract_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "review.md").write_text("")
    made = json.loads(json.dumps(report.result_object(Ended("r1", tmp_path, verdict_of(*HELD), 0))))
    assert set(made) == CONTRACT
    assert set(made["objectives"][0]) == {"name", "phase", "verdict", "value", "low", "high", "limit", "n"}
    assert made["faults"] == [
        {"name": "region-loss", "target": "gateway-eu", "effect_ms": 2.0, "reverted": True, "revert_ms": 3.0}
    ]
    assert made["load"] == {"scheduled": 4500, "sent": 4500, "dropped": 0, "lag_p99_ms": 0.8}
    assert made["runbook"]["steps"] == [{"step": "drain", "kind": "action", "outcome": "ok"}]
    assert made["review"] == {"markdown": str(tmp_path / "review.md"), "html": None}


def test_a_run_that_is_refused_while_it_is_set_up_has_its_problems_besides(tmp_path: Path) -> None:
    held = Problem("", 0, 0, "run r0 holds the cluster", "wait for it")
    made = report.result_object(Ended("r1", tmp_path, verdict_of(*HELD), 2, problems=(held,)))
    assert set(made) == CONTRACT | {"problems"}
    assert made["problems"] == [
        {"where": "", "line": 0, "column": 0, "what": "run r0 holds the cluster", "fix": "wait for it"}
    ]


def test_a_refused_run_has_the_same_keys_and_its_problems() -> None:
    made = report.refusal_object([Problem("a.yaml", 3, 5, "unknown key", "write faults")])
    assert set(made) == CONTRACT | {"problems"}
    assert made["problems"] == [
        {"where": "a.yaml", "line": 3, "column": 5, "what": "unknown key", "fix": "write faults"}
    ]


def test_what_users_felt_is_told_once_a_fault() -> None:
    faults = tuple(
        FaultVerdict(
            "region-loss", name, True, True, 2.0, True, 3.0, "", users_ms=31.0, users="users felt it 31 ms after"
        )
        for name in ("gateway-eu", "cpu-eu")
    )
    lines = report.verdict_lines(replace(verdict_of(*HELD), faults=faults))
    assert [line for line in lines if "felt" in line] == ["  users    users felt it 31 ms after"]


def test_a_drain_is_shown_as_the_time_after_which_it_held_beside_what_was_asked() -> None:
    drain = replace(objective("queue_age < 1s within 7s", "PASS", 1.6, None, None, unit="s"), limit=7.0)
    read = replace(objective("queue_age < 1s within 7s", "PASS", 0.6, None, None, unit="s"), limit=1.0)
    alert = replace(objective("alert(RegionDown) within 10s", "PASS", 1.6, None, None, unit="s"), limit=10.0)
    _, *rows = report.table_lines(verdict_of(drain, replace(drain, value=0.0), read, alert))
    assert "< 1 s within 7 s  after 1.6 s" in rows[0]
    assert not any("after" in row.replace("after 10s", "") for row in rows[1:])
