"""A system on two clusters: each is held by itself, a whole one is lost, and whoever dies, both are mended."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from cluster_shop import EXPERIMENT, NODES, SHOP, SUITE, SYSTEM, Shop, front, outcome, service, web
from drill import Repository

from fake_cluster import FakeCluster
from stormdrill.model.event import ClusterHeld, EffectObserved, KeeperStarted, RunEnded

LIMIT_S = 180.0
pytestmark = [pytest.mark.real, pytest.mark.timeout(LIMIT_S)]


@dataclass
class Both:
    repository: Repository
    shops: dict[str, Shop]
    """By region, which is the cluster's name."""

    def causes(self) -> list[str]:
        return [f"{region} {one}" for region, shop in self.shops.items() for one in shop.causes()]

    def left_behind(self) -> list[str]:
        return [f"{region} {one}" for region, shop in self.shops.items() for one in shop.left_behind()]

    def allow(self) -> None:
        """To each cluster what it takes there."""
        for region, shop in self.shops.items():
            printed = self.repository.command("plan", "experiments/shop.yaml", "--rbac", "--cluster", region)
            assert printed.returncode == 0, printed.stderr
            shop.cluster.apply(list(yaml.safe_load_all(printed.stdout)))


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Both]:
    with contextlib.ExitStack() as stack:
        shops: dict[str, Shop] = {}
        repository = Repository(tmp_path, "shop")
        for region in ("eu", "us"):
            cluster = stack.enter_context(FakeCluster(run_images=(SHOP, SUITE)))
            cluster.nodes(3, region)
            for name, labels in (("shop", {"stormdrill.dev/drill": "allowed"}), ("stormdrill", {})):
                cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
            cluster.apply([web(region), service(region), *([front()] if region == "us" else [])])
            shops[region] = Shop(cluster, repository)
            cluster.kubeconfig(tmp_path / region, context=f"{region}-admin")
        repository.environment["KUBECONFIG"] = f"{tmp_path / 'eu'}{os.pathsep}{tmp_path / 'us'}"
        repository.environment["XDG_STATE_HOME"] = str(tmp_path / "state")
        (tmp_path / "state").mkdir()
        (tmp_path / "runs").mkdir()
        (tmp_path / "experiments" / "systems").mkdir(parents=True)
        system = SYSTEM.format(image=SUITE, lease="4s", empties="taint")
        system = system.replace("  namespace: shop", "  namespace: shop\n  contexts: {eu: eu-admin, us: us-admin}")
        system = system.replace("  node_labels: {region: topology.kubernetes.io/region}\n", "")
        (tmp_path / "experiments" / "systems" / "shop.yaml").write_text(system)
        times = {"baseline": "3s", "fault": "3s", "recovery": "1s", "load": "observed"}
        (tmp_path / "experiments" / "shop.yaml").write_text(EXPERIMENT.format(use=NODES, **times))
        over = threading.Event()
        users = threading.Thread(target=_use, args=(shops, over), daemon=True)
        for region, shop in shops.items():
            shop.eventually(lambda shop=shop, region=region: shop.ready(region), what=f"{region} never got ready")  # type: ignore[misc]
        users.start()
        yield Both(repository, shops)
        over.set()
        users.join(5)


def _use(shops: dict[str, Shop], over: threading.Event) -> None:
    while not over.wait(0.02):
        for region, shop in shops.items():
            for pod in shop.pods(region):
                with contextlib.suppress(OSError):
                    if address := pod["status"].get("podIP"):
                        urllib.request.urlopen(f"http://{address}:8080/", timeout=0.3).read()


def test_a_whole_cluster_is_lost_and_comes_back(both: Both) -> None:
    both.allow()
    done = both.repository.command("run", "experiments/shop.yaml", "--target", "kubernetes", "--json", limit_s=120)
    assert outcome(done.stdout).get("verdict") == "PASS", f"{done.stderr}\n{done.stdout}"
    assert {item.cluster for item in both.shops["eu"].of(ClusterHeld)} == {"eu", "us"}
    assert both.causes() == []
    assert both.left_behind() == []


def test_whoever_dies_both_clusters_are_mended(both: Both) -> None:
    both.allow()
    place = both.repository.root / "experiments" / "shop.yaml"
    place.write_text(place.read_text().replace("fault: 3s", "fault: 60s"))
    shop = both.shops["eu"]
    process = both.repository.start("run", "experiments/shop.yaml", "--target", "kubernetes", "--json")
    shop.eventually(lambda: shop.of(EffectObserved) or process.poll() is not None)
    assert process.poll() is None, process.communicate()[1]
    keeper = shop.of(KeeperStarted)[0].pid
    os.kill(process.pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(keeper, signal.SIGKILL)
    process.communicate()
    shop.eventually(lambda: both.causes() == [])
    with both.shops["us"].cluster.outage():
        half = both.repository.command("recover", shop.run_dir.name)
        assert half.returncode == 0, "nothing was changed in the cluster that can't be reached"
    assert shop.of(RunEnded)[-1].status == "aborted"
    swept = both.repository.command("sweep", "--target", "kubernetes", "--context", "us-admin")
    assert swept.returncode == 0, swept.stdout + swept.stderr
    assert both.left_behind() == []
