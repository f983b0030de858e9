"""A guard that trips is answered at once, whatever step of the run is hanging."""

from __future__ import annotations

from pathlib import Path

import pytest
from breaching import GUARD, HANGS, Hangs, breached

from stormdrill.model import event as ev

pytestmark = pytest.mark.real


@pytest.mark.parametrize("hangs", HANGS)
def test_the_revert_begins_and_is_seen_while_it_hangs(tmp_path: Path, hangs: Hangs) -> None:
    events = breached(tmp_path / "run", hangs)
    order = [item.event.type for item in events]
    tripped, reverted = order.index("guard-tripped"), order.index("revert-started")
    assert [item.event.guard for item in events if isinstance(item.event, ev.GuardTripped)] == [GUARD.text]
    assert next(item.event.cause for item in events if isinstance(item.event, ev.RevertStarted)) == "guard"
    # what hung ended after the revert had begun: nothing waited for it
    ends = {
        "the inject call": "injected",
        "the look at the effect": "effect-observed",
        "a runbook's action": "step-finished",
    }
    if hangs in ends:
        assert order.index(ends[hangs]) > max(tripped, reverted)
    assert [item.event.gone for item in events if isinstance(item.event, ev.RevertVerified)][-1]
    assert [item.event.status for item in events if isinstance(item.event, ev.RunEnded)] == ["aborted"]
