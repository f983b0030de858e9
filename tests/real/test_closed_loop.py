"""Anybody's locustfile, unchanged: what its users did is what is recorded, and what they still waited for too."""

import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from load_trial import answering

from stormdrill.errors import Refused
from stormdrill.load.calibrate import OwnChildren, null_server
from stormdrill.load.launcher import LocustLoad
from stormdrill.model.event import LoadEnded
from stormdrill.store.records import Flag, Outcome, read_records

pytestmark = pytest.mark.real

SHOP = """
from locust import FastHttpUser, HttpUser, SequentialTaskSet, between, constant, events, tag, task

@events.init_command_line_parser.add_listener
def _(parser):
    parser.add_argument("--basket", default="small")

class Browse(SequentialTaskSet):
    @task
    def first(self):
        self.client.get("/first", name="first")
    @task
    def second(self):
        self.client.get("/second", name="second")

class Visitor(HttpUser):
    weight = 3
    wait_time = between(0.01, 0.02)
    tasks = [Browse]

class Buyer(FastHttpUser):
    weight = 1
    wait_time = constant(0.02)
    def on_start(self):
        self.client.post("/login", json={"basket": self.environment.parsed_options.basket}, name="login")
    @tag("buying")
    @task
    def buy(self):
        with self.client.post("/buy", json={}, name="buy", catch_response=True, context={"tier": 1}) as answer:
            if not answer.json().get("ok"):
                answer.failure("not bought")
    @task
    def trip(self):
        with self.client.get("/trip", name="trip", catch_response=True) as answer:
            {}[answer.status_code]
"""
WAITING = """
from locust import FastHttpUser, HttpUser, task
class Slow(HttpUser):
    @task
    def ask(self):
        self.client.get("/slow")
class Fast(FastHttpUser):
    @task
    def ask(self):
        self.client.get("/fast")
"""
PLAIN = """
import socket, time
from locust import User, constant, task
class Raw(User):
    wait_time = constant(0.05)
    @task
    def ask(self):
        host, port = self.host.removeprefix("http://").split(":")
        began, error = time.time(), None
        begun = time.perf_counter()
        try:
            with socket.create_connection((host, int(port)), 1.0) as line:
                line.sendall(b"GET / HTTP/1.1\\r\\n\\r\\n")
                line.recv(100)
        except OSError as caught:
            error = caught
        self.environment.events.request.fire(
            request_type="raw", name="ask", response_time=(time.perf_counter() - begun) * 1000,
            response_length=0, exception=error, start_time=began)
"""


class Crowd:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.children = OwnChildren(directory)

    def start(
        self, text: str, *entries: str, users: int = 4, deadline_s: float = 1.0, spawn_per_s: float = 0.0
    ) -> "Crowd":
        file = self.directory / "http.py"  # the name of a module of Python's own, on purpose
        file.write_text(text)
        self.load = LocustLoad(
            directory=self.directory,
            run="trial",
            profile=None,
            rate_per_s=0.0,
            seed=1,
            locustfile=file,
            entries=entries,
            users=users,
            spawn_per_s=spawn_per_s,
            deadline_s=deadline_s,
        )
        self.load.prepare(self.children)
        self.epoch_s = time.monotonic() + 0.1
        self.load.begin(self.epoch_s * 1e3)
        return self

    def until(self, into_s: float) -> "Crowd":
        time.sleep(max(self.epoch_s + into_s - time.monotonic(), 0))
        return self

    def end(self, into_s: float, timeout_s: float = 1.0) -> LoadEnded:
        events = self.load.end((self.epoch_s + into_s) * 1e3, timeout_s)
        self.header, self.rows = read_records(self.directory / "load" / "worker-0.records")
        return next(event for event in events if isinstance(event, LoadEnded))

    def of(self, **labels: str):
        fits = [labels.items() <= item["labels"].items() for item in self.header["labels"]]
        return self.rows[np.array(fits)[self.rows["labels"]]]

    def outcomes(self) -> dict[Outcome, int]:
        return dict(Counter(Outcome(value) for value in self.rows["outcome"].tolist()))


@pytest.fixture
def crowd(tmp_path):
    crowd = Crowd(tmp_path)
    yield crowd
    crowd.children.close()


