"""A ledger is closed when it tells of everything what became of it, and not before."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import cluster_rig as rig
from cluster_rig import NODE, SUITE, WORKER, patch_of, scaled, taint
from fake_cluster import FakeCluster
from stormdrill.cluster import reverting
from stormdrill.cluster.api import Answer, Api
from stormdrill.cluster.changes import Undone
from stormdrill.cluster.changing import apply
from stormdrill.cluster.ledger import CLOSED, REVERTING, Armed, Ended, Ledger
from stormdrill.cluster.watchdog import Watchdog
from stormdrill.errors import Unreachable


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    """Nothing acts in it but who is asked."""
    with FakeCluster(world=False) as made:
        rig.small_world(made)
        yield made


@pytest.fixture
def ledger(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """Of a run that has scaled the worker to nothing."""
    monkeypatch.setattr(reverting, "LIMIT_S", 0.1)
    made = Ledger(Api(cluster.admin), SUITE, "r1")
    about = {"run": "r1", "system": "platform", "lease": "stormdrill-platform", "lease_s": 1.0, "namespaces": []}
    made.create(about, "platform")
    change = patch_of(cluster.read(WORKER) or {}, WORKER, "r1", "a", scaled(0, 3))
    made.arm([Armed("a", (change.undo,), 60.0, 1)])
    apply(made.api, change, "r1", "a", lambda: None)
    return made


@pytest.fixture
def dog(ledger: Ledger) -> Watchdog:
    """On a clock of which each look is a minute."""
    clock = [0.0]

    def minute() -> float:
        clock[0] += 60.0
        return clock[0]

    return Watchdog(ledger.api, "r1", SUITE, asked="recovered by hand", now=minute)


def replicas(cluster: FakeCluster) -> int:
    return int((cluster.read(WORKER) or {})["spec"]["replicas"])


class Forgetful(Api):
    """What became of injections can't be written while it lasts."""

    lasts = True

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        if self.lasts and method == "PATCH" and "configmaps" in path and "ended." in json.dumps(body):
            return Answer(503, {}, b'{"message": "an outage"}')
        return super().call(method, path, body, **options)


def test_a_ledger_that_lacks_what_became_of_an_injection_is_not_closed_until_it_is_written(
    cluster: FakeCluster, ledger: Ledger, dog: Watchdog
) -> None:
    api = Forgetful(cluster.admin)
    told: list[str] = []
    dog.api, dog.tell = api, told.append
    dog.__post_init__()
    for _ in range(3):
        assert not dog.step()
    assert replicas(cluster) == 3
    assert state(ledger) == REVERTING
    assert any("could not be written down" in said for said in told)
    api.lasts = False
    assert dog.step()
    book = ledger.read()
    assert book is not None
    assert (book.state, book.left, book.spoilt) == (CLOSED, (), "")
    assert book.ended["a"].undone.word == "done"


def state(ledger: Ledger) -> str:
    return str((ledger.api.call("GET", ledger.path).read()["data"])["state"])  # type: ignore[index]  # a ConfigMap's


def overwritten(ledger: Ledger) -> None:
    """By a runner that lives, and whose own undo came to no end."""
    ledger.end([Ended("a", Undone("failed", "no success within 10 s"), "runner")])


def taken_out(ledger: Ledger) -> None:
    answer = ledger.api.call("GET", ledger.path).read()
    kept = {name: None if name.startswith("ended.") else value for name, value in answer["data"].items()}  # type: ignore[attr-defined]  # a ConfigMap's
    patch = {"data": kept}
    assert ledger.api.call("PATCH", ledger.path, patch, content_type="application/merge-patch+json").good


@pytest.mark.parametrize("how", [overwritten, taken_out])
def test_what_others_make_of_it_meanwhile_is_written_again(
    cluster: FakeCluster, ledger: Ledger, dog: Watchdog, how: Callable[[Ledger], None]
) -> None:
    look_again = dog._reverter.look_again

    def meanwhile(*what: Any) -> list[str]:
        left = look_again(*what)
        how(ledger)
        return left

    dog._reverter = Meanwhile(dog._reverter, meanwhile)  # type: ignore[assignment]  # stands for it
    assert dog.step()
    book = ledger.read()
    assert book is not None
    assert (book.state, book.left, book.spoilt) == (CLOSED, (), "")


class Meanwhile:
    def __init__(self, reverter: Any, look_again: Callable[..., list[str]]) -> None:
        self._reverter, self.look_again = reverter, look_again

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reverter, name)


def test_what_was_armed_while_the_ledger_could_not_be_closed_is_reverted_before_it_is(
    cluster: FakeCluster, ledger: Ledger, dog: Watchdog
) -> None:
    dog.reverting = "the ledger can't be closed, reverting all the same"
    change = patch_of(cluster.read(NODE) or {}, NODE, "r1", "b", taint("r1"))
    look_again = dog._reverter.look_again

    def meanwhile(*what: Any) -> list[str]:
        left = look_again(*what)
        if "b" not in dog.armed:
            ledger.arm([Armed("b", (change.undo,), 60.0, 2)])
            apply(ledger.api, change, "r1", "b", lambda: None)
        return left

    dog._reverter = Meanwhile(dog._reverter, meanwhile)  # type: ignore[assignment]  # stands for it
    assert not dog.step()
    assert dog.step()
    assert "taints" not in (cluster.read(NODE) or {})["spec"]
    book = ledger.read()
    assert book is not None
    assert (book.state, book.left) == (CLOSED, ())


def test_a_ledger_that_is_removed_meanwhile_keeps_nobody_back(
    cluster: FakeCluster, ledger: Ledger, dog: Watchdog
) -> None:
    dog._reverter = Meanwhile(dog._reverter, lambda *_: ledger.remove() or [])  # type: ignore[assignment]  # as above
    assert dog.step()
    assert replicas(cluster) == 3


class Closing(Api):
    """The ledger takes no word of the watchdog's while it lasts."""

    lasts = True

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        if self.lasts and method == "PATCH" and "configmaps" in path:
            return Answer(403, {}, b'{"message": "forbidden"}')
        return super().call(method, path, body, **options)


def test_what_was_made_while_the_ledger_could_not_be_closed_is_reverted_once_it_is(
    cluster: FakeCluster, ledger: Ledger
) -> None:
    """A runner that lives has found it open, and the injection not ended."""
    clock = [0.0]
    api = Closing(cluster.admin)
    dog = Watchdog(api, "r1", SUITE, asked="recovered by hand", now=lambda: clock[0])
    change = patch_of(cluster.read(WORKER) or {}, WORKER, "r1", "a", scaled(0, 3))
    for _ in range(10):
        clock[0] += 60.0
        with pytest.raises(Unreachable):
            dog.step()
        if replicas(cluster) == 3:
            break
    apply(ledger.api, change, "r1", "a", lambda: None)
    assert replicas(cluster) == 0
    api.lasts = False
    clock[0] += 60.0
    assert dog.step()
    assert replicas(cluster) == 3
    book = ledger.read()
    assert book is not None
    assert (book.state, book.left) == (CLOSED, ())
