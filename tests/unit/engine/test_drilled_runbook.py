"""A runbook inside an experiment: it acts for its alert, never into an abort, and never when its record is lost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from runbook_world import Admin, MemoryKeeper, admin_server, block, runbook_of

from stormdrill.engine.drill import DrilledRunbook
from stormdrill.errors import KeeperGone
from stormdrill.model.event import RunbookFinished, RunbookStarted, StepFinished
from stormdrill.model.experiment import RunbookUse
from stormdrill.model.expression import AlertWithin, Expression
from stormdrill.ports import Held
from stormdrill.probes.call import Calls
from stormdrill.redact import Redactor

DRAIN = block(
    "action id=drain risk=medium idempotent timeout=5s undo=undrain",
    "POST {{ admin }}/regions/{{ region }}/drain",
    "verify: GET {{ admin }}/regions/{{ region }} .draining == true",
)
UNDRAIN = block("undo id=undrain", "POST {{ admin }}/regions/{{ region }}/admit")
USE = RunbookUse("test", AlertWithin("alert(RegionDown)", "RegionDown"), else_after_s=5.0)


class Calm:
    def evaluate(self, expression: Expression) -> Held:
        return Held(True, 100.0)


@pytest.fixture
def admin() -> Iterator[Admin]:
    with admin_server() as server:
        yield server


def drilled(admin: Admin, keeper: MemoryKeeper) -> DrilledRunbook:
    return DrilledRunbook(
        runbook_of(DRAIN, UNDRAIN),
        USE,
        keeper=keeper,
        caller=Calls(),
        sight=Calm(),
        admin=lambda: admin.url,
        horizon_s=30.0,
        redactor=Redactor(),
    )


def test_it_acts_on_the_region_that_the_alert_names_and_waits_for_its_exit(admin: Admin) -> None:
    keeper = MemoryKeeper()
    drilled(admin, keeper).start("alert(RegionDown)", {"region": "us"})
    assert admin.regions["us"]["draining"]
    assert not admin.regions["eu"]["draining"]
    assert [event.outcome for event in keeper.events if isinstance(event, RunbookFinished)] == ["done"]


def test_a_run_that_was_stopped_before_it_began_is_not_acted_on(admin: Admin) -> None:
    keeper = MemoryKeeper()
    runbook = drilled(admin, keeper)
    runbook.cancel()
    runbook.start("alert(RegionDown)", {"region": "eu"})
    assert not [call for call in admin.calls if call.startswith("POST")]
    assert not [event for event in keeper.events if isinstance(event, RunbookStarted)]
    assert [event.outcome for event in keeper.events if isinstance(event, RunbookFinished)] == ["cancelled"]


def test_parameters_that_the_alert_does_not_give_well_start_nothing(admin: Admin) -> None:
    keeper = MemoryKeeper()
    drilled(admin, keeper).start("alert(RegionDown)", {"region": "mars"})
    assert [event.outcome for event in keeper.events if isinstance(event, RunbookFinished)] == ["not-started"]
    assert not [call for call in admin.calls if call.startswith("POST")]


def test_a_record_that_is_lost_is_told_to_the_conductor(admin: Admin) -> None:
    keeper = MemoryKeeper()
    keeper.refuse = {StepFinished.type}
    with pytest.raises(KeeperGone):
        drilled(admin, keeper).start("alert(RegionDown)", {"region": "eu"})
