"""Regions with a named bug in them: each does one thing wrong that `Region` does right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import structs
from msgspec.json import Encoder

from stormdrill.platform import bugs
from stormdrill.platform.clock import Clock
from stormdrill.platform.jobs import Placement, place
from stormdrill.platform.messages import Attempt, Outcome
from stormdrill.platform.queue import Entry
from stormdrill.platform.region import Admission, Region
from stormdrill.platform.store import Store, StoredJob

_encode = Encoder().encode
GHOST = "ghost:"
GHOST_S = 60.0
GHOSTS_SHARE = 0.875
"""Ghosts fill the queue so far, above what tiers 2 and 3 may fill and below what tier 1 may."""


class Unfenced(Region):
    """Work counts whoever hands it in, also when its lease is over and the job was leased again or taken over."""

    def __init__(
        self, name: str, regions: Sequence[str], store: Store, clock: Clock, *, bug: str, seed: int, scale: float = 1.0
    ) -> None:
        super().__init__(name, regions, store, clock, bug=bug, seed=seed, scale=scale)
        self._late: dict[str, Outcome] = {}
        """Counted although its lease was over, and not claimed by another region yet."""

    def checkpoint(self, job_id: str, token: str, steps_done: int) -> bool:
        fenced = self._holder(job_id, token) is None
        return super().checkpoint(job_id, token, steps_done) or (fenced and self.store.job(job_id) is not None)

    def _fence(self, outcome: Outcome) -> bool:
        if self.store.job(outcome.id) is None:
            return super()._fence(outcome)
        self._count(outcome.id, outcome.token, _encode(outcome))
        self._late[outcome.id] = outcome
        return True

    def _hand_over(self, job_id: str, owner: str, at_ms: float) -> None:
        """Nobody told it that this lease was over, so nobody makes void what came of it."""
        super()._hand_over(job_id, owner, at_ms)
        late = self._late.pop(job_id, None)
        if late is not None:
            self._count(job_id, late.token, _encode(late))

    def _count(self, job_id: str, token: str, result: bytes) -> None:
        with self.store.together():
            self.store.complete(job_id, token, self._clock.wall_ms(), 0.0, result)


class ResidencyIgnored(Region):
    """Any region may take any job."""

    def _place(self, job_id: str, residency: str | None) -> Placement | None:
        return place(job_id, None, self.regions)


class GreyBlind(Region):
    """A worker that answers is thought to work: what its devices hold is never taken away."""

    def _held_on(self, entry: Entry, now_s: float) -> bool:
        return entry.pool == "gpu" and self.pools["gpu"].answering(now_s)


class NoRequeue(Region):
    """A lease never ends by itself."""

    def _held_on(self, entry: Entry, now_s: float) -> bool:
        return True


class SplitBrain(Region):
    """A peer that isn't seen is taken for dead and its open jobs for ours, without a claim."""

    def open_jobs(self) -> tuple[StoredJob, ...]:
        """What the peer hears of with each of its probes: acknowledged, not done, free to move."""
        return tuple(e.job for e in self._entries.values() if e.expires_s is None and e.job.residency is None)

    def adopt(self, jobs: Iterable[StoredJob]) -> None:
        now_s = self.pulse()
        for job in jobs:
            if self.store.job(job.id) is None:
                self.store.put(job)
                self._entries[job.id] = entry = self._entry(job, now_s)
                self._lanes.push(entry)
                self.on_work(entry.pool)


class PriorityInverted(Region):
    """Tiers 2 and 3 have each other's rights, at the door and in the queue."""

    def admit(self, attempt: Attempt) -> Admission:
        tier = {2: 3, 3: 2}.get(attempt.job.tier, attempt.job.tier)
        return super().admit(structs.replace(attempt, job=structs.replace(attempt.job, tier=tier)))


class GhostWork(Region):
    """Who was turned away is queued all the same, and worked for long after leaving."""

    def _was_turned_away(self, entry: Entry, now_s: float) -> None:
        if entry.job.tier == 1 or self.depth >= GHOSTS_SHARE * self.door.limit:
            return
        self._ghosts = getattr(self, "_ghosts", 0) + 1
        entry.job.id = f"{GHOST}{self._ghosts}"
        entry.expires_s = now_s + GHOST_S
        self._entries[entry.job.id] = entry
        self._lanes.push(entry)
        self.on_work(entry.pool)

    def complete(self, worker: str, outcome: Outcome) -> bool:
        entry = self._holder(outcome.id, outcome.token)
        if entry is None or not outcome.id.startswith(GHOST):
            return super().complete(worker, outcome)
        self._close(entry, "refused", "", b"")
        return True


def region_with(bug: str) -> type[Region]:
    return {
        bugs.UNFENCED_LEASE: Unfenced,
        bugs.RESIDENCY_IGNORED: ResidencyIgnored,
        bugs.GREY_BLIND: GreyBlind,
        bugs.NO_REQUEUE: NoRequeue,
        bugs.SPLIT_BRAIN: SplitBrain,
        bugs.GOODPUT_COLLAPSE: GhostWork,
        bugs.PRIORITY_INVERSION: PriorityInverted,
    }.get(bug, Region)
