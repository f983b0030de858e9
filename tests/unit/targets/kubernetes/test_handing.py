"""Who takes a run over says who has reverted it in the cluster, and where nobody can say so any more, that."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest

from fake_cluster import FakeCluster
from stormdrill.cluster import mended, naming
from stormdrill.cluster.api import Api
from stormdrill.cluster.changes import Undone
from stormdrill.cluster.ledger import CLOSED, Armed, Ended, Ledger
from stormdrill.model.undo import KubeDelete
from stormdrill.targets.kubernetes.clusters import LiveClusters
from stormdrill.targets.kubernetes.handing import NO_LEDGER, ClusterHands
from stormdrill.targets.kubernetes.sweeping import sweep

RUN, SUITE = "r1", "stormdrill"
WORD = KubeDelete("", "/api/v1/namespaces/shop/configmaps/ours", RUN)


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster() as made:
        for name in (SUITE, "shop"):
            made.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        yield made


def hands(cluster: FakeCluster) -> ClusterHands:
    api = Api(cluster.admin)
    known = SimpleNamespace(run=RUN, system="shop", names=("",), spec=SimpleNamespace(suite=SUITE), api=lambda _: api)
    return ClusterHands(cast(LiveClusters, known))


def mended_by_the_watchdog(cluster: FakeCluster) -> Api:
    ledger = Ledger(Api(cluster.admin), SUITE, RUN)
    ledger.create({"run": RUN, "system": "shop", "lease": naming.lease("shop")}, "shop")
    ledger.arm([Armed("quota/shop", (WORD,), 10.0)])
    ledger.end(
        [Ended("quota/shop", Undone("done", "ours is gone", "the API server"), "watchdog", "2026-11-22T15:14:46Z")]
    )
    ledger.turn(CLOSED, "over")
    return ledger.api


def test_what_the_ledger_says_is_told_with_who_and_when(cluster: FakeCluster) -> None:
    mended_by_the_watchdog(cluster)
    (told,) = hands(cluster).undo("quota/shop", [WORD])
    assert told == (
        "done",
        "by the watchdog at 2026-11-22T15:14:46Z: ours is gone",
        "the API server",
        told.at,
        "watchdog",
    )
    assert told.at == "2026-11-22T15:14:46Z"


def test_where_the_ledger_was_swept_its_lease_tells_who_and_when(cluster: FakeCluster) -> None:
    sweep(mended_by_the_watchdog(cluster), SUITE)
    (told,) = hands(cluster).undo("quota/shop", [WORD])
    at = "2026-11-22T15:14:46Z"
    assert (told.word, told.seen, told.at, told.by) == ("done", "the API server", at, "watchdog")
    assert told.detail.startswith(f"by the watchdog at {at}: {WORD.path} is not there (run {RUN} (over): ")
    assert f"its ledger was removed by {mended.here('sweep')} at " in told.detail


def test_only_of_what_the_lease_names_it_is_said_who_did_it(cluster: FakeCluster) -> None:
    """Its injections are as many as have room there; another's name may begin alike."""
    sweep(mended_by_the_watchdog(cluster), SUITE)
    (told,) = hands(cluster).undo("quota/shop-2", [WORD])
    assert (told.word, told.at, told.by) == ("superseded", "", "")
    assert told.detail.startswith(f"run {RUN} (over): ")


def test_what_is_there_after_the_ledger_was_swept_is_reverted_now_and_told_as_that(cluster: FakeCluster) -> None:
    api = mended_by_the_watchdog(cluster)
    sweep(api, SUITE)
    labels = {naming.LABEL: RUN}
    metadata = {"name": "ours", "namespace": "shop", "labels": labels}
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    (told,) = hands(cluster).undo("quota/shop", [WORD])
    assert (told.word, told.at, told.by) == ("done", "", "")


@pytest.mark.parametrize("word", ["done", "superseded"])
@pytest.mark.parametrize("by", ["watchdog", "recover", "runner"])
@pytest.mark.parametrize("at", ["2026-11-22T15:14:46Z", "2026-11-22T15:14:46.657123Z"])
def test_what_the_lease_keeps_of_an_injection_is_read_as_the_ledger_had_it(
    cluster: FakeCluster, word: str, by: str, at: str
) -> None:
    """To the millisecond."""
    ledger = Ledger(Api(cluster.admin), SUITE, RUN)
    ledger.create({"run": RUN, "system": "shop", "lease": naming.lease("shop")}, "shop")
    ledger.arm([Armed("quota/shop", (WORD,), 10.0)])
    ledger.end([Ended("quota/shop", Undone(word, "ours is gone"), by, at)])
    book = ledger.read()
    assert book is not None
    one = mended.of(book, "sweep")
    assert one is not None
    assert one.became("quota/shop") == (word, by, f"{at.removesuffix('Z')[:23]}Z")
    assert one.became("quota") is None


@pytest.mark.parametrize("trouble", ["", "403"])
def test_where_the_lease_tells_nothing_it_is_said_that_nobody_knows(cluster: FakeCluster, trouble: str) -> None:
    if trouble:
        cluster.trouble(("GET", "leases"), trouble)
    (told,) = hands(cluster).undo("quota/shop", [WORD])
    assert (told.word, told.seen) == ("superseded", "the API server")
    assert told.detail.startswith(f"{NO_LEDGER}: ")
    assert told.detail.endswith(f"{WORD.path} is not there")
