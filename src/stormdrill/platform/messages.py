"""What the platform's processes say to each other, as JSON."""

from __future__ import annotations

from msgspec import Struct

from stormdrill.platform.control import RELEASES, Register
from stormdrill.platform.fleet import Leak
from stormdrill.platform.jobs import JobRequest, Kind, Pool
from stormdrill.platform.store import Claim, StoredJob


class Attempt(Struct, frozen=True):
    """One try of an edge to have a job accepted."""

    job: JobRequest
    expires_at_ms: float
    """Wall clock: the edge gives this attempt up at that time; later it must be neither admitted nor completed."""
    edge: str = ""
    number: int = 1


class Report(Struct, frozen=True):
    """Copy of the feed's last word, for workers that can't reach it."""

    text: str
    as_of_ms: float


class BreakerState(Struct, frozen=True):
    open: bool
    probes: int
    """Let through while it was open, so far."""


class LeaseAsk(Struct, frozen=True):
    worker: str
    pool: Pool
    want: int
    wait_s: float = 1.0
    """How long the gateway may hold the answer back while there is nothing to do."""
    loading: bool = False
    version: str = RELEASES[0]
    """The release that it runs."""
    rss_bytes: float = 0.0
    devices: dict[str, int] | None = None
    """GPU workers: state → how many devices are seen in it."""
    feed_breaker: BreakerState | None = None
    """CPU workers: the one between them and the feed."""


class Lease(Struct, frozen=True):
    """The right to work on a job, until it expires or its epoch is over."""

    id: str
    kind: Kind
    token: str
    """Fencing: epoch and number; whatever is sent in under an older one is refused."""
    steps_done: int
    steps: int
    step_s: float


class Return(Struct, frozen=True):
    """Leases given back unfinished, because their device is gone or the worker is to run another release."""

    worker: str
    leases: tuple[tuple[str, str], ...]
    """Id and token of each."""


class LeaseAnswer(Struct, frozen=True):
    leases: tuple[Lease, ...]
    slots: int
    """How many the worker may use now."""
    report: Report | None = None
    version: str = RELEASES[0]
    """The release that the worker is to run: another one than its own, and it starts anew."""


class Outcome(Struct, frozen=True):
    id: str
    token: str
    ok: bool = True
    text: str = ""
    stale: bool = False
    """A report made from a copy."""
    report_age_s: float | None = None


class Completions(Struct, frozen=True):
    worker: str
    pool: Pool
    outcomes: tuple[Outcome, ...]


class CompletionsAnswer(Struct, frozen=True):
    fenced: tuple[str, ...]
    """Jobs whose lease was no longer theirs: the work is thrown away."""


class Checkpoint(Struct, frozen=True):
    worker: str
    id: str
    token: str
    steps_done: int
    """Saved when a checkpoint is due; else it only shows that the work goes on."""


class CheckpointAnswer(Struct, frozen=True):
    go_on: bool
    """False: the lease is over (fenced, or given back for more urgent work); drop the job."""


class Claims(Struct, frozen=True):
    """All that `owner` has taken from the region that hears this and that was not confirmed, and its settings."""

    owner: str
    claims: tuple[Claim, ...]
    control: tuple[Register, ...] = ()


class ClaimsAnswer(Struct, frozen=True):
    done_here: tuple[str, ...]
    """Claimed jobs that had been completed before the claim came: the claimant must yield, or insist when done."""


class PoolHealth(Struct, frozen=True):
    ready: bool
    slots: int
    leased: int
    queued: int


class Health(Struct, frozen=True):
    """A gateway's answer to a health check: the answer itself is the sign of life."""

    region: str
    ready: bool
    state: str
    """active, or rejoining: it was away and may not work before it has heard what others took over."""
    epoch: int
    pools: dict[str, PoolHealth]
    queue_depth: int
    queue_limit: int
    queue_oldest_age_s: float
    own_arrivals_per_s: float
    """Jobs whose home is here, over the last seconds, admitted or not."""
    capacity_per_s: float
    control: tuple[Register, ...]
    silent_pools: tuple[str, ...] = ()
    """Had workers, and have none any more."""
    gpu_devices: dict[str, int] = {}
    """State → how many devices; empty while no GPU worker answers."""
    leaks: tuple[Leak, ...] = ()
    feed_late: bool = False
    feed_breaker: BreakerState | None = None
    """As its CPU workers told last."""
    unseen: tuple[str, ...] = ()
    """Regions whose gateway doesn't answer this one."""
    open_jobs: tuple[StoredJob, ...] = ()
    """Told with the bug split-brain only."""


class JobResult(Struct, frozen=True, omit_defaults=True):
    """What a user gets."""

    id: str
    state: str
    region: str = ""
    kind: str = ""
    pool: str = ""
    text: str = ""
    stale: bool = False
    report_age_s: float | None = None
    took_ms: float | None = None


class Refusal(Struct, frozen=True, omit_defaults=True):
    error: str
    region: str = ""
    owner: str = ""
    """The region that has the job now."""
