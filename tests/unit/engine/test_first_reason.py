"""Whatever follows from a cluster that was taken away is told as that, not as what was noticed first."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from stormdrill.engine.conductor import Conductor
from stormdrill.errors import Unreachable
from stormdrill.ports import Contact

GONE = "somebody has removed the ledger"


class Target:
    def __init__(self, over: str) -> None:
        self.over = over

    def contacts(self) -> Sequence[Contact]:
        return [Contact("eu")]

    def contacts_now(self) -> Sequence[Contact]:
        return [Contact("eu"), Contact("us", over=self.over)]


def aborts_of(target: object) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    conductor: Any = object.__new__(Conductor)
    conductor.target = target
    conductor.abort = lambda by, reason, *_: found.append((by, reason))
    conductor.abort_for("load", "load worker generator-0 was lost")
    return found


def test_load_that_ends_with_the_ledger_is_no_reason_of_its_own() -> None:
    assert aborts_of(Target(GONE)) == [("cluster", f"{GONE} (cluster us)")]


def test_load_that_is_lost_where_the_clusters_are_well_or_there_are_none_ends_the_run() -> None:
    lost = [("load", "load worker generator-0 was lost")]
    assert aborts_of(Target("")) == lost
    assert aborts_of(object()) == lost


def test_a_fault_that_can_not_be_armed_because_its_system_is_deleted_is_told_as_that() -> None:
    """What was measured before is no more than a system that went away."""
    deleted = "the namespace shop is being deleted by somebody"
    conductor: Any = object.__new__(Conductor)
    told: list[tuple[object, ...]] = []
    well = Contact("", over=deleted, by="deleted", well_mono_ms=7.0)
    conductor.target = SimpleNamespace(contacts=tuple, contacts_now=lambda: [well], undo_of=refuse)
    conductor.plan = SimpleNamespace(injection=lambda name: SimpleNamespace(fault="f", instance="i", mechanism="m"))
    conductor.keeper = SimpleNamespace(arm=None)
    conductor.abort = lambda *why: told.append(why)
    conductor._arm("quota/one")
    assert told == [("deleted", deleted, 7.0)]


def refuse(_: object) -> object:
    raise Unreachable("resourcequotas can't be made in a namespace that is being deleted")
