import hashlib
import itertools
import statistics

import pytest
from msgspec.structs import replace

from stormdrill.errors import Refused
from stormdrill.load.arrivals import Demand, arrivals
from stormdrill.load.ceiling import CEILING_PER_S, refuse_beyond_ceiling
from stormdrill.model.profile import Piece, Profile, Stage, Stream, Trace

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
    refuse_beyond_ceiling(profile(), CEILING_PER_S, CEILING_PER_S)
    with pytest.raises(Refused, match="2 workers would carry it, or ask for at most 500/s"):
        refuse_beyond_ceiling(profile(shape=[(0, 1), (10, 3)]), 600, ceiling_per_s=1500)


def three_parts():
    """A steady demand, half of a burst, and the same burst again."""
    two = (Stream("a", 0.5, {}, 1.0), Stream("b", 0.5, {}, 1.0))
    burst = replace(profile("poisson", [(0, 0), (5, 0), (5, 2), (8, 2), (8, 0)], two), name="burst", weight=0.5)
    return replace(profile(), also=(burst, burst))


def test_demands_that_come_together_are_merged_in_time_with_numbers_and_streams_of_their_own():
    whole = three_parts()
    found = before(arrivals(whole, 100, seed=3), 10)
    assert [item.job for item in found] == list(range(len(found)))
    assert [item.at_s for item in found] == sorted(item.at_s for item in found)
    assert sum(item.stream == 0 for item in found) == 1000
    assert {whole.every_stream[item.stream].name for item in found if 5 < item.at_s < 8} == {"one", "a", "b"}
    assert {item.stream for item in found if not 5 <= item.at_s <= 8} == {0}


def test_a_part_stays_as_it_is_whatever_is_added_to_it():
    whole = three_parts()
    steady, burst, same = whole.parts
    alone = before(arrivals(replace(steady, also=()), 100, seed=3), 10)
    both = before(arrivals(replace(steady, also=(burst,)), 100, seed=3), 10)
    three = before(arrivals(replace(steady, also=(burst, same)), 100, seed=3), 10)

    def of(found, streams):
        return [(item.at_s, item.stream) for item in found if item.stream in streams]

    assert of(three, {0}) == of(both, {0}) == [(item.at_s, 0) for item in alone]
    assert of(three, {1, 2}) == of(both, {1, 2})
    once = [item.at_s for item in three if item.stream in (1, 2)]
    again = [item.at_s for item in three if item.stream in (3, 4)]
    assert not set(once) & set(again), "the same profile twice is two strangers"


def test_workers_share_one_load_between_them():
    whole = three_parts()
    one = before(arrivals(whole, 200, seed=4), 10)
    shards = [before(arrivals(whole, 200, seed=4, worker=worker, workers=3), 10) for worker in range(3)]
    assert sorted(itertools.chain(*shards)) == one
    assert [{item.job % 3 for item in shard} for shard in shards] == [{0}, {1}, {2}]


def test_a_worker_that_is_none_is_refused():
    with pytest.raises(ValueError, match="worker 2 of 2"):
        arrivals(profile(), 10, 1, worker=2, workers=2)


def replayed(folder, moments, arrivals="constant", **scales):
    """A profile that replays these moments, which lie in `folder`."""
    text = "".join(f"{moment:.6f}\n" for moment in moments)
    (folder / "trace-p.times").write_text(text)
    length_s = moments[-1] * len(moments) / (len(moments) - 1)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return replace(profile(arrivals), trace=Trace("trace-p.times", digest, len(moments), length_s, **scales))


BURSTS = [0.0, 0.01, 0.02, 3.0, 3.0, 3.0, 3.5, 7.25, 9.0, 9.001]


def test_a_recording_is_replayed_at_its_recorded_moments(tmp_path):
    whole = replayed(tmp_path, BURSTS)
    found = list(arrivals(whole, whole.trace.mean_per_s, 1, folder=tmp_path))
    assert [item.at_s for item in found] == BURSTS


def test_a_recording_that_is_stretched_comes_at_the_stretched_moments(tmp_path):
    whole = replayed(tmp_path, BURSTS, time_scale=2.0, start_s=5.0)
    found = list(arrivals(whole, whole.trace.mean_per_s, 1, folder=tmp_path))
    assert [item.at_s for item in found] == [5 + 2 * moment for moment in BURSTS]


def test_a_recording_that_is_multiplied_keeps_the_shape_of_its_bursts(tmp_path):
    whole = replayed(tmp_path, BURSTS, rate_scale=3.0)
    found = [item.at_s for item in arrivals(whole, whole.trace.mean_per_s, 1, folder=tmp_path)]
    assert len(found) == 30
    # Of three for each, the middle one is at the recorded moment; the others lie on the way from and to its neighbours.
    assert found[1::3] == pytest.approx(BURSTS)
    assert sum(item == 3.0 for item in found) >= 7


def test_an_asked_rate_is_the_replays_mean(tmp_path):
    whole = replayed(tmp_path, BURSTS, rate_scale=3.0)
    assert len(list(arrivals(whole, 10.0, 1, folder=tmp_path))) == round(10 * whole.trace.length_s)


def test_a_shape_multiplies_the_recording(tmp_path):
    whole = replace(replayed(tmp_path, BURSTS), shape=(Piece(0, 1), Piece(5, 1), Piece(5, 4)))
    found = [item.at_s for item in arrivals(whole, whole.trace.mean_per_s, 1, folder=tmp_path)]
    assert sum(item <= 3.5 for item in found) == 7
    assert sum(item > 3.5 for item in found) == pytest.approx(12, abs=2)


def test_a_recording_that_is_not_the_planned_one_is_refused(tmp_path):
    whole = replayed(tmp_path, BURSTS)
    (tmp_path / "trace-p.times").write_text("0\n1\n")
    with pytest.raises(ValueError, match="not the recording that was planned"):
        arrivals(whole, 1.0, 1, folder=tmp_path)
    with pytest.raises(ValueError, match="can't be read: No such file"):
        arrivals(whole, 1.0, 1, folder=tmp_path / "elsewhere")


def test_the_stages_of_all_parts_are_known_in_order_and_as_shares_of_the_asked_rate():
    late = replace(profile(), name="late", weight=0.5, stages=(Stage("step", 10, 15, 2.0),))
    early = replace(profile(), stages=(Stage("step", 0, 5, 1.0), Stage("step", 12, 14, 3.0)), also=(late,))
    found = [(stage.start_s, stage.factor) for stage in early.every_stage]
    assert found == [(0, 1.0), (10, 1.0), (12, 3.0)]
