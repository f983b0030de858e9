"""What each word for a demand's course amounts to, and what is refused of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from stormdrill.core.demand import Demand
from stormdrill.errors import Refused
from stormdrill.model.profile import Profile, Stage
from stormdrill.spec import catalogue
from stormdrill.spec.demand import anchored
from stormdrill.spec.profile import read_profile

Written = Callable[[str], Path]
BASE = "user: platform_user\narrivals: constant\nstreams:\n  all: {share: 100%, deadline: 1s}\n"


@pytest.fixture
def written(tmp_path: Path) -> Written:
    (tmp_path / "loadgen").mkdir()
    (tmp_path / "loadgen" / "base.yaml").write_text(BASE)

    def write(text: str, name: str = "demand") -> Path:
        path = tmp_path / "loadgen" / f"{name}.yaml"
        path.write_text(text if "streams:" in text or "like:" in text else f"like: base\n{text}\n")
        return path

    return write


def rates(profile: Profile, *moments: float) -> list[float]:
    demand = Demand(profile, 1.0)
    return [round(demand.rate_at(at_s), 4) for at_s in moments]


def refusal(path: Path) -> str:
    with pytest.raises(Refused) as refused:
        read_profile(path)
    return "\n".join(f"{one.line}:{one.column}: {one.what}; {one.fix}" for one in refused.value.problems)


def test_a_ramp_goes_from_one_level_to_the_other_and_stays(written: Written) -> None:
    profile = read_profile(written("ramp: {from: 0.2, to: 1, over: 10s, at: 5s}"))
    assert rates(profile, 0, 5, 10, 15, 99) == [0.2, 0.2, 0.6, 1.0, 1.0]


def test_a_spike_is_nothing_but_what_comes_on_top(written: Written) -> None:
    profile = read_profile(written("spike: {factor: 3, at: 10s, for: 6s, rise: 2s, fall: 1s}"))
    assert rates(profile, 0, 9.9, 11, 12, 14.9, 15.5, 16, 60) == [0, 0, 1.5, 3, 3, 1.5, 0, 0]
    based = read_profile(written("spike: {factor: 3, at: 10s, for: 6s, base: 1}"))
    assert rates(based, 0, 10, 15.9, 16) == [1, 3, 3, 1]


@pytest.mark.parametrize("peak", [1, 1.4, 2, 3, 5, 12])
def test_a_day_has_the_asked_rate_as_its_mean_and_its_peak_when_it_is_busiest(written: Written, peak: float) -> None:
    profile = read_profile(written(f"day: {{length: 240s, peak: {peak}, busiest: 20h}}"))
    assert Demand(profile, 10.0).expected(240) == pytest.approx(2400)
    assert Demand(profile, 1.0).peak_rate() == pytest.approx(peak)
    assert rates(profile, 200) == [peak]
    assert min(rates(profile, *range(240))) >= 0


def test_a_day_may_begin_at_any_hour_and_be_followed_by_others(written: Written) -> None:
    profile = read_profile(written("day: {length: 24s, busiest: 20h, begin: 18h, days: 2}"))
    assert rates(profile, 2, 26) == [3.0, 3.0]
    assert Demand(profile, 1.0).expected(48) == pytest.approx(48)


def test_a_months_last_days_grow_to_their_factor(written: Written) -> None:
    profile = read_profile(written("month_end: {length: 100s, days: 10, last: 3, factor: 8, peak: 1.5}"))
    (course,) = Demand(profile, 1.0).courses
    days = [course.between(10 * day, 10 * day + 10) for day in range(10)]
    assert sum(days) == pytest.approx(100)
    assert [day / days[0] for day in days] == pytest.approx([1, 1, 1, 1, 1, 1, 1, 2, 4, 8])


def test_survivors_get_what_the_lost_ones_had(written: Written) -> None:
    assert rates(read_profile(written("failover: {of: 4, lost: 1, at: 5s}")), 4.9, 5, 99) == [1, 1.3333, 1.3333]
    back = read_profile(written("failover: {of: 2, lost: 1, at: 5s, for: 10s}"))
    assert rates(back, 4.9, 5, 14.9, 15) == [1, 2, 2, 1]


def test_a_backlog_comes_on_top_until_all_of_it_was_sent(written: Written) -> None:
    profile = read_profile(written("backlog: {of: 30s, over: 20s, at: 10s}"))
    assert rates(profile, 9, 10, 29, 30) == [1, 2.5, 2.5, 1]
    assert Demand(profile, 60.0).expected(60) == pytest.approx(60 * 60 + 60 * 30)


def test_a_staircase_is_level_steps_and_says_which(written: Written) -> None:
    profile = read_profile(written("steps: {factors: [0.5, 1, 2], each: 5s, at: 10s}"))
    assert rates(profile, 0, 10, 14.9, 15, 20, 24.9, 25) == [1, 0.5, 0.5, 1, 2, 2, 1]
    assert [(one.role, one.start_s, one.end_s, one.factor) for one in profile.stages] == [
        ("step", 10, 15, 0.5),
        ("step", 15, 20, 1),
        ("step", 20, 25, 2),
    ]


def test_a_staircase_may_be_said_by_its_ends_and_its_ratio(written: Written) -> None:
    profile = read_profile(written("steps: {from: 0.5, to: 3, ratio: 2, each: 5s}"))
    assert [stage.factor for stage in profile.stages] == [0.5, 1, 2, 3]
    exact = read_profile(written("steps: {from: 1, to: 8, ratio: 2, each: 5s}"))
    assert [stage.factor for stage in exact.stages] == [1, 2, 4, 8]


def test_episodes_are_every_load_with_every_trigger_of_every_duration(written: Written) -> None:
    profile = read_profile(
        written(
            "episodes:\n  loads: [0.5, 0.8]\n  triggers: [2, 3]\n  durations: [1s, 2s]\n  base: 4s\n  hold: 6s\n"
            "  down: {to: 0.2, steps: 3, each: 2s}\n  rest: 3s"
        )
    )
    stages = profile.stages
    assert {stage.episode for stage in stages} == set(range(1, 9))
    first = [stage for stage in stages if stage.episode == 1]
    assert [stage.role for stage in first] == ["base", "trigger", "after", "down", "down", "down", "rest"]
    assert [stage.factor for stage in first] == pytest.approx([0.5, 2, 0.5, 0.4, 0.3, 0.2, 0.05])
    asked = {(base.factor, trigger.factor, trigger.end_s - trigger.start_s) for base, trigger in _surges(profile)}
    assert asked == {(load, size, lasts) for load in (0.5, 0.8) for size in (2, 3) for lasts in (1, 2)}
    assert all(later.start_s == earlier.end_s for earlier, later in itertools.pairwise(stages))
    demand = Demand(profile, 1.0)
    assert all(demand.rate_at((one.start_s + one.end_s) / 2) == pytest.approx(one.factor) for one in stages)


def _surges(profile: Profile) -> list[tuple[Stage, Stage]]:
    bases = [stage for stage in profile.stages if stage.role == "base"]
    triggers = [stage for stage in profile.stages if stage.role == "trigger"]
    return list(zip(bases, triggers, strict=True))


def test_times_that_count_from_a_phase_are_moved_there_and_what_holds_before_it_is_said(written: Written) -> None:
    burst = read_profile(written("from: fault\nspike: {factor: 3, at: 2s, for: 4s}"))
    assert burst.since == "fault"
    placed = anchored(burst, lambda phase: {"fault": 25.0}[phase])
    assert placed.since is None
    assert rates(placed, 0, 24, 26.9, 27, 30.9, 31) == [0, 0, 0, 3, 3, 0]
    shape = read_profile(written("from: fault\nshape: [{at: 0s, factor: 2}, {at: 5s, factor: 3}]"))
    assert rates(anchored(shape, lambda _: 10.0), 0, 9.9, 10, 15) == [1, 1, 2, 3]
    ramp = read_profile(written("from: recovery\nramp: {from: 0.5, to: 1, over: 2s}"))
    assert rates(anchored(ramp, lambda _: 10.0), 0, 10, 12) == [0.5, 0.5, 1]
    stairs = read_profile(written("from: fault\nsteps: {factors: [2, 3], each: 5s}"))
    moved = anchored(stairs, lambda _: 10.0)
    assert [(stage.start_s, stage.end_s) for stage in moved.stages] == [(10, 15), (15, 20)]
    assert rates(moved, 0, 9.9, 10, 15, 20) == [1, 1, 2, 3, 1]


def test_a_profile_that_is_like_another_has_its_user_arrivals_and_streams(written: Written) -> None:
    base, like = read_profile(written(BASE, "base")), read_profile(written("ramp: {over: 1s}"))
    assert (like.user, like.arrivals, like.streams) == (base.user, base.arrivals, base.streams)
    own = read_profile(written("like: base\narrivals: poisson\nstreams: {some: {share: 100%, deadline: 2s}}"))
    assert (own.user, own.arrivals, own.streams[0].name) == ("platform_user", "poisson", "some")
    shipped = read_profile(written("like: steady\nramp: {over: 1s}"))
    assert len(shipped.streams) == len(read_profile(catalogue.root() / "loadgen/steady.yaml").streams)


def test_a_client_tries_again_as_the_profile_says(written: Written) -> None:
    profile = read_profile(written("retry: {attempts: 3, wait: 200ms, jitter: 20%, obey: false, share: 10%}"))
    assert profile.retry is not None
    assert (profile.retry.attempts, profile.retry.wait_s, profile.retry.jitter) == (3, 0.2, 0.2)
    assert (profile.retry.obey, profile.retry.share) == (False, 0.1)
    plain = read_profile(written("retry: {attempts: 2}")).retry
    assert plain is not None
    assert (plain.wait_s, plain.jitter, plain.obey, plain.share) == (0.1, 0.5, True, 1.0)


@pytest.mark.parametrize("path", sorted((catalogue.root() / "loadgen").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_profile_is_a_demand(path: Path) -> None:
    profile = read_profile(path)
    assert profile.description
    assert Demand(profile, 60.0).expected(60.0) > 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ramp: {over: 0s}", "2:14: a time of 0s; write for instance 10s"),
        ("ramp: {from: 0, to: 0, over: 1s}", "2:21: a ramp without any arrivals"),
        ("ramp: {}", "2:7: ramp lacks over; add over: 10s"),
        ("spike: {factor: 1, for: 5s, rise: 3s, fall: 3s}", "2:25: rise and fall take longer than the 5s"),
        ("spike: {factor: 1, for: 5s, base: 1}", "2:17: a spike that is no higher than its base, 1"),
        ("day: {length: 1m, busiest: 25h}", "2:28: 25h is more than the 24 hours of a day"),
        ("day: {length: 1m, peak: 0.5}", "2:25: 0.5 is too small; write at least 1"),
        ("month_end: {length: 1m, days: 3, last: 3}", "2:40: 3 busy days of 3: no plain one is left"),
        ("failover: {of: 2, lost: 2}", "2:25: 2 of 2 lost: nobody survives"),
        ("failover: {of: 2, for: 0s}", "2:24: a time of 0s"),
        ("backlog: {of: 10s, over: 0s}", "2:26: a time of 0s"),
        ("steps: {each: 5s}", "2:8: a staircase without its steps; write factors: [1, 2, 3]"),
        ("steps: {each: 5s, factors: [1], to: 2}", "2:28: factors, and from, to or ratio besides"),
        ("steps: {each: 5s, from: 2, to: 1, ratio: 2}", "2:32: the staircase doesn't rise from 2 to 1"),
        ("steps: {each: 5s, from: 0.001, to: 1000, ratio: 1.01}", "2:49: more than 200 steps; write a larger ratio"),
        ("steps: {each: 5s, factors: [0]}", "2:29: 0 is too small; write at least 0.001"),
        ("ramp: {over: 1s}\nspike: {factor: 2, for: 1s}", "3:1: spike besides ramp: a profile's rate moves in one way"),
        ("from: fualt\nramp: {over: 1s}", "2:7: unknown value fualt for from; write fault"),
        (
            "from: fault",
            "2:1: from: fault, and nothing in this profile that has a time; remove it",
        ),
        ("rmap: {over: 1s}", "2:1: unknown key rmap in the profile; write ramp"),
        ("retry: {attempts: 0}", "2:19: 0 is too small; write at least 1"),
        ("retry: {attempts: 3, share: 10}", "2:29: 10 is not a share in percent: it has no unit; write 10%"),
        ("like: itself", "there is no loadgen/itself.yaml"),
        ("like: bsae", "1:7: there is no loadgen/bsae.yaml; write base"),
        ("user: platform_user", "the profile lacks streams; add streams: …, or like: steady"),
    ],
)
def test_what_can_t_be_a_demand_is_refused_where_it_stands(written: Written, text: str, said: str) -> None:
    path = written(text)
    if text.startswith("user:"):
        path.write_text(text)
    assert said in refusal(path)


def test_a_chain_of_likenesses_is_refused_with_what_to_write(written: Written) -> None:
    written("like: base", "middle")
    assert "1:7: middle is like base itself; write base" in refusal(written("like: middle"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("loads: [0.5, 0.5]", "3:10: one of them stands twice; remove it"),
        ("triggers: [0.6]", "a trigger of 0.6 does not rise above the load 0.8"),
        ("durations: [0s]", "a time of 0s"),
        ("down: {to: 0.5, each: 1s}", "a way down to 0.5 that ends no lower than the load 0.5"),
        ("idle: 0.5", "a rest of 0.5 that asks no less than the load"),
        ("triggers: [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]", "68 episodes"),
    ],
)
def test_episodes_that_could_show_nothing_are_refused(written: Written, change: str, said: str) -> None:
    table = {
        "loads": "[0.5, 0.8]",
        "triggers": "[2]",
        "durations": "[1s, 2s]",
        "base": "4s",
        "hold": "6s",
    }
    key, _, value = change.partition(": ")
    table[key] = value
    text = "episodes:\n" + "".join(f"  {name}: {told}\n" for name, told in table.items())
    assert said in refusal(written(text))