def test_every_request_of_every_user_is_a_record_with_the_name_that_the_locustfile_gives_it(crowd):
    with null_server() as server:
        ended = crowd.start(SHOP, server.url).end(1.5)
    assert crowd.header["loop"] == "closed"
    assert set(crowd.outcomes()) == {Outcome.ANSWERED}
    assert set(crowd.rows["status"].tolist()) == {200}
    assert crowd.rows["lag_us"].max() == 0
    assert (crowd.rows["flags"] & Flag.FINAL).all()
    assert len(np.unique(crowd.rows["job"])) == len(crowd.rows) == ended.sent == ended.scheduled
    assert len(crowd.of(name="login", method="POST")) == 1
    assert len(crowd.of(name="buy", tier="1")) > 2
    # Locust itself says nothing of an answer whose block raised.
    assert len(crowd.of(name="trip")) > 2
    assert "KeyError: 200" in ended.detail
    first, second = len(crowd.of(name="first")), len(crowd.of(name="second"))
    assert 0 <= first - second <= 3
    assert first > 20
    assert {item["deadline_ms"] for item in crowd.header["labels"]} == {1000.0}
    assert crowd.rows["intended_us"].max() <= 1_700_000
    assert (ended.dropped, ended.unfinished, ended.lost_workers) == (0, 0, 0)
    assert (ended.users, ended.fewest_users) == (4, 4)


def test_users_that_wait_at_the_end_are_unfinished_and_not_forgotten(crowd):
    with null_server() as server:
        crowd.start(WAITING, server.url, users=6).until(0.5)
        os.kill(server.pid, signal.SIGSTOP)
        ended = crowd.end(1.0, timeout_s=0.3)
    assert crowd.outcomes()[Outcome.UNFINISHED] == ended.unfinished == 6
    waiting = crowd.rows[crowd.rows["outcome"] == Outcome.UNFINISHED]
    assert waiting["latency_us"].min() >= 1_000_000
    assert waiting["intended_us"].min() >= 400_000
    assert ended.lost_workers == 0


def test_what_users_wait_for_at_the_end_is_waited_for(crowd):
    with null_server() as server:
        crowd.start(WAITING, server.url, users=4).until(0.3)
        os.kill(server.pid, signal.SIGSTOP)
        threading.Timer(1.0, os.kill, (server.pid, signal.SIGCONT)).start()
        ended = crowd.end(0.6, timeout_s=20.0)
    assert crowd.outcomes() == {Outcome.ANSWERED: ended.sent}
    late = crowd.rows[crowd.rows["intended_us"] + crowd.rows["latency_us"].astype(float) > 600_000]
    assert len(late) == 4
    assert crowd.rows["intended_us"].max() <= 600_000


POLLING = """
from locust import FastHttpUser, HttpUser, task
class Slow(HttpUser):
    @task
    def poll(self):
        while True:
            try:
                self.client.get("/slow")
            except {caught}:
                pass
class Fast(FastHttpUser):
    @task
    def poll(self):
        while True:
            try:
                self.client.get("/fast")
            except {caught}:
                pass
    def on_stop(self):
        self.client.get("/logout")
"""


@pytest.mark.parametrize(("caught", "timeout_s"), [("Exception", 30.0), ("BaseException", 0.5)])
def test_a_task_that_asks_again_and_again_sends_nothing_after_the_end(crowd, caught, timeout_s):
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as (url, seen):
        ended = crowd.start(POLLING.replace("{caught}", caught), url).end(0.5, timeout_s)
        took_s = time.monotonic() - crowd.epoch_s
        reached = len(seen)
    assert took_s < 10.0
    assert crowd.rows["intended_us"].max() <= 500_000
    assert crowd.outcomes() == {Outcome.ANSWERED: reached}
    assert (ended.scheduled, ended.sent, ended.detail) == (reached, reached, "")
    assert (ended.users, ended.fewest_users) == (4, 4)


def test_a_dead_server_refuses_users_of_both_clients(crowd):
    with null_server() as server:
        crowd.start(WAITING, server.url, users=2).until(0.3)
        os.kill(server.pid, signal.SIGKILL)
        crowd.end(0.6)
    for name in ("/slow", "/fast"):
        late = crowd.of(name=name)
        late = late[late["intended_us"] > 400_000]
        assert set(late["outcome"].tolist()) == {Outcome.REFUSED}


def test_users_of_any_protocol_are_recorded_by_what_they_report(crowd):
    with null_server() as server:
        crowd.start(PLAIN, server.url, users=2).end(1.0)
    assert 20 <= len(crowd.of(name="ask", method="raw")) == len(crowd.rows) <= 45
    assert crowd.outcomes() == {Outcome.ANSWERED: len(crowd.rows)}


def test_users_of_any_protocol_end_with_what_they_had_begun(crowd):
    text = PLAIN.replace("    def ask(self):\n", "    def ask(self):\n      while True:\n")
    with null_server() as server:
        ended = crowd.start(text, server.url, users=2).end(0.5, timeout_s=30.0)
    assert time.monotonic() - crowd.epoch_s < 10.0
    assert len(crowd.rows) > 10
    assert (crowd.rows["intended_us"] > 500_000).sum() <= 2
    assert (ended.users, ended.fewest_users) == (2, 2)


