import itertools
import statistics

import pytest

from stormdrill.errors import Refused
from stormdrill.load.arrivals import Demand, arrivals
from stormdrill.load.ceiling import CEILING_PER_S, refuse_beyond_ceiling
from stormdrill.model.profile import Piece, Profile, Stream

ONE = (Stream("one", 1.0, {"tier": "1"}, 1.0),)


def profile(arrivals="constant", shape=(), streams=ONE):
    return Profile("p", "user", arrivals, tuple(Piece(*piece) for piece in shape), streams)


def before(items, at_s):
    return list(itertools.takewhile(lambda item: item.at_s < at_s, items))


def test_constant_arrivals_are_evenly_apart_and_exactly_as_many_as_asked():
    found = before(arrivals(profile(), 500, seed=1), 60)
    assert len(found) == 30_000
    gaps = [later.at_s - earlier.at_s for earlier, later in itertools.pairwise(found)]
    assert max(gaps) - min(gaps) < 1e-9


def test_the_rate_is_as_asked_before_the_first_piece_and_then_the_pieces():
    demand = Demand(profile(shape=[(30, 3), (40, 1), (50, 1), (50, 2)]), 10)
    assert demand.expected(30) == 300
    assert demand.expected(35) == pytest.approx(300 + 5 * 25)
    assert demand.expected(40) == pytest.approx(300 + 10 * 20)
    assert demand.expected(50) == pytest.approx(500 + 10 * 10)
    assert demand.expected(60) == pytest.approx(600 + 10 * 20)
    assert demand.peak_rate() == 30


def test_arrivals_end_where_the_demand_ends_for_good():
    found = list(arrivals(profile(shape=[(0, 1), (10, 1), (10, 0)]), 7, seed=1))
    assert len(found) == 70
    assert found[-1].at_s < 10


def test_a_pause_in_the_demand_is_waited_through():
    found = before(arrivals(profile(shape=[(0, 1), (5, 1), (5, 0), (8, 0), (8, 1)]), 10, seed=1), 10)
    assert len(found) == 70
    assert not [item for item in found if 5 < item.at_s < 8]


def test_pieces_at_all_but_the_same_moment_are_a_step_and_not_an_endless_burst():
    shape = [(0, 1), (2.2e-311, 1.8), (2.2e-308, 4), (4.5e-15, 2), (10, 2)]
    assert len(before(arrivals(profile(shape=shape), 10, seed=1), 10)) == 200


def test_a_ramp_may_begin_at_nothing():
    found = before(arrivals(profile(shape=[(1, 0), (2, 1)]), 0.5, seed=1), 10)
    assert [round(item.at_s, 6) for item in found[:2]] == [1.0, round(2 + 1.5, 6)]


def test_poisson_counts_have_the_mean_and_the_variance_of_poisson():
    # 400 windows of 1 s at 50/s: the standard error of the mean is 0.35, that of the variance 3.5.
    counts = [0] * 400
    for item in before(arrivals(profile("poisson"), 50, seed=3), 400):
        counts[int(item.at_s)] += 1
    assert statistics.mean(counts) == pytest.approx(50, abs=1.5)
    assert statistics.variance(counts) == pytest.approx(50, abs=15)


def test_streams_come_in_their_shares():
    streams = tuple(Stream(name, share, {}, 1.0) for name, share in (("a", 0.5), ("b", 0.3), ("c", 0.2)))
    found = before(arrivals(profile(streams=streams), 1000, seed=5), 20)
    shares = [sum(item.stream == index for item in found) / len(found) for index in range(3)]
    assert shares == pytest.approx([0.5, 0.3, 0.2], abs=0.015)


def test_the_sequence_of_a_seed_never_changes_between_versions():
    streams = (*ONE, Stream("two", 1.0, {}, 1.0))
    found = [
        (item.job, round(item.at_s, 6), item.stream)
        for item in itertools.islice(arrivals(profile("poisson", streams=streams), 10, seed=7), 5)
    ]
    assert found == [(0, 0.155887, 1), (1, 0.186184, 0), (2, 0.284808, 0), (3, 0.329377, 1), (4, 0.559041, 0)]


def test_other_streams_do_not_move_the_times():
    two = (Stream("a", 0.5, {}, 1.0), Stream("b", 0.5, {}, 1.0))
    one_kind = itertools.islice(arrivals(profile("poisson"), 10, seed=7), 50)
    two_kinds = itertools.islice(arrivals(profile("poisson", streams=two), 10, seed=7), 50)
    assert [item.at_s for item in one_kind] == [item.at_s for item in two_kinds]


@pytest.mark.parametrize("rate", [0, -1, float("inf"), float("nan")])
def test_a_rate_that_is_no_rate_is_refused(rate):
    with pytest.raises(ValueError, match="write more than 0/s"):
        Demand(profile(), rate)


def test_pieces_out_of_order_are_refused():
    with pytest.raises(ValueError, match="order of their times"):
        Demand(profile(shape=[(5, 1), (2, 1)]), 10)


def test_a_peak_beyond_the_ceiling_is_refused_with_what_to_ask_for():
    refuse_beyond_ceiling(profile(), CEILING_PER_S)
    with pytest.raises(Refused, match="ask for at most 500/s"):
        refuse_beyond_ceiling(profile(shape=[(0, 1), (10, 3)]), 600, ceiling_per_s=1500)
