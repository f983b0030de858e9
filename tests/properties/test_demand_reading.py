"""Laws of demand as people write it: whatever stands in a file, it is a demand or it is refused."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stormdrill.core.demand import Demand
from stormdrill.errors import Problem, Refused
from stormdrill.load.arrivals import arrivals
from stormdrill.model.profile import Profile, Stream
from stormdrill.spec.demand import SumError, Term, anchored, parse_sum
from stormdrill.spec.profile import read_profile
from stormdrill.spec.trace import read_trace

STREAMS = "user: platform_user\narrivals: constant\nstreams:\n  all: {share: 100%, deadline: 1s}\n"
factors = st.sampled_from(["0", "0.05", "0.5", "1", "1.5", "3", "20", "1000"])
times = st.sampled_from(["0s", "1ms", "500ms", "2s", "10s", "1m", "2h", "30d"])
counts = st.sampled_from(["1", "2", "3", "7", "31"])
phases = st.sampled_from(["start", "warmup", "fault", "failback"])


def table(**keys: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Any of these keys, each with one of its values."""
    return st.fixed_dictionaries({}, optional=keys).map(
        lambda found: "{" + ", ".join(f"{key.rstrip('_')}: {value}" for key, value in found.items()) + "}"
    )


many_factors = st.lists(factors, max_size=3).map(lambda found: f"[{', '.join(found)}]")
many_times = st.lists(times, max_size=3).map(lambda found: f"[{', '.join(found)}]")
courses = st.one_of(
    table(from_=factors, to=factors, over=times, at=times).map(lambda found: f"ramp: {found}"),
    table(factor=factors, at=times, for_=times, rise=times, fall=times, base=factors).map(lambda f: f"spike: {f}"),
    table(length=times, peak=factors, busiest=times, begin=times, days=counts).map(lambda found: f"day: {found}"),
    table(length=times, days=counts, last=counts, factor=factors, peak=factors).map(lambda f: f"month_end: {f}"),
    table(of=counts, lost=counts, at=times, for_=times).map(lambda found: f"failover: {found}"),
    table(of=times, over=times, at=times).map(lambda found: f"backlog: {found}"),
    table(each=times, factors=many_factors, from_=factors, to=factors, ratio=factors, at=times).map(
        lambda found: f"steps: {found}"
    ),
    table(
        loads=many_factors,
        triggers=many_factors,
        durations=many_times,
        base=times,
        hold=times,
        down=table(to=factors, steps=counts, each=times),
        rest=times,
        idle=factors,
        at=times,
    ).map(lambda found: f"episodes: {found}"),
)


Read = TypeVar("Read")


def read(reader: Callable[[], Read]) -> tuple[Read | None, tuple[Problem, ...]]:
    """What was read, or what is wrong with it."""
    try:
        return reader(), ()
    except Refused as refused:
        return None, refused.problems


def summed(text: str) -> tuple[tuple[Term, ...], SumError | None]:
    try:
        return parse_sum(text), None
    except SumError as error:
        return (), error


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("loadgen")


@given(courses, phases, st.floats(0, 1000))
def test_whatever_is_written_as_a_course_is_a_demand_or_is_refused(
    folder: Path, course: str, since: str, begins_s: float
) -> None:
    path = folder / "drawn.yaml"
    path.write_text(f"{STREAMS}from: {since}\n{course}\n")
    profile, problems = read(lambda: read_profile(path))
    assert all(problem.line and problem.fix for problem in problems)
    if profile is None:
        return
    placed = anchored(profile, lambda _: begins_s)
    assert placed.since is None
    assert all(earlier.at_s <= later.at_s for earlier, later in pairwise(placed.shape))
    demand = Demand(placed, 1.0)
    assert demand.peak_rate() > 0
    last_s = placed.shape[-1].at_s if placed.shape else 0.0
    assert demand.expected(last_s + 1e9) > 0
    for stage in placed.stages:
        assert stage.end_s > stage.start_s
        assert demand.rate_at((stage.start_s + stage.end_s) / 2) == pytest.approx(stage.factor)
    next(arrivals(placed, 1.0, 0), None)


@given(st.text(max_size=60) | st.lists(st.sampled_from(["peak", "+", "x", " ", "2", "0.5", "-", "b"])).map("".join))
def test_a_sum_is_read_or_pointed_into(text: str) -> None:
    terms, error = summed(text)
    assert error is None or (error.what and error.fix and 0 <= error.offset <= len(text))
    for term in terms:
        assert text[term.offset : term.offset + len(term.name)] == term.name
        assert term.weight > 0


lines = st.one_of(
    st.text(max_size=40),
    st.floats(allow_nan=True, allow_infinity=True).map(str),
    st.integers(0, 10**20).map(str),
    st.datetimes().map(lambda found: found.isoformat()),
    st.tuples(st.integers(0, 40), st.integers(0, 99), st.integers(0, 9999)).map(
        lambda found: f"host - - [{found[0]:02d}/Feb/{found[2]:04d}:{found[1]:02d}:59:60 -0930] x"
    ),
)


@settings(deadline=None)  # a recording of two thousand years takes its time on a busy machine
@given(st.lists(lines, max_size=6), st.sampled_from(["auto", "seconds", "milliseconds", "iso", "access-log"]))
def test_whatever_stands_in_a_recording_is_replayed_or_refused(folder: Path, found: list[str], form: str) -> None:
    path = folder / "recorded"
    path.write_text("\n".join(found), errors="replace")
    recorded, problems = read(lambda: read_trace(path, "drawn.times", form))
    assert all(problem.what.isprintable() and problem.fix for problem in problems)
    if recorded is None:
        return
    (folder / "drawn.times").write_text(recorded.text)
    trace = recorded.trace
    profile = Profile("p", "u", "constant", (), (Stream("one", 1.0, {}, 1.0),), trace=trace)
    times = [item.at_s for item in arrivals(profile, trace.mean_per_s, 0, folder=folder)]
    assert len(times) == trace.count == sum(trace.course)
    assert times == sorted(times)
    assert 0 == times[0] <= times[-1] <= trace.length_s
    assert Demand(profile, trace.mean_per_s).expected(trace.length_s * 2) == pytest.approx(trace.count)
