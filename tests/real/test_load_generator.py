"""The generator's process against real servers: what happened is what is recorded, whoever dies."""

import itertools
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
from load_trial import HTTP_USER, Trial, answering, unused_address, written

from stormdrill.errors import Refused, SystemNotReady
from stormdrill.load.arrivals import arrivals
from stormdrill.load.calibrate import null_server
from stormdrill.load.launcher import INSTANCE, LocustLoad
from stormdrill.load.line import GeneratorLine
from stormdrill.model.event import LoadEnded
from stormdrill.model.profile import Profile, Stream
from stormdrill.store.records import RECORD, Flag, Outcome, read_records

pytestmark = pytest.mark.real


@pytest.fixture
def trial(tmp_path):
    trial = Trial(tmp_path)
    yield trial
    trial.children.close()


def test_every_intended_request_is_in_the_records_with_its_time_and_its_kind(trial):
    streams = (Stream("a", 0.6, {"tier": "1"}, 1.0), Stream("b", 0.4, {"tier": "2"}, 2.5, {"path": "/b"}))
    with null_server() as server:
        ended, closed = trial.start(server.url, arrivals="poisson", streams=streams).end(1.0)
    planned = list(itertools.takewhile(lambda item: item.at_s <= 1.0, arrivals(trial.profile, 100.0, 11)))
    rows = np.sort(trial.rows, order="job")
    assert rows["job"].tolist() == [item.job for item in planned]
    assert rows["labels"].tolist() == [item.stream for item in planned]
    assert np.abs(rows["intended_us"] - np.array([item.at_s * 1e6 for item in planned])).max() <= 1
    assert trial.header["labels"] == [
        {"labels": {"tier": "1"}, "deadline_ms": 1000.0},
        {"labels": {"tier": "2"}, "deadline_ms": 2500.0},
    ]
    assert trial.header["epoch_mono_ns"] == pytest.approx(trial.epoch_s * 1e9, abs=1000)
    assert (ended.scheduled, ended.sent, ended.dropped, ended.unfinished, ended.lost_workers) == (
        len(planned),
        len(planned),
        0,
        0,
        0,
    )
    assert closed.complete
    assert closed.bytes == (trial.directory / closed.file).stat().st_size
    assert set(rows["status"].tolist()) == {200}


def test_a_stalling_server_shows_as_theory_says_and_not_as_a_polite_client_sees_it(trial):
    # Held for 0.5 of every 2.5 s: a fifth of the arrivals waits for 0 to 500 ms. A client that waits for its answer
    # before it sends the next request would see a p90 below 10 ms.
    with null_server("--stall-every", "2.5", "--stall-for", "0.5") as server:
        trial.start(server.url, rate=500.0).end(5.0)
    p90, p99 = np.percentile(trial.rows["latency_us"], [90, 99]) / 1e3
    # 2% on a quiet machine (`make bench`); here others may work beside it.
    assert p90 == pytest.approx(250, rel=0.1)
    assert p99 == pytest.approx(475, rel=0.1)
    assert trial.outcomes() == {Outcome.ANSWERED: 2500}


def test_in_flight_at_the_end_is_unfinished_and_beyond_the_pool_is_dropped(trial):
    with null_server() as server:
        trial.start(server.url, rate=100.0, deadline_s=5.0, cap=10)
        os.kill(server.pid, signal.SIGSTOP)
        ended, closed = trial.end(1.0, timeout_s=0.2)
    assert trial.outcomes() == {Outcome.UNFINISHED: 10, Outcome.DROPPED: 90}
    assert (ended.scheduled, ended.sent, ended.dropped, ended.unfinished) == (100, 10, 90, 10)
    assert trial.rows["latency_us"].min() >= 5_000_000
    assert trial.rows["status"].max() == 0
    assert closed.complete


def test_a_frozen_server_times_requests_out_at_their_deadline_and_answers_again_when_it_thaws(trial):
    with null_server() as server:
        trial.start(server.url, rate=50.0, deadline_s=0.3)
        trial.until(0.5)
        os.kill(server.pid, signal.SIGSTOP)
        trial.until(1.5)
        os.kill(server.pid, signal.SIGCONT)
        trial.end(2.5)
    rows = trial.rows
    late = rows[rows["outcome"] == Outcome.TIMED_OUT]
    assert late.size
    assert late["latency_us"].min() >= 300_000
    assert late["intended_us"].min() >= 400_000
    assert late["intended_us"].max() <= 1_600_000
    assert set(rows[rows["intended_us"] > 2_000_000]["outcome"].tolist()) == {Outcome.ANSWERED}


