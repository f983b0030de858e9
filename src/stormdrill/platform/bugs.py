"""Named resilience bugs: each takes one promise out of the platform, to measure the experiments that look for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from stormdrill.platform.clock import Clock
from stormdrill.platform.store import Store, StoredJob

NONE = "none"
NO_FAILOVER = "no-failover"
LOST_ACKNOWLEDGEMENT = "lost-acknowledgement"
UNBOUNDED_QUEUE = "unbounded-queue"
NO_SHEDDING = "no-shedding"
RETRY_STORM = "retry-storm"
UNFENCED_LEASE = "unfenced-lease"
RESIDENCY_IGNORED = "residency-ignored"
GREY_BLIND = "grey-blind"
NO_FEED_TIMEOUT = "no-feed-timeout"
UNMARKED_STALE = "unmarked-stale"
NO_CHECKPOINT = "no-checkpoint"
NO_CPU_FALLBACK = "no-cpu-fallback"
SPLIT_BRAIN = "split-brain"
SILENT_LEAK = "silent-leak"
NO_REQUEUE = "no-requeue"
GOODPUT_COLLAPSE = "goodput-collapse"
BUFFER_BLOAT = "buffer-bloat"
SLOW_REJECTION = "slow-rejection"
NO_RETRY_AFTER = "no-retry-after"
RETRY_IN_STEP = "retry-in-step"
UNBOUNDED_BACKLOG = "unbounded-backlog"
HIDDEN_QUEUE = "hidden-queue"
PRIORITY_INVERSION = "priority-inversion"
SHED_RETRIED = "shed-retried"
SLOW_DRAIN = "slow-drain"
METASTABLE = "metastable"
STUCK_BREAKER = "stuck-breaker"
SLOW_AUTOSCALER = "slow-autoscaler"
QUOTA_IGNORED = "quota-ignored"
HEAD_OF_LINE = "head-of-line"
BUGS = (
    NONE, NO_FAILOVER, LOST_ACKNOWLEDGEMENT, UNBOUNDED_QUEUE, NO_SHEDDING, RETRY_STORM, UNFENCED_LEASE,
    RESIDENCY_IGNORED, GREY_BLIND, NO_FEED_TIMEOUT, UNMARKED_STALE, NO_CHECKPOINT, NO_CPU_FALLBACK, SPLIT_BRAIN,
    SILENT_LEAK, NO_REQUEUE, GOODPUT_COLLAPSE, BUFFER_BLOAT, SLOW_REJECTION, NO_RETRY_AFTER, RETRY_IN_STEP,
    UNBOUNDED_BACKLOG, HIDDEN_QUEUE, PRIORITY_INVERSION, SHED_RETRIED, SLOW_DRAIN, METASTABLE,
    STUCK_BREAKER, SLOW_AUTOSCALER, QUOTA_IGNORED, HEAD_OF_LINE,
)  # fmt: skip

FORGET_S = 5.0
"""How long an acknowledged job lives in memory only, with the bug lost-acknowledgement."""


class ForgetfulStore(Store):
    """The bug lost-acknowledgement: what happens to a batch job reaches the disk only seconds after its 202."""

    def __init__(self, path: Path, clock: Clock) -> None:
        super().__init__(path)
        self._clock = clock
        self._unsaved: dict[str, StoredJob] = {}
        self._writes: list[tuple[float, str, Callable[[], None]]] = []

    def put(self, job: StoredJob) -> None:
        if job.wait:
            super().put(job)
            return
        self._unsaved[job.id] = job
        self._later(job.id, lambda: Store.put(self, job))

    def job(self, job_id: str) -> StoredJob | None:
        return self._unsaved.get(job_id) or super().job(job_id)

    def save_steps(self, job_id: str, steps: int) -> None:
        if job_id in self._unsaved:
            self._later(job_id, lambda: Store.save_steps(self, job_id, steps))
        else:
            super().save_steps(job_id, steps)

    def complete(self, job_id: str, token: str, at_ms: float, took_ms: float, result: bytes) -> None:
        if job_id in self._unsaved:
            self._later(job_id, lambda: Store.complete(self, job_id, token, at_ms, took_ms, result))
        else:
            super().complete(job_id, token, at_ms, took_ms, result)

    def flush_due(self) -> None:
        now_s = self._clock.mono_s()
        while self._writes and self._writes[0][0] <= now_s:
            _, job_id, write = self._writes.pop(0)
            write()
            if not any(waiting == job_id for _, waiting, _ in self._writes):
                self._unsaved.pop(job_id, None)

    def forget(self) -> None:
        """What a pause or a crash leaves of it: nothing."""
        self._unsaved.clear()
        self._writes.clear()

    def _later(self, job_id: str, write: Callable[[], None]) -> None:
        self._writes.append((self._clock.mono_s() + FORGET_S, job_id, write))
