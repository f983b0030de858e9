"""Retries as the profile writes them, each attempt a record: what a client that was turned away really does."""

import time
from collections import Counter
from email.utils import formatdate
from pathlib import Path

import numpy as np
import pytest
from load_trial import Trial, answering, unused_address, written

from stormdrill.load.calibrate import null_server
from stormdrill.model.profile import Retry
from stormdrill.store.records import UNTOLD, Flag, Outcome

pytestmark = pytest.mark.real


def answer(status: str, *fields: str) -> bytes:
    lines = "".join(f"{field}\r\n" for field in fields)
    return f"HTTP/1.1 {status}\r\n{lines}Content-Length: 0\r\n\r\n".encode()


OK, BUSY = answer("200 OK", "X-Region: eu"), "503 Service Unavailable"


@pytest.fixture
def trial(tmp_path):
    trial = Trial(tmp_path)
    yield trial
    trial.children.close()


def final(trial):
    return trial.rows[(trial.rows["flags"] & Flag.FINAL) != 0]


def test_without_a_retry_policy_one_attempt_is_made_and_retry_after_is_recorded(trial):
    with answering(answer(BUSY, "Retry-After: 7"), answer(BUSY), answer(BUSY, "Retry-After: soon")) as (url, seen):
        trial.start(url, rate=30.0).end(1.0)
    assert len(seen) == len(trial.rows) == 30
    flags = Counter(zip(trial.rows["flags"].tolist(), trial.rows["retry_after_s"].tolist(), strict=True))
    assert flags == {
        (Flag.FINAL | Flag.RETRY_AFTER, 7): 10,
        (Flag.FINAL, 0): 10,
        (Flag.FINAL | Flag.GARBLED, 0): 10,
    }


def test_a_serve_of_several_requests_spends_its_retry_budget_too(trial, tmp_path):
    twice = "        self.http.get('/')\n" * 2
    text = f"class U(OpenLoopUser):\n    def serve(self, arrival):\n{twice}"
    policy = Retry(attempts=3, wait_s=0.01, share=0.1)
    with answering(answer(BUSY)) as (url, seen):
        trial.start(url, rate=40.0, file=written(tmp_path, text), retry=policy).end(0.5)
    assert len(final(trial)) == 20
    assert len(seen) == len(trial.rows) == 20 * 2 + 2 * 2  # a tenth of twenty asked again


RETRY_AFTER = {
    "0": 0, "90": 90, "100000": 255, "Wed, 21 Oct 2015 07:28:00 GMT": 0, "Fri, 01 Jan 2100 00:00:00 GMT": 255,
    "1.5": None, "-3": None, "soon": None, "": None, "1, 2": None, "Wed, 99 Foo 2015": None,
}  # fmt: skip


def test_retry_after_is_read_as_the_standard_has_it_and_is_garbled_otherwise(trial):
    answers = [answer("429 Too Many Requests", f"Retry-After: {value}") for value in RETRY_AFTER]
    with answering(*answers) as (url, _):
        trial.start(url, rate=10.0, deadline_s=3.0).end(len(answers) / 10)
    read = {}
    for value, row in zip(RETRY_AFTER, np.sort(trial.rows, order="job"), strict=True):
        assert bool(row["flags"] & Flag.GARBLED) != bool(row["flags"] & Flag.RETRY_AFTER)
        read[value] = None if row["flags"] & Flag.GARBLED else int(row["retry_after_s"])
    assert read == RETRY_AFTER


def test_a_rejected_request_is_asked_again_and_its_last_attempt_is_its_outcome(trial):
    with answering(answer(BUSY), answer("429 Too Many Requests"), OK) as (url, seen):
        # One at a time, so that the server's answers come in their order.
        ended, closed = trial.start(url, rate=5.0, retry=Retry(3, 0.02)).end(1.0)
    assert len(seen) == len(trial.rows) == 15
    assert closed.complete
    assert (ended.scheduled, ended.sent) == (5, 5)
    rows = trial.rows[np.lexsort((trial.rows["attempt"], trial.rows["job"]))]
    assert rows["attempt"].tolist() == [0, 1, 2] * 5
    assert rows["status"].tolist() == [503, 429, 200] * 5
    assert [bool(flags & Flag.FINAL) for flags in rows["flags"].tolist()] == [False, False, True] * 5
    # The lag is the generator's, and the first attempt's; each attempt says when it was sent itself.
    assert (rows["lag_us"] < 20_000).all()
    sent = rows["sent_us"].reshape(5, 3).astype(int)
    assert (sent[:, 0] == rows["lag_us"][::3]).all()
    assert (np.diff(sent, axis=1) >= [20_000, 40_000]).all()
    assert rows["region"].tolist() == [UNTOLD, UNTOLD, 0] * 5
    assert trial.header["regions"] == ["eu"]