def test_a_killed_server_refuses(trial):
    with null_server() as server:
        trial.start(server.url, rate=50.0)
        trial.until(0.5)
        os.kill(server.pid, signal.SIGKILL)
        trial.end(1.5)
    rows = trial.rows
    assert set(rows[rows["intended_us"] < 300_000]["outcome"].tolist()) == {Outcome.ANSWERED}
    assert set(rows[rows["intended_us"] > 700_000]["outcome"].tolist()) == {Outcome.REFUSED}


def test_when_one_entry_refuses_the_next_is_asked_and_that_is_told(trial):
    with null_server() as server:
        ended, _ = trial.start(unused_address(), server.url, rate=50.0).end(1.0)
    assert trial.outcomes() == {Outcome.ANSWERED: 50}
    assert ended.detail == "25 requests were refused by one entry and answered by the next"


def test_rejections_are_answers_and_keep_their_status(trial):
    statuses = ("200 OK", "429 Too Many Requests", "503 Service Unavailable", "404 Not Found", "302 Found")
    answers = [f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode() for status in statuses]
    with answering(*answers) as (url, _):
        trial.start(url, rate=50.0).end(1.0)
    assert trial.outcomes() == {Outcome.ANSWERED: 50}
    assert Counter(trial.rows["status"].tolist()) == {200: 10, 429: 10, 503: 10, 404: 10, 302: 10}


def test_a_connection_that_is_cut_is_recorded_and_not_sent_again_behind_our_back(trial):
    with answering(b"") as (url, seen):
        trial.start(url, rate=50.0).end(1.0)
    assert trial.outcomes() == {Outcome.REFUSED: 50}
    assert len(seen) == 50


def test_an_answer_that_is_cut_in_the_middle_is_no_answer(trial):
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nhalf", b"") as (url, _):
        trial.start(url, rate=20.0, deadline_s=0.3).end(1.0)
    assert Outcome.ANSWERED not in trial.outcomes()


def test_arrivals_are_strangers_and_do_not_inherit_cookies(trial):
    with answering(b"HTTP/1.1 200 OK\r\nSet-Cookie: who=first\r\nContent-Length: 0\r\n\r\n") as (url, seen):
        trial.start(url, rate=50.0).end(0.5)
    assert not [request for request in seen if b"cookie" in request.lower()]


def test_an_answer_that_the_locustfile_refuses_is_no_success(trial, tmp_path):
    file = written(
        tmp_path,
        "class U(OpenLoopUser):\n"
        "    def serve(self, arrival):\n"
        "        with self.client.get('/', catch_response=True) as answer:\n"
        "            if arrival.job % 2:\n"
        "                answer.failure('not what was asked for')\n",
    )
    with null_server() as server:
        trial.start(server.url, rate=50.0, file=file).end(1.0)
    assert trial.outcomes() == {Outcome.ANSWERED: 50}
    assert Counter(trial.rows["status"].tolist()) == {200: 25, 0: 25}


def test_a_protocol_that_is_not_http_is_recorded_with_the_same_honesty(trial, tmp_path):
    file = written(
        tmp_path,
        "import socket\n"
        "class U(OpenLoopUser):\n"
        "    def serve(self, arrival):\n"
        "        host, port = arrival.entries[0].removeprefix('http://').split(':')\n"
        "        with self.attempt('ping') as attempt, socket.create_connection((host, int(port))) as line:\n"
        "            line.sendall(b'ping')\n"
        "            answer = line.recv(100)\n"
        "            if not answer:\n"
        "                raise EOFError\n"
        "            if answer != b'pong':\n"
        "                attempt.refuse(answer.decode())\n",
    )
    with answering(b"pong", b"busy", b"") as (url, seen):
        ended, _ = trial.start(url, rate=60.0, file=file).end(1.0)
    assert trial.outcomes() == {Outcome.ANSWERED: 40, Outcome.REFUSED: 20}
    assert Counter(trial.rows["status"].tolist()) == {200: 20, 0: 40}
    assert (ended.sent, ended.detail) == (60, "")
    assert seen == [b"ping"] * 60


