"""Laws of demand and of its records, over random profiles and torn files."""

import hashlib
import itertools
import json
import math
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from stormdrill.load.arrivals import Demand, arrivals
from stormdrill.model.profile import Piece, Profile, Stream, Trace
from stormdrill.store.records import RECORD, UNTOLD, Flag, Outcome, RecordWriter, read_records

pieces = st.lists(st.tuples(st.floats(0, 40, allow_nan=False), st.floats(0, 5, allow_nan=False)), max_size=6).map(
    lambda found: tuple(Piece(at_s, factor) for at_s, factor in sorted(found, key=lambda item: item[0]))
)
shares = st.lists(st.floats(0.01, 1), min_size=1, max_size=5)
kinds = st.sampled_from(["constant", "poisson"])


@st.composite
def profiles(draw, arrivals=kinds):
    streams = tuple(Stream(f"s{index}", share, {}, 1.0) for index, share in enumerate(draw(shares)))
    return Profile("p", "user", draw(arrivals), draw(pieces), streams)


@given(profiles(), st.floats(0.5, 20), st.integers())
def test_the_same_seed_gives_the_same_arrivals_in_order_and_numbered(profile, rate, seed):
    first = list(itertools.islice(arrivals(profile, rate, seed), 100))
    again = list(itertools.islice(arrivals(profile, rate, seed), 100))
    assert first == again
    assert [item.job for item in first] == list(range(len(first)))
    times = [item.at_s for item in first]
    assert times == sorted(times)
    assert all(item.at_s >= 0 and math.isfinite(item.at_s) for item in first)
    assert {item.stream for item in first} <= set(range(len(profile.streams)))


@given(profiles(arrivals=st.just("constant")), st.floats(0.5, 20), st.floats(0, 60))
def test_constant_arrivals_follow_the_integral_to_half_a_request(profile, rate, until_s):
    count = sum(1 for _ in itertools.takewhile(lambda item: item.at_s < until_s, arrivals(profile, rate, 0)))
    assert count == pytest.approx(Demand(profile, rate).expected(until_s), abs=0.5 + 1e-3)


def factor_at(profile: Profile, at_s: float) -> float:
    """λ/rate as the reference page says it, in the plainest way."""
    passed = [piece for piece in profile.shape if piece.at_s <= at_s]
    coming = [piece for piece in profile.shape if piece.at_s > at_s]
    if not passed:
        return 1.0
    if not coming:
        return passed[-1].factor
    start, end = passed[-1], coming[0]
    return start.factor + (end.factor - start.factor) * (at_s - start.at_s) / (end.at_s - start.at_s)


@st.composite
def sums(draw):
    """Two to four demands at the same time, each with a weight."""
    parts = draw(st.lists(profiles(), min_size=2, max_size=4))
    weights = draw(st.lists(st.floats(0.1, 3), min_size=len(parts), max_size=len(parts)))
    names = draw(st.lists(st.sampled_from("pqr"), min_size=len(parts), max_size=len(parts)))
    told = zip(parts, names, weights, strict=True)
    weighed = [replace(part, name=name, weight=weight) for part, name, weight in told]
    return replace(weighed[0], also=tuple(weighed[1:]))


def until(items, at_s: float):
    return list(itertools.takewhile(lambda item: item.at_s < at_s, items))


@given(sums(), st.floats(0.5, 10), st.integers(0, 2**32), st.floats(0, 30))
def test_what_comes_together_is_the_sum_of_what_comes_alone(whole, rate, seed, at_s):
    found = until(arrivals(whole, rate, seed), at_s)
    assert [item.job for item in found] == list(range(len(found)))
    assert [item.at_s for item in found] == sorted(item.at_s for item in found)
    assert {item.stream for item in found} <= set(range(len(whole.every_stream)))
    first = until(arrivals(replace(whole, also=()), rate, seed), at_s)
    own = len(whole.streams)
    assert [item.at_s for item in found if item.stream < own] == [item.at_s for item in first]
    expected = [Demand(replace(part, also=()), rate).expected(at_s) for part in whole.parts]
    assert Demand(whole, rate).expected(at_s) == pytest.approx(sum(expected))
    even = all(part.arrivals == "constant" for part in whole.parts)
    assert not even or len(found) == pytest.approx(sum(expected), abs=len(expected) * (0.5 + 1e-3))


@given(sums(), st.floats(0.5, 10), st.integers(0, 2**32), st.integers(1, 5))
def test_however_many_workers_there_are_they_send_the_same_load(whole, rate, seed, workers):
    alone = until(arrivals(whole, rate, seed), 5.0)
    shards = [until(arrivals(whole, rate, seed, worker=index, workers=workers), 5.0) for index in range(workers)]
    assert sorted(itertools.chain(*shards)) == alone


@given(sums(), st.floats(0.5, 10), st.floats(0, 60))
def test_the_rate_at_a_moment_is_never_above_the_peak(whole, rate, at_s):
    demand = Demand(whole, rate)
    assert demand.rate_at(at_s) <= demand.peak_rate() * (1 + 1e-9)
    # Two pieces at all but the same moment are a step: at the step itself either side may be meant.
    assume(all(abs(at_s - piece.at_s) > 1e-5 for part in whole.parts for piece in part.shape))
    assert demand.rate_at(at_s) == pytest.approx(
        sum(rate * part.weight * factor_at(part, at_s) for part in whole.parts), rel=1e-6, abs=1e-6
    )


