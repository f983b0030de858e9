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

import random
from collections.abc import Callable, Collection, Iterable, Sequence

from msgspec import Struct, structs
from msgspec.json import Encoder

from stormdrill.platform import bugs
from stormdrill.platform.admission import QUEUE_LIMIT, Outlook, Policy, retry_after_s, shed_reason
from stormdrill.platform.capacity import carried_per_s, predicted_wait_s
from stormdrill.platform.clock import Clock
from stormdrill.platform.control import Control
from stormdrill.platform.jobs import POOLS, WORK, Pool, place, slot_cost_s, work_of
from stormdrill.platform.messages import Attempt, JobResult, Lease, Outcome, PoolHealth
from stormdrill.platform.pools import PoolState
from stormdrill.platform.queue import PROMOTED_SHARE, End, Entry, WorkQueue
from stormdrill.platform.rates import Arrivals
from stormdrill.platform.store import Claim, Store, StoredJob

PAUSE_LIMIT_S = 0.5
"""A longer gap in our own clock means that the world may have gone on without us."""
LEASE_MARGIN_S = 1.5
"""A lease lasts one step and this much longer; a checkpoint renews it."""
POLICIES: dict[str, Policy] = {bugs.NO_SHEDDING: "full-queue", bugs.UNBOUNDED_QUEUE: "everything"}

_encode = Encoder().encode


class Admission(Struct, frozen=True):
    """200 and 202 mean accepted; with 200 and an `entry` the result is still to come."""

    status: int
    entry: Entry | None = None
    result: bytes = b""
    reason: str = ""
    retry_after_s: int | None = None
    owner: str = ""


class Tally:
    """Counters since the start, for /metrics."""

    def __init__(self) -> None:
        self.done = 0
        self.fenced = 0
        self.requeued = 0
        self.rejoins = 0
        self.superseded = 0
        self.preempted = 0


