"""Credentials that are renewed while a run lasts are removed from its record like those that it began with."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fake_cluster import FakeCluster
from keeping import KeptRun, kept_run
from shop_cluster import system_of
from stormdrill.cluster.inside import InCluster
from stormdrill.errors import StormdrillError
from stormdrill.keeper import procfs
from stormdrill.keeper.takeover import take_over
from stormdrill.model.event import Warned
from stormdrill.model.undo import KubeDelete
from stormdrill.redact import MASK, Redactor
from stormdrill.store.journal import NAME
from stormdrill.targets.kubernetes.clusters import LiveClusters
from stormdrill.targets.kubernetes.handing import ClusterHands
from stormdrill.targets.kubernetes.kubeconfig import access_for
from stormdrill.targets.kubernetes.target import KubernetesTarget

FIRST, LATER = "token-that-it-began-with", "token-that-came-later"


@pytest.fixture
def run(tmp_path: Path) -> Iterator[KeptRun]:
    with kept_run(tmp_path / "runs") as kept:
        yield kept


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file with the token of the current context, at a cluster that knows neither of the two."""
    place = tmp_path / "token"
    place.write_text(FIRST)
    with FakeCluster() as cluster:
        config = cluster.kubeconfig(tmp_path / "config", token="")
        told = json.loads(config.read_text())
        told["users"][0]["user"] = {"tokenFile": str(place)}
        config.write_text(json.dumps(told))
        monkeypatch.setenv("KUBECONFIG", str(config))
        yield place


def clusters_of(run: KeptRun, tmp_path: Path) -> LiveClusters:
    spec = system_of(tmp_path).kubernetes
    assert spec is not None
    return LiveClusters(spec, run=run.dir.name, system="shop")


def test_a_renewed_token_is_in_no_record_of_the_run(run: KeptRun, token: Path, tmp_path: Path) -> None:
    clusters, mine = clusters_of(run, tmp_path), Redactor()
    target = KubernetesTarget(system_of(tmp_path), run.dir, clusters=clusters)
    keeper = target.keeping(run.keeper, str, mine.register)
    api = clusters.api("")
    keeper.record(Warned(f"at first: {FIRST}"))
    token.write_text(LATER)
    assert api.call("GET", "/api/v1/nodes").status == 401  # so that the file was read anew
    assert api.access.headers() == {"Authorization": f"Bearer {LATER}"}
    keeper.record(Warned(f"an error that repeats Bearer {LATER}"))
    assert [event.text for event in run.events(Warned)] == [f"at first: {MASK}", f"an error that repeats Bearer {MASK}"]
    assert mine.text(f"{FIRST} {LATER}") == f"{MASK} {MASK}"


def test_it_is_told_before_it_is_used(token: Path) -> None:
    access, known = access_for(), []

    def tell(_: str, value: str) -> None:
        assert access.headers() == {"Authorization": f"Bearer {FIRST}"}
        known.append(value)

    access.hide(tell)  # type: ignore[attr-defined]  # a Configured
    token.write_text(LATER)
    assert access.refresh()
    assert known == [FIRST, LATER]
    assert access.headers() == {"Authorization": f"Bearer {LATER}"}


def test_that_of_a_pod_is_told_whenever_it_was_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "token"
    place.write_text(FIRST)
    monkeypatch.setenv("STORMDRILL_SERVICEACCOUNT", str(tmp_path))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    access, known = InCluster(), []
    access.hide(lambda _, value: known.append(value))
    access.headers()
    place.write_text(LATER)
    access.headers()
    assert known == [FIRST, LATER]


def test_who_takes_a_run_over_hides_its_own(run: KeptRun, token: Path, tmp_path: Path) -> None:
    class Repeating(ClusterHands):
        def _account(self, cluster: str):  # type: ignore[no-untyped-def]  # raises only
            raise StormdrillError(f"refused: {self._clusters.api(cluster).access.headers()}")

    run.arm("outage/web", KubeDelete("", "/api/v1/namespaces/shop/configmaps/x", "run"))
    run.keeper.on_push = None
    procfs.kill_until_gone([run.keeper.identity], 5.0)
    take_over(run.dir, "runner", hands=Repeating(clusters_of(run, tmp_path)))
    journal = (run.dir / NAME).read_text()
    assert f"Bearer {MASK}" in journal
    assert FIRST not in journal
