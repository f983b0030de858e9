"""Regions with a named bug in them: each does one thing wrong that `Region` does right."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.json import Encoder

from stormdrill.platform import bugs
from stormdrill.platform.jobs import Placement, place
from stormdrill.platform.messages import Outcome
from stormdrill.platform.queue import Entry
from stormdrill.platform.region import Region
from stormdrill.platform.store import StoredJob

_encode = Encoder().encode


class Unfenced(Region):
    """Work counts whoever hands it in, also when its lease is over and the job was leased again."""

    def checkpoint(self, job_id: str, token: str, steps_done: int) -> bool:
        fenced = self._holder(job_id, token) is None
        return super().checkpoint(job_id, token, steps_done) or (fenced and self.store.job(job_id) is not None)

    def _fence(self, outcome: Outcome) -> bool:
        if self.store.job(outcome.id) is None:
            return super()._fence(outcome)
        with self.store.together():
            self.store.complete(outcome.id, outcome.token, self._clock.wall_ms(), 0.0, _encode(outcome))
        return True


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


def region_with(bug: str) -> type[Region]:
    return {
        bugs.UNFENCED_LEASE: Unfenced,
        bugs.RESIDENCY_IGNORED: ResidencyIgnored,
        bugs.GREY_BLIND: GreyBlind,
        bugs.NO_REQUEUE: NoRequeue,
        bugs.SPLIT_BRAIN: SplitBrain,
    }.get(bug, Region)
