"""A cluster that falls silent is in the record with how long it was; one that is taken away ends the run, once."""

from __future__ import annotations

from stormdrill.engine.contact import ContactWatch
from stormdrill.model.event import ClusterBack, ClusterLost, Event
from stormdrill.ports import Contact


class Rig:
    def __init__(self) -> None:
        self.now: list[Contact] = []
        self.events: list[Event] = []
        self.aborts: list[tuple[str, str]] = []
        self.watch = ContactWatch(
            lambda: self.now,
            lambda event, _: self.events.append(event),
            lambda by, reason: self.aborts.append((by, reason)),
        )

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
