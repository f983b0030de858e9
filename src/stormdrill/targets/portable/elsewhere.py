"""Words that only a live cluster can do: every other target refuses them when planning, and says where they are."""

from __future__ import annotations

from collections.abc import Iterable

from stormdrill.model.plan import Injection
from stormdrill.model.undo import Undo
from stormdrill.ports import Effect, Mechanism


class Elsewhere:
    permission = ""

    def __init__(self, why: str) -> None:
        self._why = f"{why}; use --target kubernetes"

    def refusal(self, injection: Injection) -> str:
        return self._why

    def undo(self, injection: Injection) -> tuple[Undo, ...]:
        raise NotImplementedError(self._why)

    def apply(self, injection: Injection) -> None:
        raise NotImplementedError(self._why)

    def observe(self, injection: Injection) -> Effect:
        raise NotImplementedError(self._why)


ON_CLUSTERS: dict[str, Mechanism] = {
    "rollout": Elsewhere("nothing here has a template of which another version could be rolled out"),
    "quota": Elsewhere("nothing here has a quota that could be used up"),
    "segment": Elsewhere("nothing here forbids any traffic that could be tried"),
}
FAULTS = {"bad-release": "rollout", "quota-exhaustion": "quota", "segmentation": "segment"}
"""Faults that take one of these words, whatever their parameters."""


def possible(target: str, faults: Iterable[str]) -> bool:
    """Whether an experiment with these faults can be drilled there at all."""
    return target == "kubernetes" or FAULTS.keys().isdisjoint(faults)
