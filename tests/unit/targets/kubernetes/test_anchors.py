"""Where a run leaves an object of its own: only where it creates something."""

from __future__ import annotations

from pathlib import Path

import pytest

from fake_cluster import FakeCluster, scenes
from shop_cluster import bound, shop, system_of, target_of
from stormdrill.targets.kubernetes.drilling import Drilling


@pytest.mark.parametrize(
    ("empties", "mode", "anchored"),
    [("evict", "crash", ()), ("delete", "crash", ()), ("taint", "crash", ()), ("taint", "isolate", ("shop",))],
)
def test_an_eviction_makes_nothing_and_needs_no_anchor(
    tmp_path: Path, empties: str, mode: str, anchored: tuple[str, ...]
) -> None:
    with FakeCluster(world=False) as cluster:
        shop(cluster)
        cluster.apply(scenes.namespace("other-team"))
        target = target_of(cluster, system_of(tmp_path, empties=empties), tmp_path)
        drilling = Drilling(target.clusters, target.mechanisms, bound(target, "region-loss", region="eu", mode=mode))
        harm = drilling.of_injections()
        assert drilling.anchored("", harm) == anchored
        owned = {need.namespace for need in drilling.needs() if need.resource == "configmaps"}
        assert owned == {"stormdrill", *anchored}
        if empties == "evict":
            assert {need.namespace for need in harm if need.subresource == "eviction"} == {"shop", "other-team"}
