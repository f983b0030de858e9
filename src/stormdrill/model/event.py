"""Every fact that a run writes down, one frozen class a type. Standard library only.

An event on disk is `{"seq", "at", "mono_ms", "type", "prev", **fields}`. `at` is UTC with offset, `mono_ms`
the monotonic clock **when the thing was observed** (not when it was written), so lines may be out of
order by a few milliseconds; `seq` is the order of writing. Verdict, review and live view are folds over these.
`docs/reference/events.md` explains each type; a test fails for one that it lacks.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields

from stormdrill.model.event_base import EVENTS as EVENTS
from stormdrill.model.event_base import Event as Event
from stormdrill.model.event_base import Recorded as Recorded
from stormdrill.model.event_base import Spawned as Spawned
from stormdrill.model.event_base import event as _event
from stormdrill.model.event_cluster import ClusterBack as ClusterBack
from stormdrill.model.event_cluster import ClusterHeld as ClusterHeld
from stormdrill.model.event_cluster import ClusterLost as ClusterLost
from stormdrill.model.event_cluster import PodBound as PodBound
from stormdrill.model.event_engine import ContainerEvent as ContainerEvent
from stormdrill.model.event_engine import ContainerStarted as ContainerStarted
from stormdrill.model.event_engine import ResourcesClaimed as ResourcesClaimed
from stormdrill.model.event_load import HostSampled as HostSampled
from stormdrill.model.event_load import LoadClockCompared as LoadClockCompared
from stormdrill.model.event_load import LoadEnded as LoadEnded
from stormdrill.model.event_load import LoadStarted as LoadStarted
from stormdrill.model.event_load import LoadWorkerLost as LoadWorkerLost
from stormdrill.model.event_load import RecordClosed as RecordClosed

# --- the run ---------------------------------------------------------------------------------------------


@_event("run-started", durable=True)
@dataclass(frozen=True, slots=True)
class RunStarted(Event):
    run: str
    version: str
    boot_id: str
    title: str
    experiment: str
    system: str
    target: str
    seed: int
    fast: bool
    settings: dict[str, str]
    """What `--set` gave; of a secret only its source."""
    inputs: dict[str, str]
    """SHA-256 of each input file copied into the run directory, by file name."""
    runner_pid: int
    runner_start_ticks: int
    cores: int
    kernel: str


@_event("keeper-started", durable=True)
@dataclass(frozen=True, slots=True)
class KeeperStarted(Event):
    pid: int
    start_ticks: int


@_event("journal-taken-over", durable=True)
@dataclass(frozen=True, slots=True)
class JournalTakenOver(Event):
    by: str
    """runner or recover"""
    pid: int
    cut_bytes: int
    cut_text: str
    """The torn last line that was cut, readable as far as it went."""


@_event("phase-entered", durable=True)
@dataclass(frozen=True, slots=True)
class PhaseEntered(Event):
    phase: str
    """warmup, baseline, fault, recovery, failback, end. `mono_ms` is the edge; `fault` is entered with the first
    inject call, `recovery` with the last verified revert; `end` closes the last phase."""
    planned_s: float


@_event("baseline-judged", durable=True)
@dataclass(frozen=True, slots=True)
class BaselineJudged(Event):
    """The gate before any harm: nothing is injected unless `healthy`."""

    healthy: bool
    detail: str


@_event("condition-held", durable=True)
@dataclass(frozen=True, slots=True)
class ConditionHeld(Event):
    """A trigger that is not an alert (a runbook's `start:`) held for the first time."""

    condition: str
    value: float | None


@_event("abort-requested", durable=True)
@dataclass(frozen=True, slots=True)
class AbortRequested(Event):
    by: str
    """person, signal, guard, machine, keeper, runner-gone, baseline, system, input, load, cluster, deleted"""
    reason: str
    well_mono_ms: float | None = None
    """Of a system that somebody deleted: when it was last seen to be all there. What was measured since is not it."""


@_event("torn-down", durable=True)
@dataclass(frozen=True, slots=True)
class TornDown(Event):
    by: str
    ended: int
    left: list[str]
    """Processes of ours that could not be ended; empty unless something is very wrong."""
    took_ms: float


@_event("run-ended", durable=True)
@dataclass(frozen=True, slots=True)
class RunEnded(Event):
    status: str
    """completed, aborted, dirty, failed"""
    reason: str


@_event("warning")
@dataclass(frozen=True, slots=True)
class Warned(Event):
    text: str


# --- the system under test -------------------------------------------------------------------------------


@_event("process-spawned", durable=True)
@dataclass(frozen=True, slots=True)
class ProcessSpawned(Event):
    instance: str
    service: str
    role: str
    """system, proxy, generator"""
    pid: int
    start_ticks: int
    argv: list[str]
    env: dict[str, str]
    """What was added to the keeper's own environment."""
    cwd: str
    log: str
    address: str
    """host:port, or empty."""
    labels: dict[str, str]


@_event("process-exited", durable=True)
@dataclass(frozen=True, slots=True)
class ProcessExited(Event):
    instance: str
    pid: int
    code: int | None
    signal: str | None
    expected: bool
    """True when stormdrill ended it (an injection or the tear-down)."""


@_event("instance-ready")
@dataclass(frozen=True, slots=True)
class InstanceReady(Event):
    instance: str
    after_ms: float
    how: str


@_event("system-ready", durable=True)
@dataclass(frozen=True, slots=True)
class SystemReady(Event):
    instances: int
    after_ms: float


@_event("restored", durable=True)
@dataclass(frozen=True, slots=True)
class Restored(Event):
    """Inventory compared with the baseline after everything was reverted and undone."""

    ok: bool
    detail: str


# --- faults ----------------------------------------------------------------------------------------------


@_event("armed", durable=True)
@dataclass(frozen=True, slots=True)
class Armed(Event):
    injection: str
    fault: str
    """The fault's word, or `runbook` for what a runbook's action changed."""
    instance: str
    mechanism: str
    undo: list[dict[str, object]]
    """In the vocabulary of model/undo.py, executed in order."""
    expires_mono_ms: float
    expires_at: str


@_event("inject-started", durable=True)
@dataclass(frozen=True, slots=True)
class InjectStarted(Event):
    injection: str


@_event("injected", durable=True)
@dataclass(frozen=True, slots=True)
class Injected(Event):
    injection: str
    outcome: str
    """done, failed, doubtful (the call outlived its limit: reverted, then looked at again)"""
    detail: str
    took_ms: float


@_event("effect-observed", durable=True)
@dataclass(frozen=True, slots=True)
class EffectObserved(Event):
    injection: str
    bit: bool
    witness: str
    """Who saw it: process state, refused answer, engine event. Never the injecting call."""
    detail: str
    after_ms: float


@_event("cause-changed", durable=True)
@dataclass(frozen=True, slots=True)
class CauseChanged(Event):
    """A fault was no more as it was left before anybody had begun to revert it: seen by two looks one after the other,
    or by one after which it was as it was left again, or by its undo's own. `mono_ms` is the first that saw it."""

    injection: str
    gone: bool
    """Nothing of the cause is known to be in force any more; else a part of it."""
    witness: str
    detail: str
    after_ms: float
    """Since the inject call: the first look that saw it."""
    well_ms: float | None = None
    """Since the inject call: the last look before that, or the call; what was done came between the two."""
    edited: bool = False
    """It is there still, and somebody else wrote what it says."""
    at_revert: bool = False
    """Its undo was the first that saw it; `mono_ms` is when the revert began."""


@_event("revert-started", durable=True)
@dataclass(frozen=True, slots=True)
class RevertStarted(Event):
    injection: str
    cause: str
    """planned, expired, abort, guard, runner-gone, keeper-gone, recover, doubtful"""
    by: str
    """keeper, runner, recover"""


@_event("reverted", durable=True)
@dataclass(frozen=True, slots=True)
class Reverted(Event):
    injection: str
    outcome: str
    """done, failed, superseded (a person changed it meanwhile)"""
    detail: str
    took_ms: float
    by: str = ""
    """Who else had done it before."""
    undone_at: str = ""
    """When they had, UTC, by their clock."""


@_event("revert-verified", durable=True)
@dataclass(frozen=True, slots=True)
class RevertVerified(Event):
    injection: str
    gone: bool
    witness: str
    detail: str
    after_ms: float | None
    """Since the revert started; None where it was gone before this record's own revert had begun."""
    came_to: str = ""
    """What the fault had come to by then, where that may be less than was asked for: who stayed on a node."""
    clock: str = ""
    """Who else had ended it before, and wrote down when: `mono_ms` is that moment by their clock, and not by this
    machine's."""


# --- seeing ----------------------------------------------------------------------------------------------


@_event("reading")
@dataclass(frozen=True, slots=True)
class Reading(Event):
    metric: str
    instance: str
    value: float | None
    """None: no fresh reading; `detail` says why."""
    labels: dict[str, str] = field(default_factory=dict)
    detail: str = ""


@_event("alert-changed", durable=True)
@dataclass(frozen=True, slots=True)
class AlertChanged(Event):
    alert: str
    firing: bool
    labels: dict[str, str]
    source: str


@_event("guard-tripped", durable=True)
@dataclass(frozen=True, slots=True)
class GuardTripped(Event):
    guard: str
    value: float | None
    detail: str


# --- the runbook -----------------------------------------------------------------------------------------


@_event("runbook-started", durable=True)
@dataclass(frozen=True, slots=True)
class RunbookStarted(Event):
    runbook: str
    digest: str
    trigger: str
    parameters: dict[str, str]
    attended: bool


@_event("step-started", durable=True)
@dataclass(frozen=True, slots=True)
class StepStarted(Event):
    step: str
    kind: str
    attempt: int
    text: str
    """The rendered content, secrets removed."""
    digest: str
    risk: str
    captured: dict[str, str] = field(default_factory=dict)
    """JSON texts read before an action runs, which its undo may need."""


@_event("step-finished", durable=True)
@dataclass(frozen=True, slots=True)
class StepFinished(Event):
    step: str
    outcome: str
    """ok, failed, timed-out, skipped, cancelled, unknown"""
    detail: str
    captured: dict[str, str]
    """Name → JSON text."""
    goes_to: str
    """The step that follows where a decision chose one; empty: the next in the document."""
    took_ms: float


@_event("approval", durable=True)
@dataclass(frozen=True, slots=True)
class Approval(Event):
    step: str
    by: str
    granted: bool
    digest: str


@_event("runbook-finished", durable=True)
@dataclass(frozen=True, slots=True)
class RunbookFinished(Event):
    runbook: str
    outcome: str
    """done, failed, cancelled, not-started"""
    detail: str
    took_ms: float


def event_to_json(event: Event) -> dict[str, object]:
    """The event's own fields, without the envelope."""
    return asdict(event)  # type: ignore[call-overload,no-any-return]  # every event is a dataclass


def event_from_json(word: str, values: dict[str, object]) -> Event:
    """Raises ValueError for an unknown type or missing fields; unknown fields are refused too."""
    cls = EVENTS.get(word)
    if cls is None:
        raise ValueError(f"unknown event type {word!r}")
    known = {item.name for item in fields(cls)}  # type: ignore[arg-type]  # every event is a dataclass
    extra = set(values) - known
    if extra:
        raise ValueError(f"event {word!r} has unknown fields {', '.join(sorted(extra))}")
    try:
        return cls(**values)
    except TypeError as error:
        raise ValueError(f"event {word!r}: {error}") from error