def test_a_silent_server_of_any_protocol_times_out_and_another_attempt_may_still_succeed(trial, tmp_path):
    file = written(
        tmp_path,
        "import socket\n"
        "class U(OpenLoopUser):\n"
        "    def serve(self, arrival):\n"
        "        for entry in arrival.entries[: 1 + arrival.job // 10]:\n"
        "            host, port = entry.removeprefix('http://').split(':')\n"
        "            with self.attempt('get') as attempt, socket.create_connection((host, int(port)), 0.1) as line:\n"
        "                line.sendall(b'GET / HTTP/1.1\\r\\n\\r\\n')\n"
        "                line.recv(100)\n"
        "            if attempt.succeeded:\n"
        "                return\n",
    )
    with null_server() as server, socket.create_server(("127.0.0.1", 0)) as silent:
        mute = f"http://127.0.0.1:{silent.getsockname()[1]}"
        trial.start(mute, server.url, rate=20.0, file=file).end(1.0)
    assert trial.outcomes() == {Outcome.ANSWERED: 15, Outcome.TIMED_OUT: 5}  # the first ten ask one entry only
    assert Counter(trial.rows["attempt"].tolist()) == {0: 20, 1: 5}
    assert (trial.rows["lag_us"] <= trial.rows["sent_us"]).all()


def test_a_serve_that_raises_before_it_sends_taints_the_evidence_and_is_told(trial, tmp_path):
    file = written(
        tmp_path, "class U(OpenLoopUser):\n    def serve(self, arrival):\n        raise ValueError('oops')\n"
    )
    with null_server() as server:
        ended, _ = trial.start(server.url, rate=20.0, file=file).end(1.0)
    assert trial.outcomes() == {Outcome.DROPPED: 20}
    assert ended.detail == "the locustfile went wrong 20 times: ValueError: oops"


@pytest.mark.parametrize(
    ("serve", "outcome", "status", "told"),
    [
        ("self.http.get('/ü')", Outcome.DROPPED, 0, "is no path"),  # the system never saw it
        ("self.http.get('/', headers={'a': '\\n'})", Outcome.DROPPED, 0, "can't be sent"),
        ("self.http.post('/', json=object())", Outcome.DROPPED, 0, "TypeError"),
        ("self.http.get('/').json()['missing']", Outcome.ANSWERED, 0, "KeyError: 'missing'"),
        ("assert not self.client.get('/')", Outcome.ANSWERED, 0, "AssertionError"),
    ],
    ids=["path", "header", "body", "decoding", "check"],
)
def test_a_request_that_serve_could_not_make_or_take_is_no_success(trial, tmp_path, serve, outcome, status, told):
    file = written(tmp_path, f"class U(OpenLoopUser):\n    def serve(self, arrival):\n        {serve}\n")
    with null_server() as server:
        ended, _ = trial.start(server.url, rate=20.0, file=file).end(0.5)
    assert trial.outcomes() == {outcome: 10}
    assert set(trial.rows["status"].tolist()) == {status}
    assert told in ended.detail


def test_what_follows_an_answer_at_once_is_not_taken_for_the_answer(trial):
    failed, fine = (f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode() for status in ("500 No", "200 OK"))
    with answering(failed + fine) as (url, _):
        trial.start(url, rate=20.0).end(0.5)
    assert trial.outcomes() == {Outcome.REFUSED: 10}


def test_what_announces_an_answer_is_not_taken_for_it(trial):
    early, late = (f"HTTP/1.1 {status}\r\n".encode() for status in ("103 Early Hints\r\n", "503 No"))
    with answering(early + late + b"Content-Length: 0\r\n\r\n") as (url, _):
        trial.start(url, rate=20.0).end(0.5)
    assert set(trial.rows["status"].tolist()) == {503}


@pytest.mark.parametrize("client", ["http", "client"])
def test_headers_that_are_said_twice_are_not_known_and_the_answer_counts(trial, tmp_path, client):
    file = written(tmp_path, f"class U(OpenLoopUser):\n    def serve(self, arrival):\n        self.{client}.get('/')\n")
    twice = b"X-Region: a\r\nX-Region: b\r\nRetry-After: 1\r\nRetry-After: 2\r\n"
    with answering(b"HTTP/1.1 503 No\r\n" + twice + b"Content-Length: 0\r\n\r\n") as (url, _):
        _, closed = trial.start(url, rate=20.0, file=file).end(0.5)
    assert closed.complete
    assert trial.outcomes() == {Outcome.ANSWERED: 10}
    assert set(trial.rows["flags"].tolist()) == {Flag.FINAL | Flag.GARBLED}
    assert trial.header["regions"] == []


