"""What several generators rest on, without a process: shards, seals, clocks, silences, and how many it takes."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stormdrill.errors import Refused
from stormdrill.load.arrivals import arrivals
from stormdrill.load.clocks import Compared, Look, compare, drifted
from stormdrill.load.crew import local_workers
from stormdrill.load.launcher import live_of
from stormdrill.load.messages import Progress
from stormdrill.load.sealed import NotSealedError, Seal
from stormdrill.load.vigil import SILENT_AFTER_S, Silences
from stormdrill.load.worker_environment import address_of, worker_of
from stormdrill.model.experiment import LoadUse
from stormdrill.model.profile import Piece, Profile, Stream

STREAMS = (Stream("a", 0.6, {}, 1.0), Stream("b", 0.4, {}, 1.0))
PROFILE = Profile("evening", "u", "poisson", (Piece(0, 0.5), Piece(10, 2), Piece(10, 1)), STREAMS)
TOKEN = "a-token-that-is-long-enough"  # noqa: S105


# --- shards ---


@given(workers=st.integers(1, 9), seed=st.integers(0, 99), poisson=st.booleans())
def test_the_shards_of_all_workers_are_the_load_of_one(workers: int, seed: int, poisson: bool) -> None:
    also = Profile("spike", "u", "constant", (Piece(0, 0), Piece(3, 4), Piece(5, 0)), STREAMS)
    profile = Profile(
        "sum", "u", "poisson" if poisson else "constant", PROFILE.shape, STREAMS, weight=0.5, also=(also,)
    )
    alone = list(itertools.islice(arrivals(profile, 20.0, seed), 200))
    shards = [
        list(itertools.takewhile(lambda item: item.job < 200, arrivals(profile, 20.0, seed, worker=w, workers=workers)))
        for w in range(workers)
    ]
    assert sorted(item for shard in shards for item in shard) == alone
    assert all(item.job % workers == w for w, shard in enumerate(shards) for item in shard)


# --- seals ---


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_what_is_sealed_is_opened_by_the_other_side_in_order_and_once(bodies: list[bytes]) -> None:
    master, worker = Seal(TOKEN, "master", b"1"), Seal(TOKEN, "worker", b"1")
    sealed = [master.close(body) for body in bodies]
    assert [worker.open(message) for message in sealed] == bodies
    for message in sealed:
        with pytest.raises(NotSealedError, match="a second time"):
            worker.open(message)


@pytest.mark.parametrize(
    "reader",
    [Seal(TOKEN + "x", "worker", b"1"), Seal(TOKEN, "worker", b"2"), Seal(TOKEN, "master", b"1"), Seal("", "worker")],
    ids=["another token", "another conversation", "its own side", "no token"],
)
def test_nobody_else_can_open_it(reader: Seal) -> None:
    with pytest.raises(NotSealedError):
        reader.open(Seal(TOKEN, "master", b"1").close(b"begin"))


@given(st.binary(max_size=80), st.integers(0, 79), st.integers(1, 255))
def test_garbage_and_changed_messages_are_not_opened(noise: bytes, place: int, flip: int) -> None:
    worker = Seal(TOKEN, "worker")
    for message in (noise, noise.hex(), None, [noise]):
        with pytest.raises(NotSealedError):
            worker.open(message)
    whole = bytearray(Seal(TOKEN, "master").close(b"x" * 40))
    whole[place] ^= flip
    with pytest.raises(NotSealedError):
        worker.open(bytes(whole))


# --- clocks ---


@given(
    offset_s=st.floats(-1e6, 1e6),
    ways=st.lists(st.tuples(st.floats(1e-5, 0.5), st.floats(1e-5, 0.5)), min_size=1, max_size=20),
)
def test_the_offset_is_never_wrong_by_more_than_the_error(offset_s: float, ways: list[tuple[float, float]]) -> None:
    looks, now_s = [], 100.0
    for there_s, back_s in ways:
        looks.append(Look(now_s, now_s + there_s + offset_s, now_s + there_s + back_s))
        now_s += 1.0
    found = compare(looks)
    assert abs(found.offset_ms - offset_s * 1e3) <= found.error_ms + 1e-3
    assert found.error_ms == found.round_trip_ms / 2


def test_a_clock_that_nobody_told_of_is_not_known() -> None:
    with pytest.raises(ValueError, match="nobody answered"):
        compare([])


def test_what_the_clocks_drifted_apart_is_added_to_the_error() -> None:
    before, after = Compared(100.0, 0.5, 1.0), Compared(103.0, 0.2, 0.4)
    assert drifted(before, after) == Compared(103.0, 3.5, 0.4)
    assert drifted(before, before) == before


# --- silence ---


def test_who_was_heard_and_then_is_not_is_told_once_and_for_how_long() -> None:
    silences = Silences(SILENT_AFTER_S, 0.1)
    silences.heard("a", 0.0)
    silences.heard("b", 0.0)
    told = []
    for tick in range(1, 40):
        silences.heard("b", tick / 10)
        told += silences.look(tick / 10)
    assert [name for name, _ in told] == ["a"]
    assert SILENT_AFTER_S < told[0][1] < SILENT_AFTER_S + 0.2


def test_what_the_watcher_slept_through_is_nobodys_silence() -> None:
    silences = Silences(SILENT_AFTER_S, 0.1)
    silences.look(0.0)
    silences.heard("a", 0.0)
    assert silences.look(60.0) == []
    assert silences.look(60.1) == []
    assert silences.look(61.7) == []  # late again
    for tick in range(20):
        silences.look(61.7 + tick / 10)
    assert silences.look(63.8) == []  # told before, and once only


def test_who_has_ended_is_not_waited_for() -> None:
    silences = Silences(SILENT_AFTER_S, 0.1)
    silences.heard("a", 0.0)
    silences.forget("a")
    assert [silences.look(tick / 10) for tick in range(50)] == [[]] * 50


# --- live figures ---


def test_live_figures_are_the_sum_of_all_workers_and_the_worst_lag() -> None:
    def course(rate: int, lag_ms: float) -> list[Progress]:
        return [Progress(at * 250.0, rate * at, rate * at, rate * at, 0, lag_ms) for at in range(9)]

    live = live_of([course(10, 1.0), course(20, 3.0), []], 2_000.0)
    assert (live.scheduled, live.sent, live.done, live.dropped, live.lag_p99_ms) == (120, 120, 120, 0, 3.0)
    assert live_of([course(10, 1.0)], 4_100.0).sent == 0  # of what is silent nothing is known


# --- how many ---


@pytest.mark.parametrize(
    ("workers", "hosts", "rate", "expected"),
    [(0, (), 100.0, 1), (0, (), 1000.0, 2), (3, (), 100.0, 3), (0, ("a", "b"), 900.0, 0), (1, ("a",), 900.0, 1)],
)
def test_as_many_workers_are_started_as_are_asked_for_or_needed(
    workers: int, hosts: tuple[str, ...], rate: float, expected: int
) -> None:
    use = LoadUse("evening", rate, workers=workers, hosts=hosts)
    assert local_workers(use, PROFILE, ceiling_per_s=1000.0, cores=4) == expected  # it peaks at twice the rate


@pytest.mark.parametrize(
    ("workers", "hosts", "message"),
    [
        (1, (), r"reaches 2500/s, and 1 worker sends at most 1000/s on time; write workers: 3, or ask for at most 500"),
        (0, ("a", "b"), r"2 workers send at most 2000/s on time; write workers: 1, or ask for at most 1000/s"),
        (0, (), r"takes 3 workers of 1000/s each, and this machine has 2 cores; name workers on other machines"),
    ],
)
def test_a_rate_that_they_cannot_send_is_refused_with_how_many_could(
    workers: int, hosts: tuple[str, ...], message: str
) -> None:
    with pytest.raises(Refused, match=message):
        local_workers(LoadUse("evening", 1250.0, workers=workers, hosts=hosts), PROFILE, ceiling_per_s=1000.0, cores=2)


def test_users_who_wait_for_answers_have_no_rate_that_could_be_too_high() -> None:
    use = LoadUse("", 0.0, locustfile="mine.py", users=10)
    assert local_workers(use, None) == 1
    assert local_workers(LoadUse("", 0.0, locustfile="mine.py", users=10, hosts=("a",)), None) == 0


# --- a worker by its environment alone ---

ENVIRONMENT = {"STORMDRILL_LOAD_MASTER": "10.0.0.5:5557", "STORMDRILL_LOAD_TOKEN": TOKEN}


def test_a_worker_can_be_told_everything_by_its_environment() -> None:
    found = worker_of({**ENVIRONMENT, "STORMDRILL_LOAD_NAME": "alpha", "STORMDRILL_LOAD_WAIT": "7s"})
    assert (found.name, found.host, found.port, found.wait_s, found.control) == ("alpha", "10.0.0.5", 5557, 7.0, "")
    assert worker_of(ENVIRONMENT).name  # that of the machine


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"STORMDRILL_LOAD_MASTER": ""}, "give --master HOST:PORT, or set"),
        ({"STORMDRILL_LOAD_MASTER": "here"}, "'here' is no address; write HOST:PORT"),
        ({"STORMDRILL_LOAD_MASTER": "here:99999"}, "is no address"),
        ({"STORMDRILL_LOAD_TOKEN": ""}, "STORMDRILL_LOAD_TOKEN is not set"),
        ({"STORMDRILL_LOAD_TOKEN": "short"}, "is too short"),
        ({"STORMDRILL_LOAD_WAIT": "soon"}, "'soon' is no number of seconds"),
        ({"STORMDRILL_LOAD_WAIT": "nan"}, "'nan' is no number of seconds"),
        ({"STORMDRILL_LOAD_WAIT": "inf"}, "'inf' is no number of seconds"),
        ({"STORMDRILL_LOAD_WAIT": "-1"}, "'-1' is no number of seconds"),
    ],
)
def test_what_a_worker_lacks_is_said_with_what_to_set(change: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        worker_of({**ENVIRONMENT, **change})


def test_an_address_may_be_of_either_family() -> None:
    assert address_of("[::1]:5557") == ("[::1]", 5557)
