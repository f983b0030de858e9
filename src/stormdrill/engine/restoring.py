"""Whether the system is as it was in the baseline: waits, at the end of a run, until everything answers again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from stormdrill.core import telling
from stormdrill.core.fold import State
from stormdrill.model.event import Restored
from stormdrill.model.plan import Plan

LIMIT_S = 3.0
"""Where the undo itself brings back what was taken, and has been seen to."""
LOOK_S = 0.02


def limit_s(plan: Plan, state: State, status: str) -> float:
    """In a cluster an undo only lets pods come back: scheduler, kubelet and system make them, and have the time for it
    that the system has to be ready. Nobody makes them where it is deleted, or where something is still in force."""
    hopeless = status == "dirty" or (state.abort is not None and state.abort.by == "deleted")
    return LIMIT_S if hopeless or not plan.clusters else max(LIMIT_S, plan.system.ready_timeout_s)


def restored(
    plan: Plan, ready: Callable[[], Mapping[str, bool]], within_s: float, over: Callable[[], bool]
) -> Restored:
    """As soon as everything answers, within the limit at the latest, or once it is `over`, with what is so then."""
    began_s = time.monotonic()
    while not (all((answered := ready()).values()) or over()) and time.monotonic() < began_s + within_s:
        time.sleep(LOOK_S)
    took_s = time.monotonic() - began_s
    silent = ", ".join(sorted(name for name, yes in answered.items() if not yes))
    waited = f" after {took_s:.0f} s" if took_s > 2 * LIMIT_S else ""
    if silent:
        return Restored(False, f"does not answer{waited}: {silent}")
    count = len(plan.system.instances)
    return Restored(True, f"{telling.system_text(count, plan.target, proxied=len(answered) > count)} answer{waited}")
