"""Whatever follows from a cluster that was taken away is told as that, not as what was noticed first."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from stormdrill.api.session import _Session
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
    session: Any = object.__new__(_Session)
    session.target = target
    session.conductor = SimpleNamespace(abort=lambda by, reason, *_: found.append((by, reason)))
    session._stop_for("load", "load worker generator-0 was lost")
    return found


def test_load_that_ends_with_the_ledger_is_no_reason_of_its_own() -> None:
    assert aborts_of(Target(GONE)) == [("cluster", f"{GONE} (cluster us)")]


def test_load_that_is_lost_where_the_clusters_are_well_or_there_are_none_ends_the_run() -> None:
    lost = [("load", "load worker generator-0 was lost")]
    assert aborts_of(Target("")) == lost
    assert aborts_of(object()) == lost