def test_every_attempt_tells_the_server_whose_it_is(trial):
    with answering(answer(BUSY), OK) as (url, seen):
        trial.start(url, rate=5.0, retry=Retry(2, 0.01)).end(1.0)
    told = [dict(line.split(": ", 1) for line in text.decode().split("\r\n")[1:] if line) for text in seen]
    assert [item["Idempotency-Key"] for item in told] == [f"trial-{job}" for job in range(5) for _ in range(2)]
    assert [item["X-Attempt"] for item in told] == ["0", "1"] * 5
    assert {item["X-Tier"] for item in told} == {"1"}


def test_retry_after_is_obeyed_where_the_profile_says_so(tmp_path):
    earliest = {}
    for obey in (True, False):
        directory = tmp_path / str(obey)
        directory.mkdir()
        trial = Trial(directory)
        try:
            with answering(answer(BUSY, "Retry-After: 1")) as (url, _):
                trial.start(url, rate=4.0, deadline_s=2.0, retry=Retry(2, 0.01, obey=obey)).end(1.0)
        finally:
            trial.children.close()
        again = trial.rows[trial.rows["attempt"] == 1]
        assert len(again) == 4
        earliest[obey] = again["sent_us"].min()
    assert earliest[False] < 500_000 < 1_000_000 <= earliest[True]


def test_nobody_asks_again_after_the_deadline(trial):
    in_half_a_minute = formatdate(time.time() + 30, usegmt=True)
    with answering(answer(BUSY, f"Retry-After: {in_half_a_minute}")) as (url, seen):
        trial.start(url, rate=10.0, deadline_s=2.0, retry=Retry(5, 0.01)).end(1.0)
    assert len(seen) == len(trial.rows) == 10
    assert set(trial.rows["retry_after_s"].tolist()) <= {28, 29, 30}


def test_a_retry_budget_bounds_how_many_ask_again(trial):
    with answering(answer(BUSY)) as (url, seen):
        trial.start(url, rate=100.0, retry=Retry(2, 0.01, share=0.2)).end(1.0)
    assert len(seen) == len(trial.rows) == 120
    assert len(final(trial)) == 100


def test_refused_connections_and_time_outs_are_tried_again(trial, tmp_path):
    file = written(
        tmp_path,
        "class U(OpenLoopUser):\n    def serve(self, arrival):\n        self.http.get('/', timeout_s=0.1)\n",
    )
    with null_server("--mute") as server:
        trial.start(server.url, rate=10.0, file=file, retry=Retry(3, 0.01)).end(1.0)
    rows = trial.rows
    assert Counter(rows["attempt"].tolist()) == {0: 10, 1: 10, 2: 10}
    assert set(rows["outcome"].tolist()) == {Outcome.TIMED_OUT}
    assert final(trial)["latency_us"].min() >= 1_000_000


def test_a_refused_connection_is_tried_again_until_the_deadline(trial):
    trial.start(unused_address(), rate=10.0, deadline_s=0.5, retry=Retry(10, 0.1)).end(1.0)
    assert trial.outcomes() == {Outcome.REFUSED: 10}
    assert Counter(trial.rows["attempt"].tolist()) == {0: 10, 1: 10, 2: 10}
    assert (trial.rows["sent_us"] < 500_000).all()


def test_the_same_seed_waits_the_same(tmp_path):
    waits = []
    for turn in ("one", "other"):
        directory = tmp_path / turn
        directory.mkdir()
        trial = Trial(directory)
        try:
            with answering(answer(BUSY)) as (url, _):
                trial.start(url, rate=10.0, retry=Retry(2, 0.2, jitter=1.0)).end(1.0)
        finally:
            trial.children.close()
        rows = trial.rows[np.lexsort((trial.rows["attempt"], trial.rows["job"]))]
        waits.append(np.diff(rows["sent_us"].astype(int))[::2] / 1e6)
    assert waits[0] == pytest.approx(waits[1], abs=0.03)
    assert np.ptp(waits[0]) > 0.05


