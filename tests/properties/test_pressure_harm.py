"""More harm never makes a backpressure check better, and nothing that isn't evidence changes one."""

from __future__ import annotations

from functools import cache
from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pressing import GOODNESS, Told, checked, retold, seeing, with_fault
from stormdrill.core.backpressure.asked import ASKED
from stormdrill.core.backpressure.slope import theil_sen
from stormdrill.core.evidence import Evidence
from stormdrill.model.system import HopCounters
from stormdrill.store.records import Outcome
from synthetic_overload import EDGE, GATEWAY, WORKER, simulate

FEW = settings(max_examples=16, deadline=None, derandomize=True)
MANY = settings(max_examples=60, deadline=None, derandomize=True)
STEPS = st.lists(st.floats(0.0, 0.4), min_size=2, max_size=4)


@cache
def sound() -> Evidence:
    """From 10 s: base, a surge from 20 to 30 s, what follows it, and a lower load."""
    return simulate(steps=(), every_s=1.0, after_s=20.0).evidence


def with_rows(found: Evidence, rows: np.ndarray) -> Evidence:
    return replace(found, records=(replace(found.records[0], rows=rows),))


def never_better(words: list[str]) -> None:
    goodness = [GOODNESS[word] for word in words]
    assert goodness == sorted(goodness, reverse=True), words


@MANY
@given(
    st.lists(st.floats(-100, 100), min_size=4, max_size=30),
    st.lists(st.floats(0, 50), min_size=30, max_size=30),
)
def test_growing_more_never_lowers_either_end_of_a_slope(values: list[float], more: list[float]) -> None:
    at_s = np.arange(float(len(values)))
    before = theil_sen(at_s, np.array(values))
    after = theil_sen(at_s, np.array(values) + np.cumsum(more[: len(values)]))
    assert after.low >= before.low - 1e-9
    assert after.value >= before.value - 1e-9
    assert after.high >= before.high - 1e-9


@FEW
@given(st.integers(0, 2**32 - 1), st.lists(st.floats(0.0, 3.0), min_size=3, max_size=5))
def test_a_queue_that_grows_more_is_never_better_bounded(seed: int, rates: list[float]) -> None:
    dice = np.random.default_rng(seed)
    noise = dice.integers(0, 8, 60)

    def told(rate: float) -> list[Told]:
        limit = [(second + 0.0, "queue_limit", GATEWAY, 40.0) for second in range(60)]
        depth = [5.0 + noise[second] + rate * min(10, max(0, second - 20)) for second in range(60)]
        return [*limit, *((second + 0.1, "queue_depth", GATEWAY, float(depth[second])) for second in range(60))]

    never_better([checked(retold(sound(), told(rate)), "bounded-queue").verdict for rate in np.cumsum(rates)])


@FEW
@given(st.integers(0, 2**32 - 1), STEPS)
def test_turning_away_more_of_the_first_tier_never_helps(seed: int, steps: list[float]) -> None:
    found = simulate().evidence
    rows = found.records[0].rows.copy()
    first = np.random.default_rng(seed).permutation(np.flatnonzero(rows["labels"] == 0))
    words, spoilt = [], 0
    for step in [0.0, *steps]:
        until = min(len(first), spoilt + int(step * len(first)))
        rows["status"][first[spoilt:until]], spoilt = 429, until
        words.append(checked(with_rows(found, rows.copy()), "priority", capacity="100/s").verdict)
    never_better(words)


@FEW
@given(st.lists(st.floats(0.0, 0.08), min_size=3, max_size=6))
def test_more_attempts_at_a_hop_never_help(more: list[float]) -> None:
    hops = (HopCounters("edge", "in", "out"),)
    words = []
    for extra in np.cumsum(more):
        rows: list[Told] = []
        for second in range(58):
            rows.append((float(second), "in", EDGE, 50.0 * second))
            rows.append((float(second), "out", EDGE, float(round(50 * (1 + extra) * second))))
        words.append(checked(seeing(retold(sound(), rows), hops=hops), "retry-amplification").verdict)
    never_better(words)


