"""Workers that people start, on this machine or another: let in, compared, gathered, refused, and lost by name."""

import signal
import socket
import subprocess
import threading
import time
from contextlib import contextmanager

import msgpack
import pytest
import zmq
from load_crew import (
    AHEAD_S,
    TOKEN,
    Counting,
    Crewed,
    Elsewhere,
    Liar,
    address,
    clock_ahead_s,
    in_the_background,
    refusal,
    rows_of,
    worker,
)

from stormdrill import __version__
from stormdrill.errors import Refused, SystemNotReady
from stormdrill.load import wire
from stormdrill.load.messages import Ended
from stormdrill.load.sealed import Seal
from stormdrill.model.event import LoadClockCompared, LoadWorkerLost
from stormdrill.store.records import read_records

pytestmark = pytest.mark.real


@pytest.fixture
def crewed(tmp_path):
    made = Crewed(tmp_path)
    yield made
    made.children.close()


@contextmanager
def readied(crewed):
    """One worker here and one, alpha, as a person starts it on another machine: both wait for the load to begin."""
    with Counting() as server:
        crewed.make(server.url, rate=60.0, workers=1, hosts=("alpha",))
        preparing = in_the_background(crewed)
        with worker("alpha", address(crewed)) as alpha:
            preparing.join(20)
            assert crewed.refused is None
            yield server, alpha


@pytest.fixture
def elsewhere():
    try:
        with Elsewhere() as made:
            yield made
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespace can be made here: {getattr(error, 'stderr', error)}")


def test_a_worker_that_a_person_starts_gets_everything_from_the_master_and_its_records_come_back(crewed):
    with readied(crewed) as (_, alpha):
        crewed.begin().until(1.0)
        assert len(read_records(crewed.load.records()[1])[1]) > 10  # while it goes on: guards judge by them
        ended, closed = crewed.end(2.0)
        assert alpha.wait(5) == 0
        assert "the load has ended" in alpha.stderr.read()
    assert f"STORMDRILL_LOAD_TOKEN={TOKEN} stormdrill load worker --master 127.0.0.1:" in crewed.command
    assert [len(rows) for rows in rows_of(crewed)] == [60, 60]
    assert (ended.scheduled, ended.sent, ended.lost_workers) == (120, 120, 0)
    assert all(item.complete for item in closed)
    before, after = crewed.events(LoadClockCompared)
    assert (before.worker, before.file, before.when, after.when) == (
        "alpha",
        "load/worker-1.records",
        "before",
        "after",
    )
    assert abs(before.offset_ms) <= before.error_ms + 0.01  # one machine, one clock
    assert after.error_ms >= before.error_ms - 1e-9 or after.round_trip_ms < before.round_trip_ms
    assert not crewed.stopped


def test_whoever_is_not_of_the_run_is_refused_with_a_sentence_and_the_run_says_who_is_missing(crewed):
    crewed.make("http://127.0.0.1:9", workers=0, hosts=("alpha", "beta"), limit_s=9.0)
    preparing = in_the_background(crewed)
    place = address(crewed)
    with (
        worker("alpha", place) as first,
        worker("gamma", place) as stranger,
        worker("beta", place, token="another-token-than-the-run-has") as liar,  # noqa: S106
    ):
        assert "alpha is in" in first.stderr.readline()
        with worker("alpha", place) as second:
            assert second.wait(20) == 2
            assert "a worker named 'alpha' is there already" in second.stderr.read()
        assert stranger.wait(20) == 2
        assert "the experiment names no host 'gamma'; it names alpha, beta" in stranger.stderr.read()
        assert liar.wait(20) == 2
        assert "the token is not that of this run" in liar.stderr.read()
        preparing.join(20)
    assert isinstance(crewed.refused, SystemNotReady)
    assert "load workers are missing: beta never became ready" in str(crewed.refused)
    assert crewed.gone()


def test_a_worker_of_another_version_is_refused_with_both(crewed, tmp_path):
    (tmp_path / "older").mkdir()
    (tmp_path / "older" / "sitecustomize.py").write_text("import stormdrill\nstormdrill.__version__ = '0.0.1'\n")
    crewed.make("http://127.0.0.1:9", workers=0, hosts=("alpha",), limit_s=6.0)
    preparing = in_the_background(crewed)
    place = address(crewed)
    with worker("alpha", place, PYTHONPATH=str(tmp_path / "older")) as older:
        assert older.wait(20) == 2
        why = f"it is of stormdrill 0.0.1, the run of {__version__}; install the same on both"
        assert why in older.stderr.read()
    assert refusal(place, Seal(TOKEN, "worker").close(b"\x81\xa4type\xa5hallo")) == (
        f"it is not of stormdrill {__version__}, as the run is; install the same on both"
    )
    assert "the token is not that of this run" in refusal(place, b"x" * 90)
    preparing.join(20)
    assert isinstance(crewed.refused, SystemNotReady)
    assert crewed.gone()


