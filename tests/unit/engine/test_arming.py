"""What is armed expires by itself: after its time, and the time that starting what does it may take."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace

from stormdrill.engine.conductor import EXPIRY_GRACE_S, Conductor, Parts
from stormdrill.model.experiment import Experiment, Phases
from stormdrill.model.plan import Injection, Plan
from stormdrill.model.system import System

ONE = Injection("f/0", "f", 0, "web", "delay", "let through", start_s=0.0, for_s=15.0, inject_timeout_s=40.0)


@pytest.mark.parametrize(("starts_up", "lasts_s"), [(False, 15.0), (True, 55.0)])
def test_nothing_expires_before_its_time_is_over(starts_up: bool, lasts_s: float) -> None:
    experiment = Experiment("x", "t", "h", "o", "s", Phases(1.0, 1.0, 15.0, 1.0, 0.0), (), ())
    plan = Plan(
        experiment, System("s", "a", ()), "kubernetes", 1, (replace(ONE, starts_up=starts_up),), 18.0, "", (), ()
    )
    told: list[dict[str, Any]] = []
    parts = SimpleNamespace(**dict.fromkeys(Parts.__dataclass_fields__))
    parts.keeper = SimpleNamespace(arm=lambda name, **more: told.append({"injection": name, **more}))
    parts.target = SimpleNamespace(undo_of=lambda injection: ())
    Conductor(plan, cast("Parts", parts))._arm(ONE.id)
    assert [(one["injection"], one["expires_in_s"]) for one in told] == [(ONE.id, lasts_s + EXPIRY_GRACE_S)]
