"""What policy forbids and what passed all the same is a FAIL; what nobody could try is none, and never a PASS."""

from __future__ import annotations

from pathlib import Path

from judging import evidence, judged, with_events
from msgspec.structs import replace

from stormdrill.core.evidence import Evidence
from stormdrill.model import event as ev
from stormdrill.model.mechanism import BLOCKED, Segment
from stormdrill.model.verdict import Verdict


def tried(tmp_path: Path, value: float | None) -> Verdict:
    """The same run, as if its region had only tried what is forbidden. None: nobody could try."""
    found = evidence(tmp_path)
    injections = tuple(
        replace(
            item,
            mechanism="segment",
            how=Segment("shop", {"app": item.instance}, "feed:8080", reaches=(item.instance,)),
        )
        for item in found.plan.injections
    )
    found = replace(found, plan=replace(found.plan, injections=injections))
    first = found.plan.injections[0]

    def seen(recorded: ev.Recorded) -> ev.Recorded | None:
        event = recorded.event
        mine = isinstance(event, ev.EffectObserved) and event.injection == first.id
        return None if mine and value != 1.0 else recorded

    if value is None:
        return judged(with_events(found, seen))
    return judged(with_events(found, seen, [reading(found, first.instance, value)]))


def reading(found: Evidence, instance: str, value: float) -> ev.Recorded:
    at = next(item for item in found.events if isinstance(item.event, ev.InjectStarted))
    seq = max(item.seq for item in found.events) + 1
    return ev.Recorded(seq, at.at, at.mono_ms + 500.0, ev.Reading(BLOCKED, instance, value, {"to": "feed:8080"}))


def test_what_was_blocked_passes(tmp_path: Path) -> None:
    assert tried(tmp_path, 1.0).verdict == "PASS"


def test_what_got_through_fails_and_says_from_where_to_where(tmp_path: Path) -> None:
    verdict = tried(tmp_path, 0.0)
    assert verdict.verdict == "FAIL"
    assert "reached feed:8080, which is forbidden" in verdict.sentence
    (told,) = {fault.detail.partition(";")[0] for fault in verdict.faults if not fault.bit}
    assert told == "it was tried, and nothing blocked it"
    assert not [why for why in verdict.reasons if "was not seen to bite" in why]


def test_what_nobody_could_try_shows_nothing(tmp_path: Path) -> None:
    assert tried(tmp_path, None).verdict == "INCONCLUSIVE"
