"""How a Pod's kin lie over the cluster: counted once for each Pod that is placed, asked for every node."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

from fake_cluster.ground import Ground
from fake_cluster.matching import Obj, controller_of, deleted_at, ended, labels_of, node_fits, selects

ZONE = "topology.kubernetes.io/zone"


class Spread:
    def __init__(self, ground: Ground, pod: Obj, nodes: list[Obj]) -> None:
        self._pod, self._nodes = pod, nodes
        self._owner = (controller_of(pod) or {}).get("uid")
        self._here = {
            name: [one for one in ground.on_node(name) if not ended(one) and not deleted_at(one)]
            for name in (node["metadata"]["name"] for node in nodes)
        }
        self._counts: dict[str, Counter[str]] = {}

    def crowd(self, node: Obj) -> tuple[int, int, int, int]:
        """The fewer, the better: alike where it wants to be spread, kin on the node and in its zone, Pods at all."""
        here = self._here[node["metadata"]["name"]]
        alike = sum(
            self._count(key, self._like(selector), json.dumps(selector))[labels_of(node).get(key, "")]
            for key, selector in self._wishes()
        )
        kin = sum(self._is_kin(one) for one in here)
        zone = self._count(ZONE, self._is_kin, "kin")[labels_of(node).get(ZONE, "")]
        return alike, kin, zone, len(here)

    def apart_from(self, node: Obj) -> bool:
        """A Pod that it must not be near is there."""
        rules = ((self._pod["spec"].get("affinity") or {}).get("podAntiAffinity") or {}).get(
            "requiredDuringSchedulingIgnoredDuringExecution"
        )
        for rule in rules or []:
            selector, key = rule.get("labelSelector"), rule["topologyKey"]
            if self._count(key, self._like(selector), json.dumps(selector))[labels_of(node).get(key, "")]:
                return True
        return False

    def uneven(self, node: Obj) -> bool:
        for rule in self._pod["spec"].get("topologySpreadConstraints") or []:
            if rule.get("whenUnsatisfiable", "DoNotSchedule") != "DoNotSchedule":
                continue
            selector, key = rule.get("labelSelector"), rule["topologyKey"]
            counts = self._count(key, self._like(selector), json.dumps(selector))
            fitting = [one for one in self._nodes if key in labels_of(one) and node_fits(self._pod["spec"], one)]
            where = labels_of(node).get(key)
            least = min((counts[labels_of(one)[key]] for one in fitting), default=0)
            if where is None or counts[where] + 1 - least > rule["maxSkew"]:
                return True
        return False

    def _wishes(self) -> list[tuple[str, Obj | None]]:
        spec = self._pod["spec"]
        rules = [(one["topologyKey"], one.get("labelSelector")) for one in spec.get("topologySpreadConstraints") or []]
        preferred = ((spec.get("affinity") or {}).get("podAntiAffinity") or {}).get(
            "preferredDuringSchedulingIgnoredDuringExecution"
        )
        terms = [one["podAffinityTerm"] for one in preferred or []]
        return rules + [(one["topologyKey"], one.get("labelSelector")) for one in terms]

    def _count(self, key: str, alike: Callable[[Obj], bool], name: str) -> Counter[str]:
        """Value of the topology → how many there; of the empty one, none."""
        memo = f"{key} {name}"
        if memo not in self._counts:
            counts: Counter[str] = Counter()
            for node in self._nodes:
                if where := labels_of(node).get(key):
                    counts[where] += sum(alike(one) for one in self._here[node["metadata"]["name"]])
            self._counts[memo] = counts
        return self._counts[memo]

    def _is_kin(self, other: Obj) -> bool:
        return self._owner is not None and (controller_of(other) or {}).get("uid") == self._owner

    def _like(self, selector: Obj | None) -> Callable[[Obj], bool]:
        place = self._pod["metadata"].get("namespace")
        return lambda other: other["metadata"].get("namespace") == place and selects(selector, labels_of(other))
