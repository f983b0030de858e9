"""Words that only a live cluster can do: every other target refuses them when planning, and says where they are."""

from __future__ import annotations

from collections.abc import Iterable

from stormdrill.ports import Mechanism
from stormdrill.targets.portable.impossible import Impossible


def _elsewhere(why: str) -> Mechanism:
    return Impossible(f"{why}; use --target kubernetes")


ON_CLUSTERS: dict[str, Mechanism] = {
    "rollout": _elsewhere("nothing here has a template of which another version could be rolled out"),
    "quota": _elsewhere("nothing here has a quota that could be used up"),
    "segment": _elsewhere("nothing here forbids any traffic that could be tried"),
}
FAULTS = {"bad-release": "rollout", "quota-exhaustion": "quota", "segmentation": "segment"}
"""Faults that take one of these words, whatever their parameters."""


def possible(target: str, faults: Iterable[str]) -> bool:
    """Whether an experiment with these faults can be drilled there at all."""
    return target == "kubernetes" or FAULTS.keys().isdisjoint(faults)
