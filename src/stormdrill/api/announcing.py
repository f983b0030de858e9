"""Shows a run's plan once nothing refuses it any more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stormdrill.api.session import Observer
    from stormdrill.model.event import Recorded
    from stormdrill.model.plan import Plan
    from stormdrill.ports import LiveLoad


class Announcing:
    """Shows the plan when the first event is told: a run that is refused says why, and nothing else."""

    def __init__(self, made: Plan, announce: Callable[[Plan], None], observer: Observer) -> None:
        self._made: Plan | None = made
        self._announce = announce
        self._observer = observer
        self._first = Lock()

    def __call__(self, what: Recorded | LiveLoad | None, gauges: Mapping[str, float] | None = None) -> None:
        with self._first:
            if self._made is not None:
                made, self._made = self._made, None
                self._announce(made)
        self._observer(what, gauges)
