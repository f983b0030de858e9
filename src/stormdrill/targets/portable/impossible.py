"""What a target has no means for, whatever is asked of it."""

from __future__ import annotations

from stormdrill.model.plan import Injection
from stormdrill.model.undo import Undo
from stormdrill.ports import Effect


class Impossible:
    """A mechanism that a target has no means for: refused when planning, with what would help."""

    permission = ""

    def __init__(self, why: str) -> None:
        self._why = why

    def refusal(self, injection: Injection) -> str:
        return self._why

    def undo(self, injection: Injection) -> tuple[Undo, ...]:
        raise NotImplementedError(self._why)

    def apply(self, injection: Injection) -> None:
        raise NotImplementedError(self._why)

    def observe(self, injection: Injection) -> Effect:
        raise NotImplementedError(self._why)