@FEW
@given(st.lists(st.floats(0.1, 4.0), min_size=3, max_size=6), st.sampled_from([0.5, 1.0, 2.0]))
def test_the_same_backlog_gone_later_is_never_better(later: list[float], every_s: float) -> None:
    words = []
    for gone_s in np.cumsum(later):
        rows: list[Told] = []
        for at_s in np.arange(0.0, 58.0, every_s):
            since = at_s - 30.0
            depth = 0.0 if since < -8 or since >= gone_s else 120.0
            rows.append((float(at_s), "queue_depth", WORKER, depth))
        words.append(checked(retold(sound(), rows), "drain", capacity="104/s").verdict)
    never_better(words)


@FEW
@given(st.integers(0, 2**32 - 1), STEPS)
def test_more_bad_requests_after_the_trigger_never_help_recovery(seed: int, steps: list[float]) -> None:
    found = sound()
    rows = found.records[0].rows.copy()
    later = np.random.default_rng(seed).permutation(np.flatnonzero(rows["intended_us"] >= 30e6))
    words, spoilt = [], 0
    for step in [0.0, *steps]:
        until = min(len(later), spoilt + int(step / 4 * len(later)))
        rows["outcome"][later[spoilt:until]] = Outcome.TIMED_OUT
        spoilt = until
        words.append(checked(with_rows(found, rows.copy()), "recovery", capacity="100/s").verdict)
    never_better(words)


@FEW
@given(st.sampled_from(["opens", "closes", "probes", "hedges"]), st.lists(st.floats(0.1, 3.0), min_size=3, max_size=6))
def test_a_breaker_that_does_worse_is_never_judged_better(what: str, steps: list[float]) -> None:
    words = []
    for worse in np.cumsum(steps):
        opens_s, closes_s, per_s, hedged = 1.0, 1.0, 0.5, 0.01
        match what:
            case "opens":
                opens_s = float(worse)
            case "closes":
                closes_s = float(worse)
            case "probes":
                per_s = float(worse)
            case _:
                hedged = float(worse) / 50
        words.append(checked(tripping(opens_s, closes_s, per_s, hedged), "breaker", opens="4s", closes="4s").verdict)
    never_better(words)


def tripping(opens_s: float, closes_s: float, per_s: float, hedged: float) -> Evidence:
    """A fault from 20 to 34 s, and a breaker."""
    rows: list[Told] = []
    probes = 0.0
    for second in range(56):
        is_open = 20 + opens_s <= second < 34 + closes_s
        probes += per_s if is_open else 0.0
        rows += [(float(second), "breaker_open", EDGE, float(is_open)), (float(second), "breaker_probes", EDGE, probes)]
        rows.append((float(second), "hedges", EDGE, 32.0 * second * hedged))
    return with_fault(retold(sound(), rows), 20.0, 34.0)


@FEW
@given(st.sampled_from(tuple(ASKED)), st.integers(0, 2**32 - 1))
def test_the_order_of_records_and_of_the_journals_lines_changes_nothing(word: str, seed: int) -> None:
    found = tripping(2.0, 2.0, 1.0, 0.01)
    rows = np.random.default_rng(seed).permutation(found.records[0].rows)
    events = tuple(Random(seed).sample(found.events, len(found.events)))
    assert checked(replace(with_rows(found, rows), events=events), word) == checked(found, word)


@FEW
@given(st.sampled_from(tuple(ASKED)), st.sampled_from([{"hogs": True}, {"lag_ms": 200.0}]))
def test_tainted_evidence_never_passes_and_never_fails(word: str, taint: dict[str, object]) -> None:
    for defect in ({}, {"metastable": True}, {"inverted": True}, {"leak": 30.0}, {"hop_tries": 1.4}):
        found = with_fault(simulate(**taint, **defect).evidence, 80.0, 86.0)
        assert checked(found, word).verdict in ("INVALID", "INCONCLUSIVE")


@settings(max_examples=8, deadline=None, derandomize=True)
@given(st.integers(3, 80))
def test_a_run_that_ended_before_its_last_stage_has_not_passed(stop_at_s: int) -> None:
    stopped = simulate(stop_at_s=float(stop_at_s))
    for word in ASKED:
        found = checked(stopped, word)
        assert found.sentence
        assert found.verdict != "PASS" or stop_at_s > stopped.stages[-1].start_s