def test_a_worker_that_finds_no_run_says_so_and_ends():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = f"127.0.0.1:{listener.getsockname()[1]}"
    with worker("alpha", place, wait="1") as alpha:
        assert alpha.wait(20) == 3
        assert f"nobody waits for load workers at {place}" in alpha.stderr.read()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_of_another_machine_that_dies_is_named_within_two_seconds(crewed, number):
    with readied(crewed) as (server, alpha):
        crewed.begin().until(1.0)
        at_s = time.monotonic()
        alpha.send_signal(number)
        assert crewed.wait_for(LoadWorkerLost) - at_s < 2.0
        assert "load worker alpha was lost" in crewed.stopped[0][1]
        ended, closed = crewed.end(1.2)
        assert server.stands_still()
    assert ended.lost_workers == 1
    assert [item.complete for item in closed] == [True, False]
    assert len(rows_of(crewed)[1]) > 10  # what had arrived is kept


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_was_ready_and_went_is_named_when_the_load_is_to_begin(crewed, number):
    with readied(crewed) as (server, alpha):
        alpha.send_signal(number)
        assert crewed.goes("alpha")
        with pytest.raises(SystemNotReady, match="load workers are missing: alpha went before the load began"):
            crewed.begin()
        assert crewed.gone()
        assert server.seen == 0


def test_a_worker_whose_death_nobody_had_noticed_when_the_load_began_is_lost_as_a_later_one(crewed):
    with readied(crewed) as (server, alpha):
        alpha.kill()
        crewed.begin()
        assert crewed.wait_for(LoadWorkerLost) - crewed.epoch_s < 2.0
        ended, _ = crewed.end(0.5)
        assert server.stands_still()
    assert "load worker alpha was lost" in crewed.stopped[0][1]
    assert ended.lost_workers == 1


def test_what_is_no_message_harms_nobody(crewed):
    """A port that is open is knocked at: neither bytes nor Locust's own words from strangers change anything."""
    with Counting() as server:
        crewed.make(server.url, rate=60.0, workers=1, hosts=("alpha",))
        preparing = in_the_background(crewed)
        place = address(crewed)
        host, port = place.split(":")
        with worker("alpha", place), zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
            preparing.join(20)
            with socket.create_connection((host, int(port))) as raw:
                raw.sendall(b"GET / HTTP/1.1\r\n\r\n" * 50)
            stranger.setsockopt(zmq.IDENTITY, b"stranger")  # else Locust can't read whose it is, and looks no further
            stranger.connect(f"tcp://{place}")
            crewed.begin()
            garbage = [
                b"",
                b"\xc1\xff\x00",
                msgpack.dumps(1),
                msgpack.dumps(["stormdrill", b"x" * 100, "alpha"]),
                msgpack.dumps(["quit", None, "alpha"]),
                msgpack.dumps(["client_ready", {"a": []}, "alpha"]),
                msgpack.dumps(["heartbeat", 7, "alpha"]),
                msgpack.dumps(["stats", {}, "alpha"]),
            ]
            for item in garbage * 20:
                stranger.send(item)
            ended, _ = crewed.end(1.5)
            stranger.close(linger=0)
    assert (ended.sent, ended.lost_workers) == (90, 0)
    assert not crewed.stopped


