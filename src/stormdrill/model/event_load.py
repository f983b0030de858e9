"""What a run writes down of its load and of the machine that makes it. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field

from stormdrill.model.event_base import Event
from stormdrill.model.event_base import event as _event


@_event("load-started", durable=True)
@dataclass(frozen=True, slots=True)
class LoadStarted(Event):
    profile: str
    workers: int
    epoch_mono_ms: float
    """Intended times in the records count from here."""
    loop: str = "open"
    """open: a schedule, whatever the system does. closed: users who wait for an answer before they ask again."""
    ceiling_per_s: float = 0.0
    """What one worker was found to send on time; 0: not known, or not asked."""
    names: list[str] = field(default_factory=list)
    """Of the workers, in the order of their record files; empty in older records."""
    through: str = ""
    """What the requests pass on their way that users don't: then they are for looking only. Empty: nothing."""


@_event("load-worker-lost", durable=True)
@dataclass(frozen=True, slots=True)
class LoadWorkerLost(Event):
    """Nothing that rests on its records can be judged; the others stopped, and the run ends."""

    worker: str
    """Its instance, or the name that it was given on its machine; generator-master when it is the master."""
    file: str
    """Its records, relative to the run directory; empty: those of all."""
    detail: str


@_event("load-clock-compared", durable=True)
@dataclass(frozen=True, slots=True)
class LoadClockCompared(Event):
    """The monotonic clock of a load worker on another machine, against this journal's."""

    worker: str
    file: str
    when: str
    """before or after the load"""
    boot_id: str
    """Of its machine."""
    offset_ms: float
    """Its clock is so much ahead."""
    error_ms: float
    """By so much its records may be off on the journal's clock: half of the shortest way there and back; after the
    load also what the clocks drifted apart."""
    round_trip_ms: float


@_event("load-ended", durable=True)
@dataclass(frozen=True, slots=True)
class LoadEnded(Event):
    scheduled: int
    sent: int
    dropped: int
    unfinished: int
    lag_p99_ms: float
    lost_workers: int
    detail: str
    users: int = 0
    """Closed loop: as many as were asked for until the end; 0 in an open loop and in older records."""
    fewest_users: int = 0
    """Of them that were alive at any one time from when all had started to the end."""


@_event("record-closed", durable=True)
@dataclass(frozen=True, slots=True)
class RecordClosed(Event):
    file: str
    """Relative to the run directory."""
    sha256: str
    bytes: int
    complete: bool
    """False when its writer died before closing it."""


@_event("host-sampled")
@dataclass(frozen=True, slots=True)
class HostSampled(Event):
    """How the machine was shared since the last sample."""

    interval_ms: float
    foreign_cpu: float
    """CPU used by processes that are not of this run, on the cores that the run may use, in cores."""
    platform_run_delay: float
    """Of the time in which the system's threads could have run, the share that they waited for a core, 0 to 1."""
    generator_run_delay: float
    """The same for the load generator."""
    generator_cpu: float
    """CPU used by the load generator, in cores."""
    load1: float
    schedstat: bool = True
    """False: this kernel doesn't tell how long threads waited; both run delays are 0 and mean nothing."""
    cores: int = 0
    """How many the run's processes may use; 0 in older records, which tell of the whole machine."""
