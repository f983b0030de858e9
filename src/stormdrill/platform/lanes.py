"""Who goes next: the waiting jobs of a region in three lanes, and the room that its pools have for them. Pure.

API calls, reports and batch jobs wait in the lane `cpu`, inference in `gpu` (or in `cpu` while there is no GPU),
training in a lane of its own: it needs a GPU slot for seconds, and may hold half of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from stormdrill.platform import bugs
from stormdrill.platform.broken_pools import pool_with
from stormdrill.platform.capacity import predicted_wait_s
from stormdrill.platform.jobs import PARTITION_SLOTS, POOLS, Pool, places_of
from stormdrill.platform.queue import LANES, PROMOTED_SHARE, Entry, Lane, WorkQueue

TRAINING_SHARE = 0.5


class Lanes:
    def __init__(self, *, bug: str = bugs.NONE, scale: float = 1.0) -> None:
        self.pools = {pool: pool_with(bug).of(pool, scale) for pool in POOLS}
        self._bug = bug
        self._cpu_fallback = bug != bugs.NO_CPU_FALLBACK
        self._queues: dict[Lane, WorkQueue] = {}
        self._leased: dict[str, Entry] = {}
        self.now_s = 0.0
        """When work was last looked for."""
        self._at_work: Counter[int] = Counter()
        """By partition."""
        self.clear()

    def clear(self) -> None:
        """Nothing waits and nothing is leased; the pools stay."""
        in_order, blocks = self._bug in (bugs.NO_SHEDDING, bugs.UNBOUNDED_QUEUE), self._bug == bugs.HEAD_OF_LINE
        self._queues = {lane: WorkQueue(in_order, self._blocked, blocks) for lane in LANES}
        self._leased.clear()
        self._at_work.clear()
        for state in self.pools.values():
            state.taken = 0

    def gpu(self, now_s: float) -> bool:
        """Whether inference is meant for the GPU pool now."""
        return not self._cpu_fallback or self.pools["gpu"].ready(now_s)

    def push(self, entry: Entry, first: bool = False) -> None:
        self._queues[entry.lane].push(entry, first)

    def remove(self, entry: Entry) -> None:
        self._queues[entry.lane].remove(entry)

    def take(self, entry: Entry, pool: Pool) -> None:
        """From its lane into a pool."""
        self.remove(entry)
        entry.pool = pool
        self._leased[entry.job.id] = entry
        self._at_work[entry.partition] += 1
        self.pools[pool].taken += places_of(entry.job.kind, pool)

    def give_back(self, entry: Entry) -> None:
        """Its place is free again."""
        if self._leased.pop(entry.job.id, None) is not None:
            self._at_work[entry.partition] -= 1
            self.pools[entry.pool].taken -= places_of(entry.job.kind, entry.pool)

    def next(self, pool: Pool, want: int, now_s: float) -> Entry | None:
        """What this pool is to run next, still in its lane, within so many places."""
        self.now_s = now_s
        room = min(want, self.pools[pool].room)
        if room <= 0:
            return None
        heads = [self._head(pool, now_s)]
        if pool == "cpu" and self._cpu_fallback and not self.gpu(now_s):
            heads.append(self._head("gpu", now_s, promote=self._promotes(pool)))
        if pool == "gpu" and self.training < self._training_most() and room >= places_of("training", "gpu"):
            heads.append(self._queues["training"].head(now_s))
        there = [head for head in heads if head is not None]
        promote = self._promotes(pool)
        return min(there, key=lambda entry: self._queues[pool].urgency(entry, now_s, promote)) if there else None

    def more_urgent(self, entry: Entry, now_s: float) -> bool:
        """Something of a higher tier waits for the place that this one holds."""
        head = self._queues[entry.pool].head(now_s)
        return head is not None and head.job.tier < entry.job.tier

    def wait_s(self, lane: Lane, tier: int, now_s: float) -> float:
        """What a newcomer would wait behind all that runs before it."""
        pool: Pool = "cpu" if lane == "cpu" else "gpu"
        state = self.pools[pool]
        running = [entry for entry in self._leased.values() if entry.pool == pool]
        if lane == "training":
            running = [entry for entry in running if entry.lane == lane]
            slots = self._training_most()
            room = len(running) < slots and state.room >= places_of("training", pool)
        else:
            slots = state.slots - (self.training if pool == "gpu" else 0)
            running = [entry for entry in running if entry.lane != "training"]
            room = state.room > 0
        return predicted_wait_s(room, slots, self._queues[lane], running, tier)

    def waiting_in(self, partition: int) -> int:
        """Jobs of that partition in the queue."""
        return sum(entry.partition == partition for queue in self._queues.values() for entry in queue)

    def waiting_of(self, key: str) -> int:
        """Jobs of that key in the queue."""
        return sum(entry.job.key == key for queue in self._queues.values() for entry in queue)

    def partition_wait_s(self, entry: Entry) -> float:
        """What a newcomer would wait behind the jobs of its own partition."""
        if not entry.job.key:
            return 0.0
        ahead = max(0, self.waiting_in(entry.partition) + self._at_work[entry.partition] - PARTITION_SLOTS + 1)
        return ahead * entry.cost_s / PARTITION_SLOTS

    def _blocked(self, entry: Entry) -> bool:
        return bool(entry.job.key) and self._at_work[entry.partition] >= PARTITION_SLOTS

    @property
    def training(self) -> int:
        """Training jobs at work."""
        return sum(entry.lane == "training" for entry in self._leased.values())

    @property
    def depth(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    @property
    def promised(self) -> int:
        """Of those that wait: acknowledged, nobody waits for the answer."""
        return sum(entry.expires_s is None for queue in self._queues.values() for entry in queue)

    def promoted(self, lane: Lane, now_s: float) -> float:
        """Slots held by acknowledged jobs that go before others, since they have waited long enough; those beyond their
        share give way."""
        held = sum(entry.lane == lane and entry.impatient(now_s) for entry in self._leased.values())
        slots = self.pools["cpu" if lane == "cpu" else "gpu"].slots
        return min(held, max(1.0, PROMOTED_SHARE * slots))

    def waiting(self, pool: Pool) -> int:
        return sum(len(self._queues[lane]) for lane in _lanes(pool))

    def leased(self, pool: Pool) -> int:
        return sum(entry.pool == pool for entry in self._leased.values())

    def oldest_age_s(self, now_s: float) -> float:
        return max(queue.oldest_age_s(now_s) for queue in self._queues.values())

    def scale(self, now_s: float) -> None:
        for pool, state in self.pools.items():
            state.scale(now_s, max(self._queues[lane].oldest_age_s(now_s) for lane in _lanes(pool)))

    def _head(self, lane: Pool, now_s: float, promote: bool | None = None) -> Entry | None:
        return self._queues[lane].head(now_s, self._promotes(lane) if promote is None else promote)

    def _promotes(self, pool: Pool) -> bool:
        """Impatient jobs may go before tier 1 while they hold less than their share."""
        promised = sum(1 for e in self._leased.values() if e.pool == pool and e.lane == pool and e.expires_s is None)
        return promised < max(1.0, PROMOTED_SHARE * self.pools[pool].slots)

    def _training_most(self) -> int:
        return int(self.pools["gpu"].slots * TRAINING_SHARE)


def _lanes(pool: Pool) -> Iterator[Lane]:
    yield pool
    if pool == "gpu":
        yield "training"
