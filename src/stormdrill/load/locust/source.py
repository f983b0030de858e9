"""What sends: an open loop of arrivals, or a crowd of somebody's own users. Its process need not know which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from gevent.event import Event
from locust import User
from locust.env import Environment
from locust.runners import Runner

from stormdrill.load.locust.answers import REGION_HEADER
from stormdrill.load.locust.flights import RecordFile
from stormdrill.load.messages import Ended, Progress
from stormdrill.model.profile import Profile
from stormdrill.store.records import LabelClass


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What one worker is to send."""

    run: str
    entries: tuple[str, ...]
    """Base URLs without a slash at their end."""
    worker: int = 0
    workers: int = 1
    """This worker takes the arrivals, or users, whose number is `worker` modulo `workers`."""
    max_in_flight: int = 2000
    region_header: str = REGION_HEADER
    profile: Profile | None = None
    """None: a closed loop, of which the next three speak no more and the last three do."""
    rate_per_s: float = 0.0
    seed: int = 0
    users: int = 0
    """Of all workers together."""
    spawn_per_s: float = 0.0
    """Of all workers together; 0: all at once."""
    deadline_s: float = 0.0


class Source(Protocol):
    """Made by `locustfile.source_from`. First `attach`, then a runner of Locust's, then `start`, `begin`, `end`."""

    loop: Literal["open", "closed"]
    labels: list[LabelClass]
    """For the header of the records; a closed loop learns its own while it goes on."""
    room: int
    """Bytes for what is learnt while the records are written: `RecordWriter(room=...)`."""
    user_classes: tuple[type[User], ...]
    waiting: Event
    """Ready to begin, or failed."""
    finished: Event
    """The last record is on the disk."""
    asked_to_end: Event
    failure: str
    """Why the load could not go on; empty while it can. Before `begin` the locustfile is at fault."""

    @property
    def begun(self) -> bool: ...

    def attach(self, environment: Environment) -> None:
        """Before a runner is made of it."""
        ...

    def start(self, runner: Runner) -> None:
        """Get ready. `runner` is in this process, whatever its kind; users of other workers aren't its business."""
        ...

    def begin(self, epoch_s: float, recorder: RecordFile) -> None:
        """Send from `epoch_s` on the monotonic clock."""
        ...

    def end(self, last_intended_s: float, timeout_s: float, *, retries: bool = True) -> None:
        """Nothing new after that; what is in flight `timeout_s` later is unfinished.

        `retries`: an arrival that waits to be tried again still may be, until its deadline.
        """
        ...

    def fail(self, text: str) -> None: ...
    def flush(self) -> None: ...
    def progress(self) -> Progress: ...
    def summary(self, cpu_s: float) -> Ended: ...