LIES = {
    "noise": (lambda liar: liar.raw(wire.KIND, b"\x00" * 90), "it sent what can't be read: made with another token"),
    "nothing": (lambda liar: liar.raw(wire.KIND, None), "it sent what can't be read: no message of stormdrill's"),
    "another hello": (
        lambda liar: liar.say(wire.Hello("alpha", b"x", __version__, "")),
        "it said who it is a second time",
    ),
    "a failure": (lambda liar: liar.say(wire.Failed("out of memory")), "out of memory"),
    "records that are not there": (
        lambda liar: liar.say(wire.Done(Ended(9, 9, 9, 0, 0, 0, 0, "", 0.1), 1234, "0" * 64)),
        "none of its 1,234 bytes of records arrived",
    ),
    "changed records": (
        lambda liar: (
            liar.say(wire.Report(None, b"{}\n", b"x" * 32)),
            liar.say(wire.Done(Ended(1, 1, 1, 0, 0, 0, 0, "", 0.1), 35, "0" * 64)),
        ),
        "its records arrived changed",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_worker_that_tells_garbage_is_lost_by_name_and_the_others_stop(crewed, lie):
    tell, why = LIES[lie]
    with Counting() as server:
        crewed.make(server.url, rate=60.0, workers=1, hosts=("alpha",))
        preparing = in_the_background(crewed)
        with Liar("alpha", address(crewed)) as alpha:
            answering = threading.Thread(target=alpha.hear, args=(wire.Begin,), daemon=True)
            answering.start()
            preparing.join(20)
            assert crewed.refused is None
            crewed.begin()
            answering.join(10)
            tell(alpha)
            crewed.wait_for(LoadWorkerLost)
            ended, closed = crewed.end(0.5)
            assert server.stands_still()
    (lost,) = crewed.events(LoadWorkerLost)
    assert lost.worker == "alpha"
    assert why in lost.detail
    assert ended.lost_workers == 1
    assert closed[0].complete
    assert not any(item.complete for item in closed[1:])


def test_a_worker_whose_clock_is_another_sends_at_the_same_moments(crewed, elsewhere):
    command = elsewhere.command(AHEAD_S)
    if abs(clock_ahead_s(command) - AHEAD_S) > 10:
        pytest.skip("this kernel has no time namespaces: a worker with another clock could not be tried")
    with Counting(elsewhere.here) as server:
        crewed.make(server.url, rate=50.0, workers=0, hosts=("alpha",), listen=f"{elsewhere.here}:0")
        preparing = in_the_background(crewed)
        with worker("alpha", address(crewed), before=command) as alpha:
            preparing.join(20)
            assert crewed.refused is None
            crewed.begin()
            ended, closed = crewed.end(1.5)
            assert alpha.wait(5) == 0
        assert 0 <= server.first_s - crewed.epoch_s < 0.3
    before, _after = crewed.events(LoadClockCompared)
    assert before.offset_ms == pytest.approx(AHEAD_S * 1000, abs=1000)
    assert 0 < before.error_ms < 50
    header, rows = read_records(crewed.load.records()[0])
    assert header["epoch_mono_ns"] == pytest.approx(crewed.epoch_s * 1e9, abs=1000)
    assert header["clock_error_ms"] == pytest.approx(before.error_ms, abs=1e-3)
    assert (ended.sent, ended.lost_workers, len(rows)) == (75, 0, 75)
    assert all(item.complete for item in closed)


def test_a_worker_that_is_cut_off_is_lost_and_ends_by_itself(crewed, elsewhere):
    with Counting(elsewhere.here) as server:
        crewed.make(server.url, rate=50.0, workers=1, hosts=("alpha",), listen=f"{elsewhere.here}:0")
        preparing = in_the_background(crewed)
        with worker("alpha", address(crewed), before=elsewhere.command()) as alpha:
            preparing.join(20)
            assert crewed.refused is None
            crewed.begin().until(1.0)
            at_s = time.monotonic()
            elsewhere.unplug()
            assert crewed.wait_for(LoadWorkerLost) - at_s < 2.1
            assert alpha.wait(5) == 3
            assert "nothing was heard of the master for" in alpha.stderr.read()
            ended, closed = crewed.end(1.2)
            assert server.stands_still()
    (lost,) = crewed.events(LoadWorkerLost)
    assert lost.worker == "alpha"
    assert (ended.lost_workers, [item.complete for item in closed]) == (1, [True, False])


def test_a_system_that_only_this_machine_reaches_is_refused_for_workers_of_others(crewed):
    with pytest.raises(Refused, match="can't be reached from another machine"):
        crewed.make("http://127.0.0.1:9", hosts=("alpha",), listen="10.231.0.1:5557")


def test_an_address_that_cannot_be_listened_at_is_refused_with_its_name(crewed):
    crewed.make("http://127.0.0.1:9", workers=2, listen="192.0.2.1:5557")
    with pytest.raises(Refused, match=r"workers can't be waited for at 192\.0\.2\.1:5557"):
        crewed.load.prepare(crewed.children)
    assert crewed.gone()