def test_more_kinds_than_a_byte_counts_are_of_one_kind(crowd):
    text = (
        "import itertools\nfrom locust import FastHttpUser, task\nnumbers = itertools.count()\n"
        "class U(FastHttpUser):\n    @task\n    def ask(self):\n        self.client.get(f'/{next(numbers)}')\n"
    )
    with null_server() as server:
        crowd.start(text, server.url, users=2).end(1.0)
    assert len(crowd.header["labels"]) == 256
    assert len(crowd.of(name="other")) == len(crowd.rows) - 255 > 0
    assert len(crowd.of(name="/254")) == 1


BY_POSITION = """
from locust import FastHttpUser, HttpUser, constant, task
class Slow(HttpUser):
    wait_time = constant(0.05)
    @task
    def ask(self):
        self.client.request("GET", "/", "slow", False, {"tier": 1})
class Fast(FastHttpUser):
    wait_time = constant(0.05)
    @task
    def ask(self):
        self.client.request("GET", "/", "fast", None, False)
"""


def test_a_request_whose_options_are_given_by_position_is_one_record(crowd):
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as (url, seen):
        ended = crowd.start(BY_POSITION, url, users=2).end(0.5)
    assert ended.sent == len(crowd.rows) == len(seen) > 0
    assert len(crowd.of(name="slow", tier="1"))


def test_an_answer_that_leads_nowhere_is_not_forgotten_and_taints_the_evidence(crowd):
    with answering(b"HTTP/1.1 302 Found\r\nLocation: http://a:b/\r\nContent-Length: 0\r\n\r\n") as (url, seen):
        ended = crowd.start(BY_POSITION, url, users=2).end(0.5)
    assert crowd.outcomes() == {Outcome.DROPPED: len(seen)}
    assert (ended.scheduled, ended.sent, ended.dropped) == (len(seen), 0, len(seen))
    assert "the locustfile went wrong" in ended.detail


def test_users_take_turns_over_the_entries_and_each_keeps_its_own(crowd):
    with null_server() as one, null_server() as other:
        crowd.start(
            "from locust import HttpUser, constant, task\nclass U(HttpUser):\n    wait_time = constant(0.05)\n"
            "    host = 'http://127.0.0.1:9'\n"
            "    @task\n    def ask(self):\n        self.client.get('/', name=self.host)\n",
            one.url,
            other.url,
            users=4,
        ).end(0.5)
    assert len(crowd.of(name=one.url)) > 5
    assert len(crowd.of(name=other.url)) > 5
    assert crowd.outcomes() == {Outcome.ANSWERED: len(crowd.rows)}


def test_a_user_that_fails_is_told(crowd):
    text = "from locust import HttpUser, task\nclass U(HttpUser):\n    @task\n    def ask(self):\n        {}['x']\n"
    with null_server() as server:
        ended = crowd.start(text, server.url, users=1).end(0.3)
    assert "KeyError: 'x'" in ended.detail
    assert len(crowd.rows) == 0


STOPPING = """
import itertools
from locust import HttpUser, constant, task
from locust.exception import StopUser
numbers = itertools.count()
class U(HttpUser):
    wait_time = constant(0.05)
    def {where}(self, *given):
        super().{where}(*given)
        if next(numbers) >= 2:
            raise {what}
    @task
    def ask(self):
        self.client.get("/")
"""


@pytest.mark.parametrize(
    ("where", "what", "left"),
    [("on_start", "RuntimeError('login refused')", 2), ("on_start", "StopUser", 2), ("__init__", "RuntimeError", 0)],
)
def test_users_that_stop_by_themselves_are_missed(crowd, where, what, left):
    with null_server() as server:
        ended = crowd.start(STOPPING.format(where=where, what=what), server.url, users=10).end(0.5)
    assert (ended.users, ended.fewest_users) == (10, left)
    assert f"{10 - left} of 10 users stopped by themselves" in ended.detail
    assert ended.scheduled == ended.sent == len(crowd.rows) > 0


def test_users_that_were_not_to_be_there_yet_are_not_missed(crowd):
    text = "from locust import HttpUser, task\nclass U(HttpUser):\n    @task\n    def ask(self):\n        self.wait()\n"
    with null_server() as server:
        ended = crowd.start(text, server.url, users=20, spawn_per_s=2.0).end(1.5)
    assert 0 < ended.users < 20
    assert ended.fewest_users == ended.users


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "has no user class"),
        ("from locust import HttpUser\nclass U(HttpUser):\n    pass\n", "U has no @task"),
        ("from stormdrill.load.locust import OpenLoopUser\nclass U(OpenLoopUser):\n    pass\n", "is an open-loop user"),
        ("import nothing_of_that_name\n", r"http\.py: line 1: ModuleNotFoundError"),
    ],
)
def test_a_locustfile_that_makes_no_crowd_is_refused(crowd, text, message):
    with pytest.raises(Refused, match=message):
        crowd.start(text, "http://127.0.0.1:9")