def test_a_locustfile_that_ends_its_own_user_has_lost_the_load(trial, tmp_path):
    text = "class U(OpenLoopUser):\n    def serve(self, arrival):\n        self.environment.runner.quit()\n"
    with null_server() as server:
        ended, closed = trial.start(server.url, rate=20.0, file=written(tmp_path, text)).end(0.5)
    assert "the load was stopped from within" in ended.detail
    assert (ended.lost_workers, closed.complete) == (1, False)


def test_a_worker_whose_file_is_gone_is_lost_whatever_it_said(trial):
    with null_server() as server:
        trial.start(server.url, rate=20.0).until(0.3)
        (trial.directory / trial.load.records()[0]).unlink()
        (ended,) = trial.load.end((trial.epoch_s + 0.5) * 1e3, 1.0)
    assert isinstance(ended, LoadEnded)
    assert (ended.scheduled, ended.lost_workers) == (10, 1)
    assert "its file is gone" in ended.detail


def test_records_of_a_killed_generator_are_readable_and_incomplete(trial):
    with null_server() as server:
        trial.start(server.url, rate=200.0)
        trial.until(1.0)
        child = trial.children.children[INSTANCE]
        child.kill()
        child.wait()
        ended, closed = trial.end(2.0)
    assert not closed.complete
    assert ended.lost_workers == 1
    assert "died or was killed" in ended.detail
    # Handed to the kernel every 50 ms: at most the last moment is missing.
    assert 100 <= len(trial.rows) <= 200
    assert trial.load.live().sent == 0


def test_a_generator_that_goes_before_it_begins_is_no_load(trial):
    with null_server() as server:
        trial.make_ready(server.url)
        trial.children.children[INSTANCE].kill()
        with trial.load._heard:
            assert trial.load._heard.wait_for(lambda: trial.load._gone, 5.0)
        with pytest.raises(SystemNotReady, match="died at once"):
            trial.load.begin(time.monotonic() * 1e3)


def test_a_full_disk_ends_the_load_and_keeps_what_was_written(trial):
    with null_server() as server:
        trial.start(server.url, rate=200.0)
        child = trial.children.children[INSTANCE]
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (7000, 7000))
        assert child.wait(5.0) == 1
        ended, closed = trial.end(2.0)
    assert "the records can't be written" in ended.detail
    assert (ended.lost_workers, closed.complete) == (1, False)
    assert 0 < len(trial.rows) <= 7000 // RECORD.size


def test_the_generator_ends_when_the_runner_is_gone(trial):
    with null_server() as server:
        trial.start(server.url, rate=100.0)
        trial.until(0.5)
        trial.load._process.close()
        assert trial.children.children[INSTANCE].wait(5.0) == 1
    _, rows = read_records(trial.load.records()[0])
    assert rows.size


def test_nobody_loads_for_a_runner_that_is_frozen(trial):
    with null_server() as server:
        trial.start(server.url, rate=50.0)
        trial.load._vigil.stop()  # which says that the runner lives, as long as it does
        assert trial.children.children[INSTANCE].wait(15.0) == 1
        ended, closed = trial.end(1.0)
    assert "nothing was heard of the run for 5." in ended.detail
    assert (ended.lost_workers, closed.complete) == (1, False)
    assert 200 < len(trial.rows) < 400


def test_everything_up_to_the_last_moment_is_sent_and_nothing_after_it(trial):
    with null_server() as server:
        ended, _ = trial.start(server.url, rate=100.0).end(0.5)
    assert ended.scheduled == len(trial.rows) == 50
    assert trial.rows["intended_us"].max() == 495_000


def test_a_load_that_never_began_ends_without_records(trial):
    with null_server() as server:
        load = LocustLoad(
            directory=trial.directory,
            run="trial",
            profile=Profile("p", "u", "constant", (), (Stream("s", 1.0, {}, 1.0),)),
            rate_per_s=10,
            seed=1,
            locustfile=HTTP_USER,
            entries=(server.url,),
        )
        load.prepare(trial.children)
        events = load.end(time.monotonic() * 1e3, 1.0)
    assert [type(event) for event in events] == [LoadEnded]
    assert events[0].scheduled == 0