class Region:
    def __init__(self, name: str, regions: Sequence[str], store: Store, clock: Clock, *, bug: str, seed: int) -> None:
        self.name = name
        self.regions = tuple(sorted(regions))
        self.store = store
        self.control = Control(store.registers(), store.save_register)
        self.pools = {pool: PoolState.of(pool) for pool in POOLS}
        self.tally = Tally()
        self.arrivals = Arrivals()
        self.on_work: Callable[[Pool], None] = lambda pool: None
        """Called when a pool has new work."""
        self._clock = clock
        self._bug = bug
        self._policy: Policy = POLICIES.get(bug, "tiers")
        self._random = random.Random(seed)  # noqa: S311
        self._entries: dict[str, Entry] = {}
        self._queues = {pool: WorkQueue(in_arrival_order=self._policy != "tiers") for pool in POOLS}
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
        self.tally.rejoins += 1
        if isinstance(self.store, bugs.ForgetfulStore):
            self.store.forget()
        watchers = {job_id: entry.watchers for job_id, entry in self._entries.items()}
        self._entries.clear()
        for pool in POOLS:
            self._queues[pool] = WorkQueue(in_arrival_order=self._policy != "tiers")
            self.pools[pool].leased = 0
        now_s = self._clock.mono_s()
        for job in self.store.open_jobs():
            entry = self._entry(job, now_s)
            entry.watchers = watchers.get(job.id, [])
            self._entries[job.id] = entry
            self._queues[entry.pool].push(entry)
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
            if entry.token and now_s >= entry.lease_until_s:
                self.tally.requeued += 1
                self._requeue(entry, now_s)
            if not entry.token and entry.expired(now_s) and self._policy != "everything":
                self._end(entry, "refused", "deadline passed in the queue")
        for pool in POOLS:
            self.pools[pool].scale(now_s, self._queues[pool].oldest_age_s(now_s))

    # work comes in

    def admit(self, attempt: Attempt) -> Admission:
        now_s = self.pulse()
        job = attempt.job
        placement = place(job.id, job.residency, self.regions)
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
            return Admission(503, reason="drained", retry_after_s=self._retry_after(1.0))
        if not self.pools["cpu"].ready(now_s):
            return Admission(503, reason="no workers", retry_after_s=self._retry_after(1.0))
        stored = StoredJob(
            job.id, job.kind, job.tier, job.deadline_ms, job.wait, placement.home, self._clock.wall_ms(), now_s,
            attempt.expires_at_ms,
        )  # fmt: skip
        entry = self._entry(stored, now_s)
        refused = self._shed(entry, now_s)
        if refused is not None:
            return refused
        with self.store.together():
            self.store.put(stored)
            if placement.home != self.name:
                self.store.claim(job.id, placement.home, stored.accepted_at_ms)
        self._entries[job.id] = entry
        self._queues[entry.pool].push(entry)
        self.on_work(entry.pool)
        return Admission(200 if job.wait else 202, entry=entry)

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

    def _shed(self, entry: Entry, now_s: float) -> Admission | None:
        job = entry.job
        remaining_s = job.deadline_ms / 1000.0 if entry.expires_s is None else entry.expires_s - now_s
        pool = entry.pool
        running = [held for held in self._entries.values() if held.token and held.pool == pool]
        wait_s = predicted_wait_s(self.pools[pool], self._queues[pool], running, job.tier)
        service_s = work_of(job.kind, self.pools["gpu"].ready(now_s)).total_s
        outlook = Outlook(self.depth, wait_s, service_s, self.control.shed_level)
        reason = shed_reason(job.tier, remaining_s, job.wait, outlook, self._random.random(), self._policy)
        if reason is None:
            return None
        return Admission(429, reason=reason, retry_after_s=self._retry_after(wait_s))

    # work goes out

    def lease(self, pool: Pool, worker: str, want: int, loading: bool = False) -> list[Lease]:
        """Up to `want` jobs for a worker of this pool; a worker that asks is a worker that lives."""
        now_s = self.pulse()
        state = self.pools[pool]
        state.last_contact_s = now_s
        state.loading = loading
        leases: list[Lease] = []
        while self.active and not loading and len(leases) < want and state.leased < state.places:
            entry = self._next(pool, now_s)
            if entry is None:
                break
            leases.append(self._lease(entry, pool, worker, now_s))
        return leases

    def has_work(self, pool: Pool) -> bool:
        now_s = self._clock.mono_s()
        state = self.pools[pool]
        return self.active and state.leased < state.places and self._candidate(pool, now_s) is not None

    def _candidate(self, pool: Pool, now_s: float) -> Entry | None:
        promised = sum(1 for e in self._entries.values() if e.token and e.pool == pool and e.expires_s is None)
        promote = promised < max(1.0, PROMOTED_SHARE * self.pools[pool].slots)
        heads = [self._queues[pool].head(now_s, promote)]
        if pool == "cpu" and not self.pools["gpu"].ready(now_s):
            heads.append(self._queues["gpu"].head(now_s, promote))
        there = [head for head in heads if head is not None]
        return min(there, key=lambda entry: self._queues[pool].urgency(entry, now_s, promote)) if there else None

    def _next(self, pool: Pool, now_s: float) -> Entry | None:
        while (entry := self._candidate(pool, now_s)) is not None:
            if not entry.expired(now_s) or self._policy == "everything":
                return entry
            self._end(entry, "refused", "deadline passed in the queue")
        return None

    def _lease(self, entry: Entry, pool: Pool, worker: str, now_s: float) -> Lease:
        self._queues[entry.pool].remove(entry)
        gpu = pool == "gpu"
        work = work_of(entry.job.kind, gpu)
        self._lease_number += 1
        entry.pool = pool
        entry.token = f"{self._epoch}.{self._lease_number}"
        entry.worker = worker
        entry.lease_until_s = now_s + work.step_s + LEASE_MARGIN_S
        self.pools[pool].leased += 1
        return Lease(entry.job.id, entry.job.kind, entry.token, entry.job.steps, work.steps, work.step_s)

    def checkpoint(self, job_id: str, token: str, steps_done: int) -> bool:
        """Save a batch job's progress; False: the lease is over, drop the job."""
        now_s = self.pulse()
        entry = self._holder(job_id, token)
        if entry is None:
            return False
        entry.job.steps = steps_done
        self.store.save_steps(job_id, steps_done)
        self.pools[entry.pool].last_contact_s = now_s
        head = self._queues[entry.pool].head(now_s)
        if head is not None and head.job.tier < entry.job.tier and not entry.impatient(now_s):
            self.tally.preempted += 1
            self._requeue(entry, now_s)
            return False
        entry.lease_until_s = now_s + WORK[entry.job.kind].step_s + LEASE_MARGIN_S
        return True

    def complete(self, worker: str, outcome: Outcome) -> bool:
        """Count a completion, once; False: fenced, the work is thrown away."""
        now_s = self.pulse()
        entry = self._holder(outcome.id, outcome.token)
        if entry is None or entry.worker != worker:
            self.tally.fenced += 1
            return False
        self.pools[entry.pool].last_contact_s = now_s
        if not outcome.ok:
            if entry.expires_s is None:
                self._requeue(entry, now_s)
            else:
                self._end(entry, "refused", outcome.text or "the work failed")
            return True
        if entry.expired(now_s) and self._policy != "everything":
            self._end(entry, "refused", "completed after its caller had given up")
            return True
        took_ms = (now_s - entry.job.accepted_mono_s) * 1000.0
        result = _encode(
            JobResult(
                entry.job.id,
                "done",
                self.name,
                entry.job.kind,
                entry.pool,
                outcome.text,
                outcome.stale,
                outcome.report_age_s,
                round(took_ms, 3),
            )
        )
        with self.store.together():
            self.store.complete(entry.job.id, outcome.token, self._clock.wall_ms(), took_ms, result)
        self.tally.done += 1
        self._close(entry, "done", "", result)
        return True

    def give_up(self, entry: Entry) -> None:
        """The caller's time is over."""
        self.pulse()
        if self._entries.get(entry.job.id) is entry and self._policy != "everything":
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
        self.tally.superseded += 1
        entry = self._entries.get(job_id)
        if entry is not None:
            self._close(entry, "superseded", f"taken over by {owner}", b"")

    # the view from outside

    @property
    def depth(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    @property
    def queue_limit(self) -> int:
        return QUEUE_LIMIT

    @property
    def oldest_age_s(self) -> float:
        now_s = self._clock.mono_s()
        return max(queue.oldest_age_s(now_s) for queue in self._queues.values())

    def leased(self, job_id: str) -> bool:
        entry = self._entries.get(job_id)
        return entry is not None and bool(entry.token)

    def pool_health(self) -> dict[str, PoolHealth]:
        now_s = self._clock.mono_s()
        return {
            pool: PoolHealth(state.ready(now_s), state.slots, state.leased, len(self._queues[pool]))
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

    def _retry_after(self, wait_s: float) -> int:
        return retry_after_s(wait_s, self._random.random())

    def _entry(self, job: StoredJob, now_s: float) -> Entry:
        gpu = self.pools["gpu"].ready(now_s)
        expires_s = now_s + (job.expires_at_ms - self._clock.wall_ms()) / 1000.0 if job.wait else None
        queued_s = min(job.accepted_mono_s, now_s)
        pool: Pool = work_of(job.kind, gpu).pool
        return Entry(structs.replace(job), pool, slot_cost_s(job.kind, gpu), queued_s, expires_s)

    def _requeue(self, entry: Entry, now_s: float) -> None:
        self.pools[entry.pool].leased -= 1
        entry.token = entry.worker = ""
        entry.pool = work_of(entry.job.kind, self.pools["gpu"].ready(now_s)).pool
        self._queues[entry.pool].push(entry, first=True)
        self.on_work(entry.pool)

    def _end(self, entry: Entry, state: End, reason: str) -> None:
        self.store.end(entry.job.id, state, reason)
        self._close(entry, state, reason, b"")

    def _close(self, entry: Entry, state: End, reason: str, result: bytes) -> None:
        if entry.token:
            self.pools[entry.pool].leased -= 1
            entry.token = ""
        else:
            self._queues[entry.pool].remove(entry)
        if self._entries.get(entry.job.id) is entry:
            del self._entries[entry.job.id]
        for watcher in entry.watchers:
            watcher(state, reason, result)
        entry.watchers.clear()
