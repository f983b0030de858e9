"""The heart of a gateway: which jobs a region has accepted, who works on them, and what counts as done.

No socket and no clock of its own; every public method runs to its end without waiting. Exactly-once rests on four
promises, each durable before anybody hears of it:
  1. a job is accepted in the commit that also holds the claim against its home, when it is taken over;
  2. a completion counts in the commit that ends the job, once, and only under the lease's own token;
  3. a job claimed by another region is never admitted, leased or completed here again; where both had completed it,
     the claimant's counts and ours is void; where only we had, the claimant yields;
  4. after a pause or a restart nothing is leased or completed before the claims of the others were asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from msgspec import Struct, structs
from msgspec.json import Encoder

from stormdrill.platform import bugs
from stormdrill.platform.broken_door import door_with, lanes_with
from stormdrill.platform.capacity import carried_per_s
from stormdrill.platform.clock import Clock
from stormdrill.platform.control import Control
from stormdrill.platform.fleet import Fleet
from stormdrill.platform.jobs import POOLS, STALE_AGE_S, WORK, Placement, Pool, place, places_of, slot_cost_s, work_of
from stormdrill.platform.messages import Attempt, BreakerState, JobResult, Lease, LeaseAsk, Outcome, PoolHealth
from stormdrill.platform.queue import End, Entry
from stormdrill.platform.rates import Arrivals
from stormdrill.platform.store import Claim, Store, StoredJob
from stormdrill.platform.tally import Tally

PAUSE_LIMIT_S = 0.5
"""A longer gap in our own clock means that the world may have gone on without us."""
LEASE_MARGIN_S = 1.5
"""A lease lasts one step and this much longer; a checkpoint renews it."""

_encode = Encoder().encode


class Admission(Struct, frozen=True):
    """200 and 202 mean accepted; with 200 and an `entry` the result is still to come."""

    status: int
    entry: Entry | None = None
    result: bytes = b""
    reason: str = ""
    retry_after_s: int | None = None
    owner: str = ""


class Region:
    def __init__(
        self, name: str, regions: Sequence[str], store: Store, clock: Clock, *, bug: str, seed: int, scale: float = 1.0
    ) -> None:
        self.name = name
        self.regions = tuple(sorted(regions))
        self.store = store
        self.control = Control(store.registers(), store.save_register)
        self.fleet = Fleet()
        self.tally = Tally()
        self.arrivals = Arrivals()
        self.feed_breaker: BreakerState | None = None
        self.on_work: Callable[[Pool], None] = lambda pool: None
        """Called when a pool has new work."""
        self._clock = clock
        self._bug = bug
        self._entries: dict[str, Entry] = {}
        self._lanes = lanes_with(bug)(bug=bug, scale=scale)
        self.door = door_with(bug)(self._lanes, self.control, bug=bug, seed=seed, scale=scale)
        self._keeps_expired = self.door.policy == "everything"
        self.pools = self._lanes.pools
        if store.meta("boot") != clock.boot_id():
            store.rebase(clock.mono_s(), clock.wall_ms())
            store.set_meta("boot", clock.boot_id())
        self._epoch = int(store.meta("epoch", "0"))
        self._lease_number = 0
        self._last_s = clock.mono_s()
        self.active = False
        was_empty = self._epoch == 0
        self.begin_rejoin()
        if was_empty:
            self.finish_rejoin()

    # being there

    @property
    def epoch(self) -> int:
        return self._epoch

    def pulse(self) -> float:
        """Called at the start of everything: notices that we were away. Returns the monotonic time in seconds."""
        now_s = self._clock.mono_s()
        gap_s, self._last_s = now_s - self._last_s, now_s
        if gap_s > PAUSE_LIMIT_S and self.active:
            self.begin_rejoin()
        return now_s

    def begin_rejoin(self) -> None:
        """Fence every lease and rebuild the queue from what is on disk; nothing is served until `finish_rejoin`."""
        self.active = False
        self._epoch += 1
        self.store.set_meta("epoch", str(self._epoch))
        self.tally.rejoins_total += 1
        if isinstance(self.store, bugs.ForgetfulStore):
            self.store.forget()
        before = dict(self._entries)
        for entry in before.values():
            self._lost(entry)
        self._entries.clear()
        self._lanes.clear()
        now_s = self._clock.mono_s()
        for job in self.store.open_jobs():
            entry = self._entry(job, now_s)
            if job.id in before:
                entry.watchers, entry.due = before[job.id].watchers, before[job.id].due
            self._entries[job.id] = entry
            self._lanes.push(entry)
            if job.wait and (entry.expired(now_s) or not entry.watchers):
                self._end(entry, "refused", "nobody waits for it any more")

    def finish_rejoin(self) -> None:
        """The claims of the others are in (or they could not be reached within the limit)."""
        self.active = True
        for pool in POOLS:
            self.on_work(pool)

    def tick(self) -> None:
        """Time passing: leases that ran out, callers who gave up, slots that follow the queue."""
        now_s = self.pulse()
        if isinstance(self.store, bugs.ForgetfulStore):
            self.store.flush_due()
        if not self.active:
            return
        for entry in tuple(self._entries.values()):
            if entry.token and now_s >= entry.lease_until_s and not self._held_on(entry, now_s):
                self._requeue(entry, now_s)
            if not entry.token and entry.expired(now_s) and not self._keeps_expired:
                self._end(entry, "refused", "deadline passed in the queue")
        self._lanes.scale(now_s)

    def _held_on(self, entry: Entry, now_s: float) -> bool:
        """Whether a lease stays although its time is over: never."""
        return False

    # work comes in

    def admit(self, attempt: Attempt) -> Admission:
        now_s = self.pulse()
        job = attempt.job
        placement = self._place(job.id, job.residency)
        if placement is None or self.name not in (placement.home, placement.fallback):
            return Admission(421, reason=f"job {job.id} does not belong to {self.name}")
        self.arrivals.add(f"{'own' if placement.home == self.name else 'foreign'}.{job.kind}", now_s)
        if attempt.expires_at_ms <= self._clock.wall_ms():
            return Admission(504, reason="this attempt was given up before it arrived")
        if not self.active:
            return Admission(503, reason="rejoining", retry_after_s=1)
        known = self._known(job.id)
        if known is not None:
            return known
        if self.control.drained(self.name) and self._bug != bugs.NO_FAILOVER:
            return Admission(503, reason="drained", retry_after_s=self.door.retry_after_s(1.0))
        if not self.pools["cpu"].ready(now_s):
            return Admission(503, reason="no workers", retry_after_s=self.door.retry_after_s(1.0))
        stored = StoredJob(
            job.id, job.kind, job.tier, job.deadline_ms, job.wait, placement.home, self._clock.wall_ms(), now_s,
            attempt.expires_at_ms, residency=job.residency, key=job.key,
        )  # fmt: skip
        entry = self._entry(stored, now_s)
        turned = self.door.turned_away(entry, now_s)
        if turned is not None:
            self._was_turned_away(entry, now_s)
            return Admission(429, reason=turned.reason, retry_after_s=turned.retry_after_s)
        self.door.entered(entry, now_s)
        self.tally.tries_total += 1
        with self.store.together():
            self.store.put(stored)
            if placement.home != self.name:
                self.store.claim(job.id, placement.home, stored.accepted_at_ms)
        self._entries[job.id] = entry
        self._lanes.push(entry)
        self.on_work(entry.pool)
        return Admission(200 if job.wait else 202, entry=entry)

    def _place(self, job_id: str, residency: str | None) -> Placement | None:
        return place(job_id, residency, self.regions)

    def _known(self, job_id: str) -> Admission | None:
        """The same job again: never twice."""
        owner = self.store.owner_elsewhere(job_id)
        if owner is not None:
            return Admission(409, reason="taken over by another region", owner=owner)
        entry = self._entries.get(job_id)
        if entry is not None:
            return Admission(200 if entry.job.wait else 202, entry=entry)
        stored = self.store.job(job_id)
        if stored is not None and stored.state == "done":
            return Admission(200 if stored.wait else 202, result=stored.result or b"")
        return None

    def _was_turned_away(self, entry: Entry, now_s: float) -> None:
        """Nothing remembers it."""

    # work goes out

    def heard(self, ask: LeaseAsk) -> None:
        """What a worker says of itself whenever it asks for work."""
        now_s = self.pulse()
        if ask.rss_bytes:
            self.fleet.heard(ask.worker, ask.pool, ask.version, ask.rss_bytes, now_s)
        self.feed_breaker = ask.feed_breaker or self.feed_breaker
        if ask.devices is not None and ask.devices != self.pools[ask.pool].devices:
            self.pools[ask.pool].devices = ask.devices
            for pool in POOLS:
                self.on_work(pool)

    def lease(self, pool: Pool, worker: str, want: int, loading: bool = False) -> list[Lease]:
        """Jobs for that many places of a worker of this pool; a worker that asks is a worker that lives."""
        now_s = self.pulse()
        state = self.pools[pool]
        state.last_contact_s = now_s
        state.loading = loading
        leases: list[Lease] = []
        while self.active and not loading and (entry := self._next(pool, want, now_s)) is not None:
            leases.append(self._lease(entry, pool, worker, now_s))
            want -= places_of(entry.job.kind, pool)
        return leases

    def has_work(self, pool: Pool) -> bool:
        return self.active and self._lanes.next(pool, self.pools[pool].places, self._clock.mono_s()) is not None

    def _next(self, pool: Pool, want: int, now_s: float) -> Entry | None:
        while (entry := self._lanes.next(pool, want, now_s)) is not None:
            if not entry.expired(now_s) or self._keeps_expired:
                return entry
            self._end(entry, "refused", "deadline passed in the queue")
        return None

    def _lease(self, entry: Entry, pool: Pool, worker: str, now_s: float) -> Lease:
        self._lanes.take(entry, pool)
        job, work = entry.job, work_of(entry.job.kind, pool == "gpu")
        self.tally.tries_total += entry.leased_again
        entry.leased_again = True
        self._lease_number += 1
        entry.token = f"{self._epoch}.{self._lease_number}"
        entry.worker = worker
        entry.lease_until_s = now_s + work.step_s + LEASE_MARGIN_S
        if job.steps < entry.due:
            self.tally.jobs_restarted_total += 1
        entry.reported = entry.due = job.steps
        return Lease(job.id, job.kind, entry.token, job.steps, work.steps, work.step_s)

    def hand_back(self, worker: str, job_id: str, token: str) -> None:
        """A worker can't go on with it: somebody else may, at once."""
        now_s = self.pulse()
        entry = self._holder(job_id, token)
        if entry is not None and entry.worker == worker:
            self._requeue(entry, now_s)

    def checkpoint(self, job_id: str, token: str, steps_done: int) -> bool:
        """Progress, saved where a checkpoint is due; False: the lease is over, drop the job."""
        now_s = self.pulse()
        entry = self._holder(job_id, token)
        if entry is None:
            return False
        work = WORK[entry.job.kind]
        entry.reported = steps_done
        entry.lease_until_s = now_s + work.step_s + LEASE_MARGIN_S
        self.pools[entry.pool].last_contact_s = now_s
        if not work.saves(steps_done):
            return True
        entry.due = steps_done
        if self._bug != bugs.NO_CHECKPOINT:
            entry.job.steps = steps_done
            self.store.save_steps(job_id, steps_done)
        if self._lanes.more_urgent(entry, now_s) and not entry.impatient(now_s):
            self.tally.jobs_preempted_total += 1
            self._requeue(entry, now_s)
            entry.leased_again = False
            return False
        return True

    def complete(self, worker: str, outcome: Outcome) -> bool:
        """Count a completion, once; False: fenced, the work is thrown away."""
        now_s = self.pulse()
        entry = self._holder(outcome.id, outcome.token)
        if entry is None or entry.worker != worker:
            return self._fence(outcome)
        self.pools[entry.pool].last_contact_s = now_s
        if not outcome.ok:
            if entry.expires_s is None:
                self._requeue(entry, now_s)
            else:
                self._end(entry, "refused", outcome.text or "the work failed")
            return True
        if entry.expired(now_s) and not self._keeps_expired:
            self._end(entry, "refused", "completed after its caller had given up")
            return True
        took_ms = (now_s - entry.job.accepted_mono_s) * 1000.0
        said = JobResult(
            entry.job.id, "done", self.name, entry.job.kind, entry.pool, outcome.text, outcome.stale,
            outcome.report_age_s, round(took_ms, 3),
        )  # fmt: skip
        result = _encode(said)
        with self.store.together():
            self.store.complete(entry.job.id, outcome.token, self._clock.wall_ms(), took_ms, result)
        self.tally.jobs_done_total += 1
        if entry.job.residency not in (None, self.name):
            self.tally.residency_broken_total += 1
        if (outcome.report_age_s or 0.0) > STALE_AGE_S and not outcome.stale:
            self.tally.unmarked_stale_total += 1
        entry.reported = entry.job.steps
        self._close(entry, "done", "", result)
        return True

    def _fence(self, outcome: Outcome) -> bool:
        """Whoever has no lease any more doesn't count."""
        self.tally.jobs_fenced_total += 1
        return False

    def give_up(self, entry: Entry) -> None:
        """The caller's time is over."""
        self.pulse()
        if self._entries.get(entry.job.id) is entry and not self._keeps_expired:
            self._end(entry, "refused", "deadline passed")

    def _holder(self, job_id: str, token: str) -> Entry | None:
        entry = self._entries.get(job_id)
        return entry if self.active and entry is not None and entry.token == token else None

    # other regions

    def supersede(self, owner: str, claims: Iterable[Claim]) -> tuple[str, ...]:
        """`owner` has taken these jobs: durable before it is confirmed. Served in any state.

        Returns those that stay ours, because they are done here and not yet there.
        """
        self.pulse()
        at_ms = self._clock.wall_ms()
        done_here = []
        for claim in claims:
            if self.store.owner_elsewhere(claim.id) is not None:
                continue
            if not claim.done and self.store.done(claim.id):
                done_here.append(claim.id)
                continue
            self._hand_over(claim.id, owner, at_ms)
        return tuple(done_here)

    def settle(self, peer: str, claims: Iterable[Claim], done_there: Collection[str]) -> None:
        """The peer has answered our claims: what it has done is left to it, unless it is done here by now.

        In the latter case the claim stays open and goes out again as done, which is final.
        """
        self.pulse()
        settled = []
        for claim in claims:
            if claim.id in done_there:
                if self.store.done(claim.id):
                    continue
                self._hand_over(claim.id, peer, self._clock.wall_ms())
            settled.append(claim.sequence)
        self.store.confirm_claims(settled)

    def _hand_over(self, job_id: str, owner: str, at_ms: float) -> None:
        with self.store.together():
            self.store.supersede(job_id, owner, at_ms)
        self.tally.jobs_superseded_total += 1
        entry = self._entries.get(job_id)
        if entry is not None:
            self._close(entry, "superseded", f"taken over by {owner}", b"")

    # the view from outside

    @property
    def depth(self) -> int:
        return self._lanes.depth

    @property
    def oldest_age_s(self) -> float:
        return self._lanes.oldest_age_s(self._clock.mono_s())

    def leased(self, job_id: str) -> bool:
        entry = self._entries.get(job_id)
        return entry is not None and bool(entry.token)

    def pool_health(self) -> dict[str, PoolHealth]:
        now_s = self._clock.mono_s()
        return {
            pool: PoolHealth(state.ready(now_s), state.slots, self._lanes.leased(pool), self._lanes.waiting(pool))
            for pool, state in self.pools.items()
        }

    def arrivals_per_s(self, whose: str) -> float:
        """`own`: jobs at home here; `foreign`: taken over from others. Refused ones count too."""
        rates = self.arrivals.per_s(self._clock.mono_s())
        return sum(rate for label, rate in rates.items() if label.startswith(f"{whose}."))

    def capacity_per_s(self) -> float:
        """Jobs a second that the quota of slots can carry, for the mix that arrives."""
        now_s = self._clock.mono_s()
        return carried_per_s(self.arrivals.per_s(now_s), self.pools, now_s)

    # book-keeping

    def _entry(self, job: StoredJob, now_s: float) -> Entry:
        gpu = self._lanes.gpu(now_s)
        expires_s = now_s + (job.expires_at_ms - self._clock.wall_ms()) / 1000.0 if job.wait else None
        queued_s = min(job.accepted_mono_s, now_s)
        pool: Pool = work_of(job.kind, gpu).pool
        cost_s = slot_cost_s(job.kind, gpu)
        return Entry(structs.replace(job), pool, cost_s, queued_s, expires_s, waits_since_s=queued_s)

    def _requeue(self, entry: Entry, now_s: float) -> None:
        self.tally.jobs_requeued_total += 1
        self._lost(entry)
        self._lanes.give_back(entry)
        entry.token, entry.worker, entry.waits_since_s = "", "", now_s
        entry.pool = work_of(entry.job.kind, self._lanes.gpu(now_s)).pool
        self._lanes.push(entry, first=True)
        self.on_work(entry.pool)

    def _lost(self, entry: Entry) -> None:
        """Its lease ends here: what isn't saved must be done again."""
        if entry.token:
            unsaved = max(0, entry.reported - entry.job.steps)
            self.tally.work_lost_seconds_total += unsaved * WORK[entry.job.kind].step_s
            entry.reported = entry.job.steps

    def _end(self, entry: Entry, state: End, reason: str) -> None:
        self.store.end(entry.job.id, state, reason)
        self._close(entry, state, reason, b"")

    def _close(self, entry: Entry, state: End, reason: str, result: bytes) -> None:
        if entry.token:
            self._lost(entry)
            self._lanes.give_back(entry)
            entry.token = ""
        else:
            self._lanes.remove(entry)
        if self._entries.get(entry.job.id) is entry:
            del self._entries[entry.job.id]
        for watcher in entry.watchers:
            watcher(state, reason, result)
        entry.watchers.clear()
