"""Attempts per request, at the client and at every hop: the worst is named, counters that begin again don't lie."""

from __future__ import annotations

import pytest

from pressing import checked, named, retold, seeing
from stormdrill.model.system import HopCounters
from synthetic_overload import EDGE, simulate

SHORT = {"steps": (), "every_s": 1.0}
WORD = "retry-amplification"
HOP = (HopCounters("edge", "in", "out"),)


def hop(*, tries: float, again_at: float | None = None, until_s: int = 58) -> list[tuple[float, str, str, float]]:
    """Counters of a service that receives 50 a second; `again_at`: it was started anew and counts from zero."""
    rows, base = [], 0.0
    for second in range(until_s):
        if again_at is not None and second == again_at:
            base = float(second)
        rows.append((second + 0.2, "in", EDGE, 50.0 * (second - base)))
        rows.append((second + 0.2, "out", EDGE, round(50.0 * tries * (second - base))))
    return rows


def test_a_budget_of_retries_passes_and_tells_every_place_and_the_product() -> None:
    found = checked(simulate(), WORD)
    assert found.verdict == "PASS"
    for place in ("the client", "edge", "gateway", "all together"):
        assert place in found.sentence


def test_clients_that_all_try_again_fail_and_are_named() -> None:
    found = checked(simulate(budget=1.0), WORD)
    assert found.verdict == "FAIL"
    assert "most of it at the client" in found.sentence
    assert (named(found, "attempts per request at the client").low or 0) > 1.1


def test_a_hop_that_tries_again_fails_and_is_named_and_only_it() -> None:
    found = checked(simulate(hop_tries=1.4), WORD)
    assert found.verdict == "FAIL"
    assert "most of it at edge" in found.sentence
    assert "the client made" not in found.sentence
    assert "1.4 in the baseline already" in found.sentence


def test_three_layers_of_tries_multiply() -> None:
    found = checked(simulate(hop_tries=1.4, budget=1.0), WORD)
    product = named(found, "attempts per request, all hops together").value
    client, edge = (named(found, f"attempts per request at {place}").value for place in ("the client", "edge"))
    assert product is not None
    assert client is not None
    assert edge is not None
    assert product > client
    assert product > edge


@pytest.mark.parametrize(("tries", "word"), [(1.0, "PASS"), (1.05, "PASS"), (1.3, "FAIL"), (3.0, "FAIL")])
def test_a_counter_that_began_again_is_counted_from_there(tries: float, word: str) -> None:
    for again_at in (None, 25.0):
        evidence = seeing(retold(simulate(**SHORT).evidence, hop(tries=tries, again_at=again_at)), hops=HOP)
        found = checked(evidence, WORD)
        assert found.verdict == word
        value = named(found, "attempts per request at edge").value
        assert value == pytest.approx(tries, rel=0.02)


def test_counters_that_nobody_read_are_no_evidence() -> None:
    found = checked(seeing(simulate(**SHORT).evidence, hops=HOP), WORD)
    assert found.verdict == "INCONCLUSIVE"
    assert "in was never read" in found.sentence


def test_a_hop_that_received_next_to_nothing_says_nothing() -> None:
    rows = [(at_s, metric, name, value / 10) for at_s, metric, name, value in hop(tries=3.0)]
    found = checked(seeing(retold(simulate(**SHORT).evidence, rows), hops=HOP), WORD)
    assert found.verdict == "INCONCLUSIVE"
    assert "100 requests are the fewest" in found.sentence


def test_a_client_that_never_tries_again_makes_one_attempt_a_request() -> None:
    found = checked(seeing(simulate(attempts=1, **SHORT).evidence, hops=()), WORD)
    assert found.verdict == "PASS"
    assert named(found, "attempts per request at the client").value == 1


def test_the_limit_is_the_experiments_to_say() -> None:
    assert checked(simulate(hop_tries=1.4), WORD, most=1.6).verdict == "PASS"


def test_a_run_without_requests_is_inconclusive() -> None:
    found = checked(simulate(stop_at_s=1.0), WORD)
    assert found.verdict in ("INCONCLUSIVE", "INVALID")
