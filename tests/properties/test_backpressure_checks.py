"""More harm never makes a check better, and each defect fails the check that names it, and no other."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from stormdrill.core.backpressure.registry import check_of
from stormdrill.core.backpressure.stages import stages_of
from stormdrill.core.case import Case
from stormdrill.model.verdict import CheckVerdict, Word
from stormdrill.store.records import Flag, Outcome
from synthetic_overload import Simulated, case_of, check_use, simulate

FEW = settings(max_examples=10, deadline=None, derandomize=True)
WORDS = (
    "capacity",
    "goodput-plateau",
    "admitted-latency",
    "cheap-rejection",
    "rejection-contract",
    "littles-law",
)
GOODNESS: dict[Word, int] = {"FAIL": 0, "INVALID": 0, "INCONCLUSIVE": 1, "PASS": 2}
DEFECTS: dict[str, tuple[dict[str, object], Word]] = {
    "capacity": ({"carries": 0.5, "steps": (0.6, 1.0, 1.2, 1.8), "step_s": 14.0, "queue_limit": 24}, "FAIL"),
    "goodput-plateau": ({"collapse": 1.0, "queue_limit": 24, "step_s": 20.0}, "FAIL"),
    "admitted-latency": ({"stragglers": 0.05}, "FAIL"),
    "cheap-rejection": ({"slow_rejection_s": 0.9}, "FAIL"),
    "rejection-contract": ({"bare": 0.05}, "FAIL"),
    "littles-law": ({"hidden_s": 0.15}, "INVALID"),
}
ASKED = {"capacity": {"least": "64/s"}}


def judged(case: Case, word: str) -> CheckVerdict:
    asked = check_use(word, **ASKED.get(word, {}))
    check = check_of(word)
    return check.judge(case, check.parameters(**asked.parameters))


@cache
def sound() -> Simulated:
    return simulate()


@pytest.mark.parametrize("seed", [11, 12, 13])
@pytest.mark.parametrize("word", WORDS)
def test_a_sound_system_passes_every_check(word: str, seed: int) -> None:
    found = judged(case_of(simulate(seed=seed)), word)
    assert found.verdict == "PASS", found.sentence


@pytest.mark.parametrize("seed", [11, 12, 13])
@pytest.mark.parametrize("broken", sorted(DEFECTS))
def test_a_defect_fails_the_check_that_names_it_and_no_other(broken: str, seed: int) -> None:
    knobs, expected = DEFECTS[broken]
    case = case_of(simulate(seed=seed, **knobs))
    found = {word: judged(case, word) for word in WORDS}
    assert found[broken].verdict == expected, found[broken].sentence
    others = {word: one.sentence for word, one in found.items() if word != broken and one.verdict != "PASS"}
    assert others == {}


def spoilt(found: Simulated, where: np.ndarray, how: Outcome) -> Case:
    """The same run with these rows never answered."""
    rows = found.rows.copy()
    rows["outcome"][where] = how
    rows["status"][where] = 0
    rows["flags"][where] |= int(Flag.FINAL)
    evidence = found.evidence
    return Case(evidence.plan, evidence.events, (replace(evidence.records[0], rows=rows),), None)


def overloaded_rows(found: Simulated) -> np.ndarray:
    """Those that were admitted beyond the capacity, in an order of their own."""
    case = case_of(found)
    epoch_ms = found.evidence.records[0].epoch_mono_ns / 1e6
    at_ms = epoch_ms + found.rows["intended_us"] / 1000
    inside = np.zeros(len(found.rows), dtype=np.bool_)
    for stage in stages_of(case):
        if stage.factor >= 2 and stage.role == "step":
            inside |= (at_ms >= stage.settled.start_ms) & (at_ms < stage.settled.end_ms)
    return np.flatnonzero(inside & (found.rows["status"] == 200))


@FEW
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.floats(0.005, 0.3), min_size=2, max_size=4),
    st.sampled_from([Outcome.TIMED_OUT, Outcome.UNFINISHED]),
)
def test_more_time_outs_under_overload_never_make_a_check_better(
    seed: int, steps: list[float], outcome: Outcome
) -> None:
    found = sound()
    order = np.random.default_rng(seed).permutation(overloaded_rows(found))
    before = {word: judged(case_of(found), word).verdict for word in WORDS[:4]}
    until = 0
    for step in steps:
        until = min(len(order), until + int(step * len(order)))
        case = spoilt(found, order[:until], outcome)
        for word in before:
            after = judged(case, word)
            assert GOODNESS[after.verdict] <= GOODNESS[before[word]], (word, after.sentence)
            before[word] = after.verdict


@FEW
@given(st.integers(0, 2**32 - 1), st.lists(st.floats(0.01, 0.4), min_size=2, max_size=4))
def test_more_broken_words_never_make_the_contract_better(seed: int, steps: list[float]) -> None:
    found = sound()
    rejected = np.flatnonzero(found.rows["status"] == 429)
    order = np.random.default_rng(seed).permutation(rejected)
    before, until, evidence = judged(case_of(found), "rejection-contract").verdict, 0, found.evidence
    for step in steps:
        until = min(len(order), until + int(step * len(order)))
        rows = found.rows.copy()
        rows["flags"][order[:until]] &= 255 - int(Flag.RETRY_AFTER)
        case = Case(evidence.plan, evidence.events, (replace(evidence.records[0], rows=rows),), None)
        after = judged(case, "rejection-contract")
        assert GOODNESS[after.verdict] <= GOODNESS[before], after.sentence
        before = after.verdict


@FEW
@given(st.sampled_from(WORDS), st.integers(0, 2**32 - 1))
def test_the_order_of_records_changes_no_check(word: str, seed: int) -> None:
    found = sound()
    evidence = found.evidence
    rows = np.random.default_rng(seed).permutation(found.rows)
    case = Case(evidence.plan, evidence.events, (replace(evidence.records[0], rows=rows),), None)
    assert judged(case, word) == judged(case_of(found), word)