def test_the_runner_sees_the_load_while_it_happens(trial):
    with null_server() as server:
        trial.start(server.url, rate=100.0)
        trial.until(1.6)
        live = trial.load.live()
        trial.end(1.6)
    assert live.sent > 0
    assert live.sent == pytest.approx(live.scheduled, abs=2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_of_that_name\n", r"http\.py: line 2: ModuleNotFoundError"),
        ("class U(OpenLoopUser):\n    def on_start(self):\n        {}['x']\n", r"line 4: on_start: KeyError: 'x'"),
        ("", "needs exactly one subclass of OpenLoopUser"),
    ],
)
def test_a_locustfile_that_cannot_be_used_is_refused_with_its_line(trial, tmp_path, text, message):
    with pytest.raises(Refused, match=message):
        trial.start("http://127.0.0.1:9", file=written(tmp_path, text))


def test_a_locustfile_that_is_no_python_is_refused_before_anything_starts(trial, tmp_path):
    with pytest.raises(Refused, match=r"http\.py:2:\d+: the locustfile is not Python"):
        trial.start("http://127.0.0.1:9", file=written(tmp_path, "class U(:\n"))
    with pytest.raises(Refused, match="can't be read: No such file"):
        trial.start("http://127.0.0.1:9", file=tmp_path / "missing.py")
    assert not trial.children.children


def test_a_generator_that_dies_at_once_is_told_with_its_last_lines(trial, tmp_path):
    file = written(tmp_path, "import os, sys\nsys.stderr.write('out of luck\\n')\nsys.stderr.flush()\nos._exit(3)\n")
    with pytest.raises(SystemNotReady, match=r"(?s)died at once.*out of luck"):
        trial.start("http://127.0.0.1:9", file=file)


def test_strangers_on_the_control_socket_are_hung_up_on():
    line = GeneratorLine()
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect("\0" + line.name)
        assert not line.accept(os.getpid() + 1, time.monotonic() + 0.3, alive=lambda: True)
        stranger.settimeout(5)
        assert stranger.recv(1) == b""
    line.close()


def test_the_locustfile_is_an_ordinary_one_for_plain_locust(repository):
    with null_server() as server:
        command = [sys.executable, "-m", "locust", "-f", "loadgen/platform_user.py", "--host", server.url]
        options = ["--headless", "-t", "2s", "--demand", "peak", "--rate", "50", "--only-summary"]
        done = subprocess.run([*command, *options], cwd=repository, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    total = next(line for line in done.stderr.splitlines() if "Aggregated" in line)
    assert int(total.split()[1]) == pytest.approx(100, abs=50)
    assert "POST /jobs api, tier 1" in done.stderr.replace("POST     ", "")


def test_plain_locust_refuses_a_demand_that_is_not_there(repository):
    command = [sys.executable, "-m", "locust", "-f", "loadgen/http_user.py", "--host", "http://127.0.0.1:9"]
    options = ["--headless", "-t", "5s", "--demand", "nowhere"]
    done = subprocess.run([*command, *options], cwd=repository, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert "loadgen/nowhere.yaml: no such file" in done.stderr
    assert "Traceback" not in done.stderr


def test_plain_locust_refuses_to_send_one_profile_from_several_processes(repository):
    command = [sys.executable, "-m", "locust", "-f", "loadgen/http_user.py", "--host", "http://127.0.0.1:9"]
    options = ["--headless", "-t", "5s", "--processes", "2"]
    done = subprocess.run([*command, *options], cwd=repository, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert "sends its whole profile from one process" in done.stderr


def test_plain_locust_counts_what_was_in_flight_when_it_ended(repository):
    with null_server() as server:
        os.kill(server.pid, signal.SIGSTOP)
        command = [sys.executable, "-m", "locust", "-f", "loadgen/http_user.py", "--host", server.url, "--headless"]
        options = ["-t", "1s", "--demand", "steady", "--rate", "20", "--only-summary"]
        # Some may take 30 s, and are waited for until the server dies.
        with subprocess.Popen([*command, *options], cwd=repository, stderr=subprocess.PIPE, text=True) as child:
            assert child.stderr is not None
            before_the_end = itertools.takewhile(lambda line: "limit reached" not in line, child.stderr)
            assert list(before_the_end)
            os.kill(server.pid, signal.SIGKILL)
            told = child.stderr.read()
    assert child.returncode == 1
    total = next(line for line in told.splitlines() if "Aggregated" in line)
    asked, failed = total.split()[1], total.split()[2]
    assert 1 <= int(asked) <= 20
    assert failed.startswith(asked + "(100.00%)")
