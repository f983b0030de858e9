"""The gateway: a region's front, queue and memory, over HTTP."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping, Sequence

from aiohttp import web
from msgspec import structs
from msgspec.json import Encoder

from stormdrill.platform import bugs
from stormdrill.platform.admin import Admin
from stormdrill.platform.broken import SplitBrain, region_with
from stormdrill.platform.clock import SystemClock
from stormdrill.platform.control import RELEASES
from stormdrill.platform.devices import STATES
from stormdrill.platform.feeding import FeedCopy
from stormdrill.platform.jobs import POOLS, Pool
from stormdrill.platform.memory import rss_bytes
from stormdrill.platform.messages import (
    Attempt,
    Checkpoint,
    CheckpointAnswer,
    Claims,
    ClaimsAnswer,
    Completions,
    CompletionsAnswer,
    Health,
    JobResult,
    Lease,
    LeaseAnswer,
    LeaseAsk,
    Refusal,
    Return,
)
from stormdrill.platform.metrics import Metrics
from stormdrill.platform.peers import EVERYTHING, Peers
from stormdrill.platform.pools import OK
from stormdrill.platform.queue import End, Entry
from stormdrill.platform.region import Admission, Region
from stormdrill.platform.service import Handler, answer, client, log, metrics, read, repeat, serve
from stormdrill.platform.store import Store
from stormdrill.platform.wiring import Wiring

TICK_S = 0.1
LONGEST_POLL_S = 5.0
SERVICE = "gateway"
BLOAT_DEPTH = 8
"""More than so many waiting, and with the bug buffer-bloat reports stay in the output buffer."""
BLOAT_LEFT_S = 0.1
_encoder = Encoder()


class Gateway:
    def __init__(self, region: Region, peers: Peers, feed: FeedCopy, bug: str) -> None:
        self._bug = bug
        self._region = region
        self._peers = peers
        self._feed = feed
        self._metrics = Metrics()
        self._admin = Admin(region, peers)
        self._work = {pool: asyncio.Event() for pool in POOLS}
        self._report_age_s: float | None = None
        region.on_work = self._wake

    def routes(self) -> Mapping[str, Handler]:
        return {
            "POST /attempts": self.attempt,
            "GET /jobs/{id}": self.job,
            "POST /leases": self.lease,
            "POST /checkpoints": self.checkpoint,
            "POST /completions": self.completions,
            "POST /returns": self.returns,
            "POST /claims": self.claims,
            "GET /claims": self.claims_held,
            "GET /healthz": self.health,
            "GET /metrics": self.show_metrics,
            "GET /ledger": self.ledger,
            **self._admin.routes(),
        }

    # users' work, from the edges

    async def attempt(self, request: web.Request) -> web.StreamResponse:
        attempt = await read(request, Attempt)
        region = self._region
        admission = region.admit(attempt)
        self._metrics.count("attempts_total")
        self._metrics.count("hop_received_total")
        self._metrics.count("requests_served_total")
        if admission.entry is not None and admission.status == 200:
            response = await self._result(admission.entry, attempt)
        else:
            response = self._at_once(admission, attempt)
        tier = str(attempt.job.tier)
        self._metrics.count("requests_total", code=str(response.status), tier=tier)
        if response.status == 429:
            self._metrics.count("shed_total", tier=tier, reason=admission.reason)
        return response

    def _at_once(self, admission: Admission, attempt: Attempt) -> web.Response:
        name = self._region.name
        if admission.result:
            return answer(admission.result, admission.status)
        if admission.status == 202:
            return answer(JobResult(attempt.job.id, "queued", name, attempt.job.kind), 202)
        refusal = Refusal(admission.reason, name, admission.owner)
        return answer(refusal, admission.status, admission.retry_after_s)

    async def _result(self, entry: Entry, attempt: Attempt) -> web.Response:
        """Wait for a synchronous job until its caller gives up."""
        ending: asyncio.Future[tuple[End, str, bytes]] = asyncio.get_running_loop().create_future()

        def ended(end: End, reason: str, result: bytes) -> None:
            if not ending.done():
                ending.set_result((end, reason, result))

        entry.watchers.append(ended)
        try:
            end, reason, result = await asyncio.wait_for(ending, _left_s(attempt))
        except TimeoutError:
            self._region.give_up(entry)
            return answer(Refusal("deadline passed", self._region.name), 504)
        if end == "done":
            if self._bug == bugs.BUFFER_BLOAT and attempt.job.kind == "report" and self._region.depth > BLOAT_DEPTH:
                await asyncio.sleep(max(0.0, _left_s(attempt) - BLOAT_LEFT_S))
            return answer(result)
        if end == "superseded":
            return answer(Refusal(reason, self._region.name), 409)
        return answer(Refusal(reason, self._region.name), 504 if "deadline" in reason else 503, 1)

    async def job(self, request: web.Request) -> web.StreamResponse:
        job_id = request.match_info["id"]
        name = self._region.name
        owner = self._region.store.owner_elsewhere(job_id)
        if owner is not None:
            return answer(Refusal("taken over by another region", name, owner), 409)
        stored = self._region.store.job(job_id)
        if stored is None:
            return answer(Refusal(f"no job {job_id} here", name), 404)
        if stored.result:
            return answer(stored.result)
        state = "leased" if self._region.leased(job_id) else stored.state
        return answer(JobResult(job_id, state, name, stored.kind, text=stored.reason))

    # workers

    async def lease(self, request: web.Request) -> web.StreamResponse:
        ask = await read(request, LeaseAsk)
        region = self._region
        region.heard(ask)
        if ask.version != self._version(ask.pool):
            return self._granted(ask, ())
        leases = region.lease(ask.pool, ask.worker, ask.want, ask.loading)
        wait_s = min(ask.wait_s, LONGEST_POLL_S)
        if not leases and not ask.loading and wait_s > 0 and await self._work_within(ask.pool, wait_s):
            leases = region.lease(ask.pool, ask.worker, ask.want)
        return self._granted(ask, leases)

    def _granted(self, ask: LeaseAsk, leases: Sequence[Lease]) -> web.Response:
        report = self._feed.report if any(lease.kind == "report" for lease in leases) else None
        slots, version = self._region.pools[ask.pool].slots, self._version(ask.pool)
        return answer(LeaseAnswer(tuple(leases), slots, report, version))

    def _version(self, pool: Pool) -> str:
        """The release that this region's workers of a pool are to run."""
        return self._region.control.release(self._region.name, pool).version

    async def _work_within(self, pool: Pool, limit_s: float) -> bool:
        event = self._work[pool]
        event.clear()
        if self._region.has_work(pool):
            return True
        try:
            await asyncio.wait_for(event.wait(), limit_s)
        except TimeoutError:
            return False
        return True

    def _wake(self, pool: Pool) -> None:
        self._work[pool].set()
        if pool == "gpu":
            self._work["cpu"].set()

    async def checkpoint(self, request: web.Request) -> web.StreamResponse:
        saved = await read(request, Checkpoint)
        return answer(CheckpointAnswer(self._region.checkpoint(saved.id, saved.token, saved.steps_done)))

    async def completions(self, request: web.Request) -> web.StreamResponse:
        batch = await read(request, Completions)
        fenced = []
        for outcome in batch.outcomes:
            if not self._region.complete(batch.worker, outcome):
                fenced.append(outcome.id)
            elif outcome.report_age_s is not None:
                self._report_age_s = outcome.report_age_s
        return answer(CompletionsAnswer(tuple(fenced)))

    async def returns(self, request: web.Request) -> web.StreamResponse:
        given = await read(request, Return)
        for job_id, token in given.leases:
            self._region.hand_back(given.worker, job_id, token)
        return answer(b"{}")

    # other regions

    async def claims(self, request: web.Request) -> web.StreamResponse:
        taken = await read(request, Claims)
        return answer(ClaimsAnswer(self._region.supersede(taken.owner, taken.claims)))

    async def claims_held(self, request: web.Request) -> web.StreamResponse:
        region = self._region
        held = region.store.claims_against(request.query.get("against", ""), EVERYTHING)
        return answer(Claims(region.name, tuple(held), region.control.snapshot()))

    # views

    async def health(self, request: web.Request) -> web.StreamResponse:
        region = self._region
        now_s = region.pulse()
        health = Health(
            region=region.name,
            ready=region.active and region.pools["cpu"].ready(now_s),
            state="active" if region.active else "rejoining",
            epoch=region.epoch,
            pools=region.pool_health(),
            queue_depth=region.depth,
            queue_limit=region.door.limit,
            queue_oldest_age_s=round(region.oldest_age_s, 3),
            own_arrivals_per_s=region.arrivals_per_s("own"),
            capacity_per_s=region.capacity_per_s(),
            control=region.control.snapshot(),
            silent_pools=tuple(pool for pool, state in region.pools.items() if state.silent(now_s)),
            gpu_devices=self._devices(now_s),
            leaks=region.fleet.leaks(now_s),
            feed_late=self._feed.late,
            feed_breaker=region.feed_breaker,
            unseen=self._peers.unseen,
            open_jobs=region.open_jobs() if isinstance(region, SplitBrain) else (),
        )
        return answer(health)

    def _devices(self, now_s: float) -> dict[str, int]:
        """As the GPU worker sees them; none when it doesn't answer."""
        state = self._region.pools["gpu"]
        return dict(state.devices) if state.answering(now_s) else {}

    async def ledger(self, request: web.Request) -> web.StreamResponse:
        """Every job that this region has accepted, after asking the others what they have taken from it."""
        await self._peers.fetch_claims()
        rows = self._region.store.ledger(self._region.name)
        lines = [structs.replace(row, state="leased") if self._region.leased(row.id) else row for row in rows]
        return web.Response(body=_encoder.encode_lines(lines), content_type="application/x-ndjson")

    async def show_metrics(self, request: web.Request) -> web.StreamResponse:
        region, shown = self._region, self._metrics
        shown.gauge("queue_depth", region.depth)
        shown.gauge("queue_limit", region.door.limit)
        shown.gauge("queue_oldest_age_seconds", region.oldest_age_s)
        for pool, health in region.pool_health().items():
            shown.gauge("slots", health.slots, pool=pool)
            shown.gauge("slots_quota", region.pools[pool].quota, pool=pool)  # type: ignore[index]
            shown.gauge("jobs_leased", health.leased, pool=pool)
            shown.gauge("pool_ready", health.ready, pool=pool)
            release = self._version(pool)  # type: ignore[arg-type]
            for version in RELEASES:
                shown.gauge("release_info", version == release, pool=pool, version=version)
        devices = self._devices(region.pulse())
        for state in STATES:
            shown.gauge("gpu_devices", devices.get(state, 0), state=state)
        shown.gauge("gpu_devices_working", devices.get(OK, 0))
        for worker in region.fleet.slopes(region.pulse()):
            shown.gauge("memory_slope_bytes_per_second", worker.bytes_per_s, instance=worker.instance)
        shown.gauge("feed_late", self._feed.late)
        for name, value in region.tally.shown().items():
            shown.gauge(name, value)
        shown.gauge("hop_sent_total", region.tally.tries_total)
        shown.gauge("process_resident_memory_bytes", rss_bytes())
        shown.gauge("lease_epoch", region.epoch)
        shown.gauge("claims_outstanding", region.store.claims_outstanding())
        shown.gauge("shed_level", region.control.shed_level)
        if self._report_age_s is not None:
            shown.gauge("report_age_seconds", self._report_age_s)
        return metrics(shown.text())

    async def tick(self) -> None:
        was = self._region.active
        self._region.tick()
        if was and not self._region.active:
            log.warning("was away: rejoining as epoch %d", self._region.epoch)


def _left_s(attempt: Attempt) -> float:
    """Until the edge gives it up."""
    return max(0.0, (attempt.expires_at_ms - SystemClock().wall_ms()) / 1000.0)


async def run(wiring: Wiring, region_name: str, bug: str, scale: float) -> None:
    clock = SystemClock()
    others = {peer.region(SERVICE): peer for peer in wiring.peers_of(SERVICE)}
    others.pop(region_name, None)
    path = wiring.data / "region.sqlite"
    store = bugs.ForgetfulStore(path, clock) if bug == bugs.LOST_ACKNOWLEDGEMENT else Store(path)
    seed = zlib.crc32(wiring.instance.encode())
    regions = (region_name, *others)
    region = region_with(bug)(region_name, regions, store, clock, bug=bug, seed=seed, scale=scale)
    async with client(limit_s=2.0, idle_s=wiring.idle_s) as session:
        peers = Peers(region, others, session)
        feed = FeedCopy(wiring.peers_of("feed"), session)
        gateway = Gateway(region, peers, feed, bug)
        works = [repeat(TICK_S, gateway.tick), feed.follow(), *peers.works()]
        try:
            await serve(wiring, gateway.routes(), *works)
        finally:
            store.close()