moments = st.lists(st.integers(0, 30_000_000), min_size=2, max_size=60).map(
    lambda found: [(moment - min(found)) / 1e6 for moment in sorted(found)]
)


@given(moments.filter(lambda found: found[-1] > 0), st.floats(0.1, 5), st.floats(0.1, 5))
def test_a_recording_comes_as_often_as_its_scale_says_and_at_its_own_moments(traces, found, slower, more):
    text = "".join(f"{moment:.6f}\n" for moment in found)
    (traces / "t.times").write_text(text)
    length_s = found[-1] * len(found) / (len(found) - 1)
    digest = hashlib.sha256(text.encode()).hexdigest()
    trace = Trace("t.times", digest, len(found), length_s, time_scale=slower, rate_scale=more)
    whole = Profile("p", "user", "constant", (), (Stream("one", 1.0, {}, 1.0),), trace=trace)
    scaled = [item.at_s for item in arrivals(whole, trace.mean_per_s, 0, folder=traces)]
    assert len(scaled) == pytest.approx(len(found) * more, abs=0.5 + 1e-6)
    assert scaled == sorted(scaled)
    assert all(0 <= at_s <= found[-1] * slower * (1 + 1e-12) for at_s in scaled)
    as_it_was = replace(whole, trace=replace(trace, time_scale=1.0, rate_scale=1.0))
    again = arrivals(as_it_was, as_it_was.trace.mean_per_s, 0, folder=traces)
    assert [item.at_s for item in again] == found


@pytest.fixture(scope="module")
def traces(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("traces")


@given(profiles(), st.floats(0.5, 20))
def test_the_integral_is_the_area_under_the_rate(profile, rate):
    demand = Demand(profile, rate)
    edges = sorted({0.0, 60.0, *(piece.at_s for piece in profile.shape)})
    area = 0.0
    for start, end in itertools.pairwise(edges):
        # The rate is a straight line between edges, so its middle is its mean.
        area += rate * factor_at(profile, (start + end) / 2) * (end - start)
        assert demand.expected(end) == pytest.approx(area, rel=1e-6, abs=1e-3)


rows = st.tuples(
    st.integers(0, 2**40),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 599),
    st.integers(0, 1),
    st.sampled_from(list(Outcome)),
)


def write(path: Path, records) -> None:
    path.unlink(missing_ok=True)
    labels = [{"labels": {"tier": "1"}, "deadline_ms": 1000.0}, {"labels": {"tier": "ü"}, "deadline_ms": 30_000.0}]
    writer = RecordWriter(
        path, worker=0, boot_id="b", epoch_mono_ns=5, epoch_at="2026-01-01T00:00:00+00:00", labels=labels
    )
    for index, row in enumerate(records):
        names = ("intended_us", "lag_us", "latency_us", "job", "status", "labels", "outcome")
        writer.add(**dict(zip(names, row, strict=True)))
        if index % 3 == 0:
            writer.flush()
    writer.close()


@pytest.fixture(scope="module")
def records_file(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("records") / "worker-0.records"


@given(st.lists(rows, max_size=20), st.data())
def test_whatever_was_written_whole_is_read_back_and_a_torn_tail_is_left_out(records_file, records, data):
    write(records_file, records)
    header, found = read_records(records_file)
    assert header["epoch_mono_ns"] == 5
    assert header["labels"][1]["labels"] == {"tier": "ü"}
    assert [tuple(row)[:7] for row in found.tolist()] == [(*row[:6], int(row[6])) for row in records]
    assert all(tuple(row)[7:] == (row[1], 0, Flag.FINAL, 0, UNTOLD) for row in found.tolist())

    content = records_file.read_bytes()
    start = content.index(b"\n") + 1
    cut = data.draw(st.integers(start, len(content)))
    records_file.write_bytes(content[:cut])
    _, found = read_records(records_file)
    whole = (cut - start) // RECORD.size
    assert [tuple(row)[:7] for row in found.tolist()] == [(*row[:6], int(row[6])) for row in records[:whole]]


@pytest.mark.parametrize("content", [b"", b'{"format": "stormdrill-rec', b"[1]\n", b"{}\n", b"\xff\xfe\n", b"null\n"])
def test_what_is_no_record_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / "worker-0.records"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"worker-0\.records: "):
        read_records(path)


def test_a_later_format_is_refused_and_not_misread(tmp_path):
    path = tmp_path / "worker-0.records"
    path.write_text(json.dumps({"format": "stormdrill-records/3"}) + "\n")
    with pytest.raises(ValueError, match="this version reads stormdrill-records/2"):
        read_records(path)


def test_durations_beyond_the_field_are_kept_as_the_largest(tmp_path):
    path = tmp_path / "worker-0.records"
    write(path, [(0, 2**40, 2**40, 0, 0, 0, Outcome.TIMED_OUT)])
    _, found = read_records(path)
    assert found["latency_us"][0] == found["lag_us"][0] == 2**32 - 1


def test_a_second_writer_of_one_file_is_refused(tmp_path):
    path = tmp_path / "worker-0.records"
    write(path, [])
    with pytest.raises(FileExistsError):
        RecordWriter(path, worker=0, boot_id="", epoch_mono_ns=0, epoch_at="", labels=[])
