"""One holder at a time, judged by change alone; a ledger that takes nothing any more once somebody reverts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

import cluster_rig as rig
from fake_cluster import FakeCluster
from stormdrill.cluster import ledger as ledgers
from stormdrill.cluster import naming
from stormdrill.cluster.api import MERGE_PATCH, Api
from stormdrill.cluster.asking import Until
from stormdrill.cluster.changes import Undone
from stormdrill.cluster.lease import Lease, Watch, micro
from stormdrill.cluster.ledger import CLOSED, REVERTING, Armed, Closed, Ended, Full, Ledger
from stormdrill.errors import Refused, Unreachable
from stormdrill.model.undo import KubeDelete

WORD = KubeDelete("", rig.POLICY, "r1")


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(world=False) as made:
        rig.small_world(made)
        yield made


class Clock:
    """Time that passes when somebody waits."""

    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s

    def sleep(self, pause_s: float) -> None:
        self.s += pause_s

    def until(self, limit_s: float) -> Until:
        return Until(limit_s, now=self, sleep=self.sleep)


def lease(cluster: FakeCluster, run: str, clock: Clock, duration_s: float = 4.0) -> Lease:
    return Lease(Api(cluster.admin), rig.SUITE, "stormdrill-platform", f"{run}/runner", duration_s, clock)


def ledger(cluster: FakeCluster, run: str = "r1") -> Ledger:
    made = Ledger(Api(cluster.admin), rig.SUITE, run)
    made.create({"run": run, "lease_s": 4.0}, "platform")
    return made


def test_times_of_a_lease_have_six_digits_always() -> None:
    assert micro(datetime(2026, 1, 2, 3, 4, 5, 0, UTC)) == "2026-01-02T03:04:05.000000Z"


def test_of_many_that_want_it_one_gets_it(cluster: FakeCluster) -> None:
    def want(number: int) -> bool:
        try:
            lease(cluster, f"r{number}", Clock()).acquire(Clock().until(1.0))
        except Refused:
            return False
        return True

    with ThreadPoolExecutor(12) as pool:
        assert sum(pool.map(want, range(12))) == 1


def test_one_that_is_renewed_is_refused_and_its_holder_and_how_to_stop_it_are_named(cluster: FakeCluster) -> None:
    clock = Clock()
    held = lease(cluster, "r1", clock)
    held.acquire(clock.until(1.0))
    waiting = Clock()

    def renew(pause_s: float) -> None:
        waiting.sleep(pause_s)
        held.renew(1.0)

    with pytest.raises(Refused, match=r"r1/runner.*kubectl annotate configmap -n stormdrill stormdrill-r1"):
        lease(cluster, "r2", waiting).acquire(Until(30.0, now=waiting, sleep=renew))


def test_one_that_is_not_renewed_is_taken_after_its_time_and_its_holder_finds_out(cluster: FakeCluster) -> None:
    clock = Clock()
    gone, next_one = lease(cluster, "r1", clock), lease(cluster, "r2", clock)
    gone.acquire(clock.until(1.0))
    began_s = clock()
    next_one.acquire(clock.until(30.0))
    assert clock() - began_s >= 4.0
    assert not gone.renew(1.0)
    assert gone.lost
    assert next_one.renew(1.0)


def test_one_that_was_released_is_taken_at_once(cluster: FakeCluster) -> None:
    clock = Clock()
    first = lease(cluster, "r1", clock)
    first.acquire(clock.until(1.0))
    assert first.release(clock.until(1.0)) == ""
    lease(cluster, "r2", clock).acquire(clock.until(0.1))


@pytest.mark.parametrize("what", ["drop-after", "drop-before", "500", "429"])
def test_a_renewal_whose_answer_is_lost_does_not_lose_the_lease(cluster: FakeCluster, what: str) -> None:
    clock = Clock()
    held = lease(cluster, "r1", clock)
    held.acquire(clock.until(1.0))
    cluster.trouble(("PUT", "leases"), what)
    assert not held.renew(1.0)
    assert held.renew(1.0)
    assert not held.lost


def test_it_is_young_for_half_of_its_time_and_lost_after_all_of_it(cluster: FakeCluster) -> None:
    clock = Clock()
    held = lease(cluster, "r1", clock)
    held.acquire(clock.until(1.0))
    clock.s += 1.9
    assert held.young()
    clock.s += 0.2
    assert not held.young()
    assert held.renew(1.0)
    assert held.young()
    clock.s += 4.1
    assert not held.renew(1.0)
    assert "could not be renewed for 4.1 s" in held.lost


def test_a_watcher_counts_from_the_first_sight_of_a_version_and_blind_time_too() -> None:
    clock = Clock()
    watch = Watch(clock)
    assert watch.unchanged_s("7", clock()) == 0.0
    clock.s += 30.0  # it could not read in all that time
    assert watch.unchanged_s("7", clock()) == 30.0
    assert watch.unchanged_s("8", clock()) == 0.0


def test_what_is_armed_is_read_back_in_the_order_of_arming(cluster: FakeCluster) -> None:
    made = ledger(cluster)
    made.arm([Armed("b/x", (WORD,), 9.0, 1), Armed("a/x y", (WORD, WORD), 8.5, 2)])
    book = made.read()
    assert book is not None
    assert [(each.injection, each.undos, each.expires_in_s) for each in book.armed] == [
        ("b/x", (WORD,), 9.0),
        ("a/x y", (WORD, WORD), 8.5),
    ]
    made.end([Ended("b/x", Undone("done", "gone"), "runner")])
    assert [each.injection for each in (made.read() or book).left] == ["a/x y"]


@pytest.mark.parametrize("state", [REVERTING, CLOSED])
def test_once_somebody_reverts_nothing_is_armed_and_it_never_opens_again(cluster: FakeCluster, state: str) -> None:
    made = ledger(cluster)
    made.turn(state, "why not")
    with pytest.raises(Closed, match="why not"):
        made.arm([Armed("a", (WORD,), 9.0)])
    made.end([Ended("a", Undone("done", "gone"), "runner")])
    made.turn(CLOSED, "at the end")
    made.turn(REVERTING, "too late")
    book = made.read()
    assert book is not None
    assert (book.state, book.armed) == (CLOSED, ())


def spoil(cluster: FakeCluster, data: object) -> None:
    body = {"data": data}
    path = f"/api/v1/namespaces/{rig.SUITE}/configmaps/stormdrill-r1"
    assert Api(cluster.admin).call("PATCH", path, body, content_type=MERGE_PATCH).good


@pytest.mark.parametrize("data", [{"state": None}, {"state": ""}, {"state": "opne"}, None])
def test_a_state_that_a_person_has_spoilt_is_read_as_reverting_and_can_be_closed(
    cluster: FakeCluster, data: object
) -> None:
    made = ledger(cluster)
    made.arm([Armed("a", (WORD,), 9.0)])
    spoil(cluster, data)
    book = made.read()
    assert book is not None
    assert book.state == REVERTING
    assert "somebody has edited the ledger: its state is" in book.why
    with pytest.raises(Closed, match="somebody has edited"):
        made.arm([Armed("b", (WORD,), 9.0)])
    made.turn(REVERTING, "seen")
    made.end([Ended("a", Undone("done", "gone"), "watchdog")])
    made.turn(CLOSED, "at the end")
    book = made.read()
    assert book is not None
    assert (book.state, book.why) == (CLOSED, "at the end")


def test_closed_by_hand_it_is_closed_only_once_nothing_is_left(cluster: FakeCluster) -> None:
    made = ledger(cluster)
    made.arm([Armed("a", (WORD,), 9.0)])
    spoil(cluster, {"state": CLOSED})
    book = made.read()
    assert book is not None
    assert book.state == REVERTING
    assert "says closed, and 1 entries are not known to be reverted" in book.why
    made.end([Ended("a", Undone("done", "gone"), "watchdog")])
    assert (made.read() or book).state == CLOSED


def test_a_ledger_that_is_gone_takes_nothing(cluster: FakeCluster) -> None:
    made = ledger(cluster)
    made.remove()
    with pytest.raises(Closed, match="is gone"):
        made.arm([Armed("a", (WORD,), 9.0)])
    assert made.read() is None


@pytest.mark.parametrize("what", ["drop-after", "drop-before", "500", "503"])
def test_what_is_written_survives_a_request_that_goes_wrong(cluster: FakeCluster, what: str) -> None:
    cluster.trouble(("POST|PATCH", "configmaps"), what)
    made = ledger(cluster)
    cluster.trouble(("PATCH", "configmaps"), what)
    made.arm([Armed("a", (WORD,), 9.0)])
    book = made.read()
    assert book is not None
    assert [each.injection for each in book.armed] == ["a"]


def test_a_second_ledger_of_the_same_run_is_refused(cluster: FakeCluster) -> None:
    ledger(cluster)
    with pytest.raises(Refused, match="exists already"):
        ledger(cluster)


def test_what_a_configmap_cannot_hold_is_refused_with_its_size(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "LARGEST", 2000)
    made = ledger(cluster)
    made.arm([Armed("a", (WORD,), 9.0)])
    with pytest.raises(Full, match=r"would hold \d+ bytes with what becomes of all that, and a ConfigMap holds 2000"):
        made.arm([Armed("b", (WORD,) * 9, 9.0)])
    made.arm([Armed("a", (WORD,), 8.0)])  # in the place of what stood there


def test_what_somebody_has_spoilt_in_it_is_named_and_the_rest_is_read(cluster: FakeCluster) -> None:
    made = ledger(cluster)
    made.arm([Armed("a", (WORD,), 9.0), Armed("b", (WORD,), 9.0, 1)])
    Api(cluster.admin).call("PATCH", made.path, {"data": {"armed.a": "{"}}, content_type=MERGE_PATCH)
    book = made.read()
    assert book is not None
    assert [each.injection for each in book.armed] == ["b"]
    assert book.unreadable
    assert book.unreadable[0].startswith("armed.a: ")


def test_the_annotation_of_a_person_is_read_with_its_reason(cluster: FakeCluster) -> None:
    made = ledger(cluster)
    for said, read in (("enough", "enough"), ("", "no reason given")):
        body = {"metadata": {"annotations": {naming.STOP: said}}}
        Api(cluster.admin).call("PATCH", made.path, body, content_type=MERGE_PATCH)
        book = made.read()
        assert book is not None
        assert book.stop == read


def test_without_the_right_to_write_it_the_servers_words_are_told(cluster: FakeCluster) -> None:
    api = Api(cluster.access(cluster.account(rig.PLATFORM, "nobody")))
    with pytest.raises((Refused, Unreachable), match="forbidden"):
        Ledger(api, rig.SUITE, "r1").create({}, "platform")


@pytest.mark.parametrize("text", ["platform", "Shop EU", "ü", "a" * 80, "x_y.z"])
def test_a_systems_name_becomes_a_label_and_two_names_stay_two(text: str) -> None:
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", naming.label(text))
    assert len(naming.lease(text)) <= 63
    assert naming.label(text) != naming.label(f"{text}!")


@pytest.mark.parametrize("text", ["region-loss/eu-cpu-1", "a", "ü/b c", "x" * 300])
def test_an_injections_key_is_one_that_a_configmap_takes(text: str) -> None:
    assert re.fullmatch(r"[-._a-zA-Z0-9]{1,200}", naming.key(text))
    assert naming.key(text) != naming.key(text.replace("/", ".")) or "/" not in text
