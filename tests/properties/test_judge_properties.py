"""What no evidence may ever change: the judge is a pure function, harm never helps, nothing is assumed."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from stormdrill.core.evidence import Evidence
from stormdrill.core.judge import judge
from stormdrill.model import event as ev
from stormdrill.model.verdict import Verdict
from stormdrill.store.evidence import load
from stormdrill.store.records import Outcome
from synthetic_run import SCENARIOS, make_run

FEW = settings(max_examples=12, deadline=None, derandomize=True)
FOLDER = TemporaryDirectory(prefix="judge-")
"""Removed when the interpreter ends."""
GOODNESS = {"FAIL": 0, "INCONCLUSIVE": 1, "PASS": 2}


@cache
def evidence(scenario: str = "pass") -> Evidence:
    return load(make_run(Path(FOLDER.name) / scenario, scenario=scenario))


def judged(found: Evidence) -> Verdict:
    return judge(found.plan, found.events, found.records, found.ledger)


def with_rows(found: Evidence, rows: np.ndarray) -> Evidence:  # type: ignore[type-arg]
    return replace(found, records=(replace(found.records[0], rows=rows),))


@FEW
@given(st.sampled_from(sorted(SCENARIOS)), st.integers(0, 2**32 - 1))
def test_the_order_of_records_within_a_file_changes_nothing(scenario: str, seed: int) -> None:
    found = evidence(scenario)
    shuffled = np.random.default_rng(seed).permutation(found.records[0].rows)
    assert msgspec.json.encode(judged(with_rows(found, shuffled))) == msgspec.json.encode(judged(found))


@FEW
@given(st.sampled_from(sorted(SCENARIOS)), st.integers(0, 2**32 - 1))
def test_the_order_of_the_ledger_and_of_the_files_changes_nothing(scenario: str, seed: int) -> None:
    found, random = evidence(scenario), Random(seed)
    record = found.records[0]
    halves = [
        replace(record, file="load/worker-0.records", rows=record.rows[::2]),
        replace(record, file="load/worker-1.records", rows=record.rows[1::2]),
    ]
    ledger = None if found.ledger is None else tuple(random.sample(found.ledger, len(found.ledger)))
    there, back = replace(found, records=tuple(halves)), replace(found, records=tuple(reversed(halves)), ledger=ledger)
    # the two halves are not what the journal closed: the verdict differs from the whole file's, not between them
    assert judged(there).objectives == judged(back).objectives


@FEW
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.floats(0.0, 0.25), min_size=2, max_size=4),
    st.sampled_from([Outcome.TIMED_OUT, Outcome.REFUSED, Outcome.UNFINISHED]),
)
def test_more_bad_requests_never_improve_a_verdict(seed: int, steps: list[float], outcome: Outcome) -> None:
    """Each step spoils some more of the good requests of the same run, spread over it evenly."""
    found = evidence()
    rows = found.records[0].rows.copy()
    order = np.random.default_rng(seed).permutation(len(rows))
    spoilt = 0
    before = judged(found)
    for step in steps:
        until = min(len(rows), spoilt + int(step * len(rows)))
        rows["outcome"][order[spoilt:until]] = outcome
        rows["status"][order[spoilt:until]] = 0
        spoilt = until
        after = judged(with_rows(found, rows.copy()))
        for old, new in zip(before.objectives, after.objectives, strict=True):
            if old.name.startswith("success"):
                assert GOODNESS[new.verdict] <= GOODNESS[old.verdict], (old, new)
                assert new.value is not None
                assert old.value is not None
                assert new.value <= old.value
        before = after


@FEW
@given(st.integers(0, 2**32 - 1), st.lists(st.floats(0.0, 0.3), min_size=2, max_size=4))
def test_more_time_outs_are_never_felt_later_and_never_less(seed: int, steps: list[float]) -> None:
    """By the second in which users first felt it: within one the first that was worse off may be another."""
    found = evidence("not-bitten")
    rows = found.records[0].rows.copy()
    at_us = found.records[0].epoch_mono_ns / 1e3 + rows["intended_us"]
    inject_ms = next(r.mono_ms for r in found.events if isinstance(r.event, ev.InjectStarted))
    inside = np.flatnonzero(at_us / 1000 >= inject_ms)
    order, spoilt, before = np.random.default_rng(seed).permutation(inside), 0, np.inf
    for step in steps:
        until = min(len(order), spoilt + int(step * len(order)))
        rows["outcome"][order[spoilt:until]] = Outcome.TIMED_OUT
        spoilt = until
        (felt_ms,) = {fault.users_ms for fault in judged(with_rows(found, rows.copy())).faults}
        after = np.inf if felt_ms is None else felt_ms // 1000
        assert after <= before
        before = after


TAINTS = {
    "a drop": {"dropped": 1},
    "lag": {"lag_ms": 60.0},
    "a lost worker": {"lost_workers": 1},
    "a missing record": {"unsent": 1},
    "an unclosed file": {"closed": False},
    "a torn file": {"torn": True},
    "another boot": {"boot_id": "another"},
    "strangers": {"hogs": True},
}


@FEW
@given(st.sampled_from(sorted(SCENARIOS)), st.sampled_from(sorted(TAINTS)))
def test_no_run_passes_on_tainted_evidence_and_none_fails_but_for_jobs(scenario: str, taint: str) -> None:
    place = Path(FOLDER.name) / f"{scenario} with {taint}"
    run = make_run(place, **{"scenario": scenario, **TAINTS[taint]})  # type: ignore[arg-type]
    verdict = judged(load(run))
    assert verdict.verdict != "PASS"
    for objective in verdict.objectives:
        if objective.phase.startswith("fault") and "tier" in objective.name:
            assert objective.verdict in ("INVALID", "INCONCLUSIVE")


@FEW
@given(st.sets(st.integers(0, 6), min_size=1))
def test_nothing_passes_without_samples(phases: set[int]) -> None:
    """Whatever labels are left without a single record."""
    found = evidence()
    rows = found.records[0].rows
    kept = rows[~np.isin(rows["labels"], list(phases | {0}))]

    def fewer(recorded: ev.Recorded) -> ev.Recorded:
        if not isinstance(recorded.event, ev.LoadEnded):
            return recorded
        ended = ev.LoadEnded(len(kept), len(kept), 0, 0, 0.1, 0, "")
        return ev.Recorded(recorded.seq, recorded.at, recorded.mono_ms, ended)

    verdict = judged(replace(with_rows(found, kept), events=tuple(map(fewer, found.events))))
    assert verdict.verdict != "PASS"
    for objective in verdict.objectives:
        if "tier" in objective.name:
            assert (objective.verdict, objective.n, objective.value) == ("INCONCLUSIVE", 0, None)


@FEW
@given(st.data())
def test_a_journal_cut_anywhere_is_judged_and_never_passes(data: st.DataObject) -> None:
    """Whatever was written last: no exception, and no PASS before the phases were over."""
    found = evidence()
    over = next(
        i for i, r in enumerate(found.events) if isinstance(r.event, ev.PhaseEntered) and r.event.phase == "end"
    )
    cut = data.draw(st.integers(0, over))
    assert judged(replace(found, events=found.events[:cut])).verdict != "PASS"


@FEW
@given(st.data())
def test_losing_any_one_event_never_turns_another_verdict_into_a_pass(data: st.DataObject) -> None:
    found = evidence(data.draw(st.sampled_from(sorted(set(SCENARIOS) - {"pass"}))))
    told = [i for i, r in enumerate(found.events) if not isinstance(r.event, ev.Reading | ev.HostSampled)]
    lost = data.draw(st.sampled_from(told))
    kept = found.events[:lost] + found.events[lost + 1 :]
    without = judged(replace(found, events=kept)).verdict
    # the event that says what went wrong may be the only witness of it
    witnesses = (ev.GuardTripped, ev.AbortRequested, ev.LoadEnded, ev.AlertChanged, ev.RunbookFinished)
    if not isinstance(found.events[lost].event, witnesses):
        assert without != "PASS"


JUDGE = """
import sys
from pathlib import Path
import msgspec
from stormdrill.core.judge import judge
from stormdrill.store.evidence import load
found = load(Path(sys.argv[1]))
sys.stdout.buffer.write(msgspec.json.encode(judge(found.plan, found.events, found.records, found.ledger)))
"""


def test_the_same_directory_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", scenario="pass", outage_s=14.0)
    found = load(run)
    here = msgspec.json.encode(judged(found))
    for hash_seed in ("1", "4711"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        ran = subprocess.run([sys.executable, "-c", JUDGE, str(run)], env=environment, capture_output=True, check=True)
        assert ran.stdout == here
    assert msgspec.json.encode(judged(found)) == here
