"""A cluster that falls silent is in the record with how long it was; one that is taken away ends the run, once."""

from __future__ import annotations

from stormdrill.engine.contact import ContactWatch
from stormdrill.model.event import ClusterBack, ClusterLost, Event
from stormdrill.ports import Contact


class Rig:
    def __init__(self) -> None:
        self.now: list[Contact] = []
        self.at_last: list[Contact] = []
        self.asked = 0
        self.events: list[Event] = []
        self.aborts: list[tuple[str, str]] = []
        self.well: list[float | None] = []
        self.watch = ContactWatch(lambda: self.now, self.last, lambda event, _: self.events.append(event), self.abort)

    def last(self) -> list[Contact]:
        self.asked += 1
        return self.at_last

    def abort(self, by: str, reason: str, well_mono_ms: float | None) -> None:
        self.aborts.append((by, reason))
        self.well.append(well_mono_ms)

    def see(self, *contacts: Contact) -> None:
        self.now = list(contacts)
        self.watch.look()


def test_a_loss_that_ends_in_time_is_told_and_the_run_goes_on() -> None:
    rig = Rig()
    rig.see(Contact("eu"), Contact("us"))
    rig.see(Contact("eu", lost="no answer in time"), Contact("us"))
    rig.see(Contact("eu", lost="still none"), Contact("us"))
    rig.see(Contact("eu"), Contact("us"))
    lost, back = rig.events
    assert lost == ClusterLost("eu", "no answer in time")
    assert isinstance(back, ClusterBack)
    assert back.cluster == "eu"
    assert back.away_ms >= 0
    assert rig.aborts == []


def test_what_is_over_ends_the_run_once_and_says_by_whom() -> None:
    rig = Rig()
    rig.see(Contact("eu", over="the Lease was not renewed for 10 s", lost="no answer"))
    rig.see(Contact("eu", over="the Lease was not renewed for 10 s"))
    rig.see(Contact("us", over="stopped by kubectl annotate", by="person"))
    assert rig.aborts == [
        ("cluster", "the Lease was not renewed for 10 s (cluster eu)"),
        ("person", "stopped by kubectl annotate (cluster us)"),
    ]
    assert isinstance(rig.events[-1], ClusterBack)
    assert rig.events[-1].detail == "the Lease was not renewed for 10 s"


def test_what_is_deleted_is_told_with_when_it_was_last_there() -> None:
    rig = Rig()
    rig.see(Contact("eu", over="the namespace shop is being deleted by somebody", by="deleted", well_mono_ms=7.0))
    assert rig.aborts == [("deleted", "the namespace shop is being deleted by somebody (cluster eu)")]
    assert rig.well == [7.0]


def test_what_is_deleted_just_before_the_end_is_found_by_the_last_look() -> None:
    """Nobody would know else that what was measured last was something else."""
    rig = Rig()
    rig.watch.start()
    rig.at_last = [Contact("", over="the namespace shop is being deleted by somebody", by="deleted", well_mono_ms=7.0)]
    assert rig.aborts == []
    rig.watch.stop()
    assert rig.asked == 1
    assert rig.aborts == [("deleted", "the namespace shop is being deleted by somebody")]


def test_a_cluster_that_is_lost_or_over_is_not_asked_again_at_the_end() -> None:
    """Somebody may wait to revert in another one."""
    for one in (Contact("eu", lost="no answer"), Contact("eu", over="somebody has removed the ledger")):
        rig = Rig()
        rig.watch.start()
        rig.now = [one]
        rig.watch.stop()
        assert rig.asked == 0
