"""A pool's workers: slots that lease jobs from their region's gateway, work on them, and hand in what they did."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

from aiohttp import ClientSession, ClientTimeout, web
from msgspec.json import decode, encode

from stormdrill.platform.jobs import GPU_BATCH, MODEL_LOAD_S, Pool, gpu_batch_s
from stormdrill.platform.messages import (
    Checkpoint,
    CheckpointAnswer,
    Completions,
    CompletionsAnswer,
    Lease,
    LeaseAnswer,
    LeaseAsk,
    Outcome,
    Refusal,
    Report,
)
from stormdrill.platform.metrics import Metrics
from stormdrill.platform.peers import read_feed
from stormdrill.platform.pools import BASE_SLOTS
from stormdrill.platform.service import CALL_ERRORS, JSON, Handler, answer, client, log, metrics, repeat, serve
from stormdrill.platform.wiring import Peer, Wiring, WiringError

POLL_S = 1.0
POLL_MARGIN_S = 1.0
CALL_LIMIT_S = 1.0
HAND_IN_TRIES = 3
RETRY_S = 0.2
FEED_LIMIT_S = 0.15
"""A report doesn't wait longer than this for fresh data."""
FEATURES_EVERY_S = 2.0
_HEADERS = {"Content-Type": JSON}


class Workers:
    def __init__(self, wiring: Wiring, gateway: Peer, pool: Pool, session: ClientSession) -> None:
        self._name = wiring.instance
        self._gateway = gateway
        self._pool: Pool = pool
        self._feeds = wiring.peers_of("feed")
        self._session = session
        self._slots = BASE_SLOTS[pool]
        self._busy = 0
        self._freed = asyncio.Event()
        self._loaded = pool == "cpu"
        self._copy: Report | None = None
        """The last word of the feed that was heard here."""
        self._metrics = Metrics()
        self._running: set[asyncio.Task[None]] = set()

    def routes(self) -> Mapping[str, Handler]:
        return {"GET /healthz": self.health, "GET /metrics": self.show_metrics}

    async def health(self, request: web.Request) -> web.StreamResponse:
        if not self._loaded:
            return answer(Refusal("the model is loading"), 503)
        return answer(b'{"status":"ok"}')

    async def show_metrics(self, request: web.Request) -> web.StreamResponse:
        self._metrics.gauge("slots", self._slots)
        self._metrics.gauge("slots_busy", self._busy)
        return metrics(self._metrics.text())

    # getting work

    async def work(self) -> None:
        if not self._loaded:
            await self._ask(0)
            await asyncio.sleep(MODEL_LOAD_S)
            self._loaded = True
            log.info("model loaded")
        while True:
            free = self._slots - self._busy
            if free <= 0:
                self._freed.clear()
                await self._freed.wait()
                continue
            leases = await self._ask(free * (GPU_BATCH if self._pool == "gpu" else 1))
            if leases is None:
                await asyncio.sleep(RETRY_S)
                continue
            if self._pool == "gpu":
                for batch in _batches(leases, free):
                    self._start(self._infer(batch))
            else:
                for lease in leases:
                    self._start(self._compute(lease))

    async def _ask(self, want: int) -> Sequence[Lease] | None:
        ask = LeaseAsk(self._name, self._pool, want, POLL_S, not self._loaded)
        body = await self._call("/leases", encode(ask), POLL_S + POLL_MARGIN_S)
        if body is None:
            return None
        granted = decode(body, type=LeaseAnswer)
        self._slots = granted.slots
        report = granted.report
        if report is not None and (self._copy is None or report.as_of_ms > self._copy.as_of_ms):
            self._copy = report
        return granted.leases

    def _start(self, work: object) -> None:
        self._busy += 1
        task: asyncio.Task[None] = asyncio.create_task(work)  # type: ignore[arg-type]
        self._running.add(task)
        task.add_done_callback(self._stopped)

    def _stopped(self, task: asyncio.Task[None]) -> None:
        self._busy -= 1
        self._freed.set()
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a job broke; its lease will run out", exc_info=task.exception())

    # working

    async def _compute(self, lease: Lease) -> None:
        for step in range(lease.steps_done, lease.steps):
            await asyncio.sleep(lease.step_s)
            if step + 1 < lease.steps and not await self._checkpoint(lease, step + 1):
                self._metrics.count("jobs_dropped_total")
                return
        await self._hand_in(await self._report(lease) if lease.kind == "report" else _done(lease))

    async def _infer(self, batch: Sequence[Lease]) -> None:
        await asyncio.sleep(gpu_batch_s(len(batch)))
        await self._hand_in(*(_done(lease) for lease in batch))

    async def _report(self, lease: Lease) -> Outcome:
        """From fresh data; from the last copy, and marked so, when the feed is late."""
        fresh = await read_feed(self._feeds, self._session, FEED_LIMIT_S)
        self._copy = fresh or self._copy
        if self._copy is None:
            return Outcome(lease.id, lease.token, ok=False, text="no data: the feed is silent and there is no copy yet")
        age_s = max(0.0, time.time() - self._copy.as_of_ms / 1000.0)
        return Outcome(lease.id, lease.token, True, self._copy.text, fresh is None, round(age_s, 3))

    async def _checkpoint(self, lease: Lease, steps_done: int) -> bool:
        saved = Checkpoint(self._name, lease.id, lease.token, steps_done)
        body = await self._call("/checkpoints", encode(saved), CALL_LIMIT_S)
        return body is None or decode(body, type=CheckpointAnswer).go_on

    async def _hand_in(self, *outcomes: Outcome) -> None:
        """An answer lost on the way is asked for again: a second handing in is fenced, not counted."""
        body = encode(Completions(self._name, self._pool, outcomes))
        for _ in range(HAND_IN_TRIES):
            answered = await self._call("/completions", body, CALL_LIMIT_S)
            if answered is not None:
                fenced = len(decode(answered, type=CompletionsAnswer).fenced)
                self._metrics.count("jobs_fenced_total", fenced)
                self._metrics.count("requests_served_total", len(outcomes) - fenced)
                return
            await asyncio.sleep(RETRY_S)
        self._metrics.count("jobs_dropped_total", len(outcomes))

    async def _call(self, path: str, body: bytes, limit_s: float) -> bytes | None:
        try:
            async with self._session.post(
                f"{self._gateway.url}{path}", data=body, headers=_HEADERS, timeout=ClientTimeout(total=limit_s)
            ) as response:
                payload = await response.read()
                return payload if response.status == 200 else None
        except CALL_ERRORS:
            return None

    async def refresh_features(self) -> None:
        """GPU workers keep the feed's last word as features; inference never waits for it."""
        self._copy = await read_feed(self._feeds, self._session, FEATURES_EVERY_S) or self._copy


def _done(lease: Lease) -> Outcome:
    return Outcome(lease.id, lease.token, text=f"{lease.kind} done")


def _batches(leases: Sequence[Lease], slots: int) -> list[Sequence[Lease]]:
    """As many slots as are free, at most a full batch each, filled evenly."""
    count = min(slots, len(leases))
    return [leases[index::count] for index in range(count)]


async def run(wiring: Wiring, region: str, pool: Pool) -> None:
    gateways = {peer.region("gateway"): peer for peer in wiring.peers_of("gateway")}
    if region not in gateways:
        raise WiringError(f"{wiring.instance} works for region {region}, but no gateway-{region} is among its peers")
    async with client(limit_s=CALL_LIMIT_S) as session:
        workers = Workers(wiring, gateways[region], pool, session)
        works = [workers.work()]
        if pool == "gpu":
            works.append(repeat(FEATURES_EVERY_S, workers.refresh_features))
        await serve(wiring.port, workers.routes(), *works)
