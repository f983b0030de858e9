"""Demand as a function of time: λ(t), and who asks for what."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from stormdrill.model.experiment import Phase, Scalar

Role = Literal["step", "base", "trigger", "after", "down", "rest"]


class Piece(Struct, frozen=True):
    """At `at_s` the rate is `factor` × the asked one, and moves in a straight line to the next piece's."""

    at_s: float
    factor: float


class Stage(Struct, frozen=True):
    """A stretch of level demand with a meaning of its own: what backpressure checks compare with one another."""

    role: Role
    """step: one of a staircase. base, trigger, after: same load, a surge, the same load again. down: below it, to find
    where a system recovers that did not by itself. rest: so little that the next stage begins with empty queues."""
    start_s: float
    """Since the load's epoch."""
    end_s: float
    factor: float
    """Of the asked rate."""
    episode: int = 0
    """base, trigger, after, down and rest of one number belong together."""


class Stream(Struct, frozen=True):
    """One kind of request; shares add up to 1."""

    name: str
    share: float
    labels: dict[str, str]
    deadline_s: float
    parameters: dict[str, Scalar] = {}


class Retry(Struct, frozen=True):
    """What the client does when it was not served: the arrival's next attempt, within its deadline."""

    attempts: int
    """At most, the first one included."""
    wait_s: float
    """Before the second attempt, doubled before each further one."""
    jitter: float = 0.0
    """Share of the wait that is left to chance, 0 to 1."""
    obey: bool = True
    """Whether an answer's Retry-After is obeyed: at least so long is waited."""
    share: float = 1.0
    """Of the arrivals that may be tried again at all: a retry budget. Beyond it the first answer counts."""


class Trace(Struct, frozen=True):
    """Recorded moments that are replayed."""

    file: str
    """Seconds since the first one, a line each, as read from the file of the user; lies in the run directory."""
    sha256: str
    count: int
    length_s: float
    time_scale: float = 1.0
    """2: twice as slow."""
    rate_scale: float = 1.0
    """2: twice as many."""
    start_s: float = 0.0
    """When it begins, since the load's epoch; nothing before."""
    course: tuple[int, ...] = ()
    """How many fell into each of so many equal parts of `length_s`: what can be known of it without the file."""

    @property
    def mean_per_s(self) -> float:
        """Of the replay as its own scales make it."""
        return self.count * self.rate_scale / (self.length_s * self.time_scale)


class Profile(Struct, frozen=True):
    name: str
    user: str
    """The locustfile in loadgen/ whose open-loop user serves these arrivals."""
    arrivals: Literal["constant", "poisson"]
    shape: tuple[Piece, ...]
    """Empty: the rate stays as asked, as it does before the first piece. The last piece's factor goes on for ever."""
    streams: tuple[Stream, ...]
    description: str = ""
    stages: tuple[Stage, ...] = ()
    """In the order of time; none for demand that has no such stretches."""
    retry: Retry | None = None
    """None: one attempt an arrival."""
    trace: Trace | None = None
    """Then the shape is that of the recording, and `shape` multiplies it."""
    weight: float = 1.0
    """Of the asked rate, where it is one of several (`peak + 0.5 x spike`)."""
    since: Phase | None = None
    """Its times count from this phase's planned beginning; None: from the load's epoch. A plan holds none of these."""
    also: tuple[Profile, ...] = ()
    """Further demands at the same time, strangers to this one: own arrivals, own streams. Theirs are empty here."""

    @property
    def parts(self) -> tuple[Profile, ...]:
        """Each single demand, this one first."""
        return (self, *self.also)

    @property
    def every_stream(self) -> tuple[Stream, ...]:
        """Of all parts, in their order: what the label class of a record counts into."""
        return tuple(stream for part in self.parts for stream in part.streams)

    @property
    def every_stage(self) -> tuple[Stage, ...]:
        """Of all parts, in the order of time; factors of the rate that was asked for the whole."""
        found = [
            replace(stage, factor=stage.factor * part.weight) if part.weight != 1 else stage
            for part in self.parts
            for stage in part.stages
        ]
        return tuple(sorted(found, key=lambda stage: (stage.start_s, stage.end_s)))