def test_who_waits_to_try_again_when_the_load_ends_has_its_last_answer(trial):
    with answering(answer(BUSY, "Retry-After: 5")) as (url, _):
        ended, closed = trial.start(url, rate=10.0, deadline_s=20.0, retry=Retry(2, 0.1)).end(1.0, timeout_s=0.3)
    assert trial.outcomes() == {Outcome.ANSWERED: 10}
    assert set(trial.rows["status"].tolist()) == {503}
    assert (ended.unfinished, ended.dropped, closed.complete) == (0, 0, True)


OF_ITS_OWN = (
    "import gevent\n"
    "class U(OpenLoopUser):\n"
    "    def serve(self, arrival):\n"
    "        while not self.http.get('/').ok:\n"
    "            gevent.sleep(0.1)\n"
)


@pytest.mark.parametrize("whose", ["the profile's", "serve's own"])
def test_after_an_end_that_nobody_planned_nothing_is_tried_again(trial, tmp_path, whose):
    how = {"file": written(tmp_path, OF_ITS_OWN)} if whose == "serve's own" else {"retry": Retry(100, 0.1)}
    with answering(answer(BUSY)) as (url, seen):
        trial.start(url, rate=10.0, deadline_s=30.0, **how).until(1.0)
        ended, closed = trial.end(1.0, timeout_s=15.0, retries=False)
        reached = len(seen)
    assert trial.rows["attempt"].max() > 0
    assert ((trial.rows["intended_us"] + trial.rows["sent_us"].astype(float)) / 1e6).max() < 2.0
    assert len(trial.rows) == reached
    assert trial.outcomes() == {Outcome.ANSWERED: ended.scheduled}
    assert set(trial.rows["status"].tolist()) == {503}
    assert (ended.unfinished, ended.dropped, ended.detail, closed.complete) == (0, 0, "", True)


def test_an_end_that_nobody_planned_does_not_wait_for_what_would_be_tried_again(trial):
    with answering(answer(BUSY)) as (url, seen):
        trial.start(url, rate=10.0, deadline_s=30.0, retry=Retry(2, 10.0)).until(0.5)
        ended, _ = trial.end(0.5, timeout_s=20.0, retries=False)
    assert time.monotonic() - trial.epoch_s < 5.0
    assert trial.outcomes() == {Outcome.ANSWERED: ended.scheduled} == {Outcome.ANSWERED: len(seen)}


def test_a_target_that_accepts_and_never_answers_times_every_request_out(trial):
    with null_server("--mute") as server:
        ended, _ = trial.start(server.url, rate=50.0, deadline_s=0.3).end(1.0)
    assert trial.outcomes() == {Outcome.TIMED_OUT: 50}
    assert trial.rows["latency_us"].min() >= 300_000
    assert (ended.sent, ended.dropped) == (50, 0)


def test_a_load_of_which_everything_fails_is_recorded_whole(trial):
    with answering(answer("500 Internal Server Error")) as (url, _):
        ended, closed = trial.start(url, rate=50.0).end(1.0)
    assert Counter(trial.rows["status"].tolist()) == {500: 50}
    assert closed.complete
    assert ended.detail == ""


def test_a_load_without_an_arrival_ends_with_empty_records(trial):
    with null_server() as server:
        ended, closed = trial.start(server.url, rate=0.1).end(0.5)
    assert len(trial.rows) == 0
    assert (ended.scheduled, ended.sent, ended.lost_workers, closed.complete) == (0, 0, 0, True)


def test_a_locustfile_sees_the_answer_and_may_refuse_it(trial, tmp_path):
    file = written(
        tmp_path,
        "class U(OpenLoopUser):\n"
        "    def serve(self, arrival):\n"
        "        answer = self.http.post('/jobs', json={'id': arrival.id}, headers={'X-Attempt': 'mine'})\n"
        "        assert answer.ok and answer.headers['content-type'] == 'application/json'\n"
        "        if answer.json() != {'ok': True} or arrival.job % 2:\n"
        "            answer.refuse('not what was asked for')\n",
    )
    with null_server() as server:
        ended, _ = trial.start(server.url, rate=50.0, file=file).end(1.0)
    assert Counter(trial.rows["status"].tolist()) == {200: 25, 0: 25}
    assert ended.detail == ""


def test_what_cannot_be_sent_is_a_mistake_of_the_locustfile_and_told(trial, tmp_path):
    file = written(
        tmp_path,
        "class U(OpenLoopUser):\n    def serve(self, arrival):\n        self.http.get('/a b\\r\\nX: y')\n",
    )
    with null_server() as server:
        ended, _ = trial.start(server.url, rate=10.0, file=file).end(0.5)
    assert "is no path" in ended.detail
    assert Path(file).exists()
