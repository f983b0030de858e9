"""When it opened, what it let through and when it closed, each between two readings; and how much was hedged."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from pressing import EPOCH_MS, Told, checked, named, retold, seeing, with_fault
from stormdrill.core.evidence import Evidence
from stormdrill.model import event as ev
from stormdrill.model.mechanism import Toxic, ToxicKind
from synthetic_overload import EDGE, simulate

WORD = "breaker"
START_S, END_S, UNTIL_S = 12.0, 24.0, 36.0
BASE = {"steps": (), "episode": False, "every_s": 1.0}


def run(
    opens_s: float = 2.0, closes_s: float = 3.0, per_s: float = 1.0, *,
    fault: tuple[float, float | None] = (START_S, END_S), every_s: float = 1.0, hedged: float = 0.01,
) -> Evidence:  # fmt: skip
    """A fault from 12 to 24 s, and a breaker that opened and closed so long after its beginning and its end."""
    told: list[Told] = []
    probes, at_s = 0.0, 0.5
    while at_s < UNTIL_S:
        is_open = START_S + opens_s <= at_s < END_S + closes_s
        probes += per_s * every_s if is_open else 0.0
        told += [(at_s, "breaker_open", EDGE, float(is_open)), (at_s, "breaker_probes", EDGE, float(int(probes)))]
        told += [(at_s, "hedges", EDGE, float(int(32 * at_s * hedged)))]
        at_s += every_s
    return with_fault(retold(simulate(**BASE).evidence, told), *fault)


def test_a_breaker_that_does_what_it_is_for_passes() -> None:
    found = checked(run(), WORD)
    assert found.verdict == "PASS"
    assert named(found, f"time for {EDGE} to open").value == pytest.approx(2.5)
    assert named(found, f"time for {EDGE} to close").value == pytest.approx(3.5)


def test_a_breaker_that_lets_nothing_through_passes_too() -> None:
    found = checked(run(per_s=0.0), WORD)
    assert found.verdict == "PASS"
    assert named(found, f"probes of {EDGE}").value == 0


@pytest.mark.parametrize(
    ("opens_s", "word"), [(0.2, "PASS"), (3.9, "PASS"), (4.9, "INCONCLUSIVE"), (8.0, "FAIL"), (50.0, "FAIL")]
)
def test_opening_is_judged_between_two_readings(opens_s: float, word: str) -> None:
    found = checked(run(opens_s), WORD)
    assert found.verdict == word
    took = named(found, f"time for {EDGE} to open")
    if took.value is not None:
        assert took.low is not None
        assert took.high is not None
        assert took.low <= opens_s <= took.high


@pytest.mark.parametrize(("closes_s", "word"), [(0.2, "PASS"), (8.9, "PASS"), (9.8, "INCONCLUSIVE"), (11.4, "FAIL")])
def test_closing_is_judged_between_two_readings(closes_s: float, word: str) -> None:
    assert checked(run(closes_s=closes_s), WORD).verdict == word


def test_a_breaker_that_never_closes_fails_once_it_was_watched_for_long_enough() -> None:
    found = checked(run(closes_s=99.0), WORD)
    assert found.verdict == "FAIL"
    assert "was still open" in found.sentence
    assert checked(run(closes_s=99.0), WORD, closes="20s").verdict == "INCONCLUSIVE"


@pytest.mark.parametrize(
    ("how", "service", "word"),
    [("stall", "", "INCONCLUSIVE"), ("cut", "", "INCONCLUSIVE"), ("delay", "", "PASS"), ("stall", "shop/feed", "PASS")],
)
def test_a_breaker_that_closes_while_nothing_passes_has_not_passed(how: ToxicKind, service: str, word: str) -> None:
    """On a Service connections that are open go on past the proxy: something passes."""
    told = [
        (second + 0.5, "breaker_open", EDGE, float(START_S + 2 <= second < START_S + 5))
        for second in range(int(UNTIL_S))
    ]
    found = retold(run(), told)
    (injection,) = found.plan.injections
    injection = replace(injection, mechanism=how, how=Toxic(("edge-1>gateway-1",), how, service=service))
    verdict = checked(replace(found, plan=replace(found.plan, injections=(injection,))), WORD)
    assert verdict.verdict == word
    assert ("was closed again 3 s after it opened" in verdict.sentence) == (word != "PASS")


@pytest.mark.parametrize("metric", ["breaker_open", "breaker_probes", "hedges"])
def test_what_falls_silent_when_it_matters_vouches_for_nothing(metric: str) -> None:
    kept = [
        one
        for one in run().events
        if not (
            isinstance(one.event, ev.Reading)
            and one.event.metric == metric
            and START_S + 4 < (one.mono_ms - EPOCH_MS) / 1000 < START_S + 11
        )
        and not (isinstance(one.event, ev.Reading) and metric == "breaker_open" and one.mono_ms > EPOCH_MS + 29e3)
    ]
    found = checked(replace(run(), events=tuple(kept)), WORD)
    assert found.verdict == "INCONCLUSIVE"
    assert "no fresh reading" in found.sentence


def test_a_breaker_that_never_opens_fails_and_a_short_fault_shows_nothing() -> None:
    found = checked(run(opens_s=99.0), WORD)
    assert found.verdict == "FAIL"
    assert "did not open" in found.sentence
    assert checked(run(opens_s=99.0), WORD, opens="12s").verdict == "INCONCLUSIVE"


@pytest.mark.parametrize(("per_s", "word"), [(0.5, "PASS"), (1.0, "PASS"), (10.0, "FAIL")])
def test_what_it_lets_through_while_open_is_counted(per_s: float, word: str) -> None:
    found = checked(run(per_s=per_s), WORD)
    assert found.verdict == word
    assert named(found, f"probes of {EDGE}").value == pytest.approx(per_s, abs=0.1)


@pytest.mark.parametrize(("hedged", "word"), [(0.0, "PASS"), (0.04, "PASS"), (0.2, "FAIL")])
def test_hedges_are_a_small_share_of_the_requests(hedged: float, word: str) -> None:
    assert checked(run(hedged=hedged), WORD).verdict == word


def test_without_a_fault_no_breaker_has_a_reason_to_open() -> None:
    found = checked(simulate(**BASE), WORD)
    assert found.verdict == "INCONCLUSIVE"
    assert "nothing was injected" in found.sentence


def test_a_breaker_that_was_open_before_shows_nothing() -> None:
    found = checked(run(opens_s=-5.0), WORD)
    assert found.verdict == "INCONCLUSIVE"
    assert "was open before any fault was in force" in found.sentence


def test_a_fault_that_was_never_seen_to_be_gone_leaves_closing_open() -> None:
    found = checked(run(fault=(START_S, None)), WORD)
    assert found.verdict == "INCONCLUSIVE"
    assert "never seen to be gone" in found.sentence


def test_a_breaker_that_told_nothing_is_inconclusive() -> None:
    found = checked(retold(run(), (), without=["breaker_open"]), WORD)
    assert found.verdict == "INCONCLUSIVE"
    assert "breaker_open was never read" in found.sentence
    assert checked(retold(run(), (), without=["breaker_probes"]), WORD).verdict == "INCONCLUSIVE"


def test_only_the_breakers_that_are_named_after_what_was_hit_must_open() -> None:
    """Of others nobody knows whether the fault concerns them: one at least must open."""
    labelled = []
    for one in run().events:
        reading = one.event
        if isinstance(reading, ev.Reading) and reading.metric == "breaker_open":
            hit = ev.Reading(reading.metric, "gateway-1", reading.value, {"to": EDGE})
            idle = ev.Reading(reading.metric, "gateway-1", 0.0, {"to": "feed"})
            labelled += [replace_event(one, hit), replace_event(one, idle)]
        else:
            labelled.append(one)
    evidence = seeing(replace(run(), events=tuple(labelled)), probes="")
    found = checked(evidence, WORD)
    assert found.verdict == "PASS"
    assert "to=feed" not in found.sentence


def replace_event(one: ev.Recorded, event: ev.Event) -> ev.Recorded:
    return ev.Recorded(one.seq, one.at, one.mono_ms, event)


def test_what_was_read_lies_on_the_journals_clock() -> None:
    found = checked(run(), WORD)
    opened = [one for one in run().events if isinstance(one.event, ev.Reading) and one.event.value == 1.0]
    first = min(one.seq for one in opened if one.event.metric == "breaker_open" and one.mono_ms >= EPOCH_MS + 14_000)  # type: ignore[attr-defined]
    assert first in found.events
