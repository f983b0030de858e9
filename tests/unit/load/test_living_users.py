"""A closed loop is the load that was asked for only while all of its users are alive."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from stormdrill.core.judge import judge
from stormdrill.load.closing import Left, close_records
from stormdrill.load.messages import Ended
from stormdrill.model import event as ev
from stormdrill.model.event import event_from_json, event_to_json
from stormdrill.model.verdict import Verdict
from stormdrill.store.evidence import load
from synthetic_run import make_run


def _judged(run_dir: Path, users: int, fewest: int) -> Verdict:
    found = load(make_run(run_dir))
    events = tuple(
        dataclasses.replace(item, event=dataclasses.replace(item.event, users=users, fewest_users=fewest))
        if isinstance(item.event, ev.LoadEnded)
        else item
        for item in found.events
    )
    return judge(found.plan, events, found.records, found.ledger)


@pytest.mark.parametrize(("users", "fewest"), [(50, 5), (50, 49), (1, 0)])
def test_no_verdict_rests_on_fewer_users_than_were_asked_for(tmp_path: Path, users: int, fewest: int) -> None:
    verdict = _judged(tmp_path / "run", users, fewest)
    assert verdict.verdict == "INVALID"
    assert verdict.load is not None
    assert not verdict.load.valid
    assert f"only {fewest} of {users} users were alive: the others stopped by themselves" in verdict.load.reason


@pytest.mark.parametrize("users", [0, 50])
def test_who_has_all_users_is_judged_by_what_they_saw(tmp_path: Path, users: int) -> None:
    assert _judged(tmp_path / "run", users, users).verdict == "PASS"


def test_what_was_recorded_before_users_were_counted_is_still_read() -> None:
    word, values = "load-ended", event_to_json(ev.LoadEnded(9, 9, 0, 0, 0.1, 0, ""))
    older = {key: value for key, value in values.items() if "users" not in key}
    assert event_from_json(word, older) == ev.LoadEnded(9, 9, 0, 0, 0.1, 0, "", users=0, fewest_users=0)


def test_the_users_of_all_workers_are_counted_together(tmp_path: Path) -> None:
    def left(name: str, users: int, fewest: int) -> Left:
        ended = Ended(0, 0, 0, 0, 0, 0, 0, "", 0.1, name, users, fewest)
        return Left(name, tmp_path / name, ended, 0)

    ended, *_ = close_records(tmp_path, [left("a", 3, 3), left("b", 2, 1)])
    assert isinstance(ended, ev.LoadEnded)
    assert (ended.users, ended.fewest_users) == (5, 4)
