"""A pool's workers: slots that lease jobs from their region's gateway, work on them, and hand in what they did."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass

from aiohttp import ClientSession, ClientTimeout, web
from msgspec.json import decode, encode

from stormdrill.platform import bugs
from stormdrill.platform.breaker import Breaker
from stormdrill.platform.devices import PROBE_EVERY_S, STATES, DeviceLostError, Devices, Watched
from stormdrill.platform.feeding import age_s, read_feed
from stormdrill.platform.jobs import GPU_BATCH, MODEL_LOAD_S, STALE_AGE_S, Pool, gpu_batch_s, places_of
from stormdrill.platform.memory import LEAK_EVERY_S, WATCH_EVERY_S, Leak, Limit, rss_bytes, start_anew
from stormdrill.platform.messages import (
    BreakerState,
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
    Return,
)
from stormdrill.platform.metrics import Metrics
from stormdrill.platform.pools import BASE_SLOTS, OK, POLL_S
from stormdrill.platform.service import CALL_ERRORS, JSON, Handler, answer, client, log, metrics, repeat, serve
from stormdrill.platform.wiring import Peer, Wiring, WiringError

POLL_MARGIN_S = 1.0
CALL_LIMIT_S = 1.0
HAND_IN_TRIES = 3
RETRY_S = 0.2
FEED_LIMIT_S = 0.15
"""A report doesn't wait longer than this for fresh data."""
FEED_PATIENCE_S = 60.0
"""With the bug no-feed-timeout everything waits so long for it, inference too."""
FEATURES_EVERY_S = 2.0
_HEADERS = {"Content-Type": JSON}


@dataclass(slots=True, frozen=True)
class Held:
    """What one slot works on, and on which device."""

    leases: Sequence[Lease]
    on: Watched | None = None


class Workers:
    def __init__(self, wiring: Wiring, gateway: Peer, pool: Pool, session: ClientSession, bug: str) -> None:
        self._name = wiring.instance
        self._gateway = gateway
        self._pool: Pool = pool
        self._feeds = wiring.peers_of("feed")
        self._session = session
        self._bug = bug
        self._release = wiring.release
        self._slots = BASE_SLOTS[pool]
        self._freed = asyncio.Event()
        self._loaded = pool == "cpu"
        self._copy: Report | None = None
        """The last word of the feed that was heard here."""
        self._feed_breaker = Breaker()
        self._metrics = Metrics()
        self._running: dict[asyncio.Task[None], Held] = {}
        self._first_rss_bytes = rss_bytes()
        self.devices: Devices | None = None
        if pool == "gpu":
            self.devices = Devices(wiring.data / "devices", bug == bugs.GREY_BLIND, self._device_changed)

    def routes(self) -> Mapping[str, Handler]:
        return {"GET /healthz": self.health, "GET /metrics": self.show_metrics}

    async def health(self, request: web.Request) -> web.StreamResponse:
        if not self._loaded:
            return answer(Refusal("the model is loading"), 503)
        return answer(b'{"status":"ok"}')

    async def show_metrics(self, request: web.Request) -> web.StreamResponse:
        shown = self._metrics
        shown.gauge("slots", self._slots)
        shown.gauge("slots_busy", len(self._running))
        shown.gauge("process_resident_memory_bytes", self._rss_bytes())
        shown.gauge("release_info", 1, version=self._release)
        if self.devices is not None:
            states = self.devices.states()
            for state in STATES:
                shown.gauge("gpu_devices", states.get(state, 0), state=state)
            shown.gauge("gpu_devices_working", states.get(OK, 0))
        return metrics(shown.text())

    def _rss_bytes(self) -> float:
        return self._first_rss_bytes if self._bug == bugs.SILENT_LEAK else rss_bytes()

    # getting work

    async def work(self) -> None:
        if not self._loaded:
            await self._ask(0)
            await asyncio.sleep(MODEL_LOAD_S)
            self._loaded = True
            log.info("model loaded")
        while True:
            if self._free <= 0:
                self._freed.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._freed.wait(), POLL_S)
            leases = await self._ask(max(0, self._free) * (GPU_BATCH if self._pool == "gpu" else 1))
            if leases is None:
                await asyncio.sleep(RETRY_S)
            elif self._pool == "gpu":
                await self._spread(leases)
            else:
                for lease in leases:
                    self._start(self._compute(lease), Held((lease,)))

    @property
    def _free(self) -> int:
        return self._slots - len(self._running)

    async def _ask(self, want: int) -> Sequence[Lease] | None:
        """For work, and for what else the gateway wants of us; without a slot to spare only as a sign of life."""
        ask = LeaseAsk(
            self._name, self._pool, want, POLL_S if want else 0.0, not self._loaded, self._release, self._rss_bytes(),
            self.devices.states() if self.devices is not None else None,
            BreakerState(self._feed_breaker.is_open, self._feed_breaker.trials) if self._pool == "cpu" else None,
        )  # fmt: skip
        body = await self._call("/leases", encode(ask), POLL_S + POLL_MARGIN_S)
        if body is None:
            return None
        granted = decode(body, type=LeaseAnswer)
        if granted.version != self._release:
            await self._become(granted.version, granted.leases)
        self._slots = granted.slots
        report = granted.report
        if report is not None and (self._copy is None or report.as_of_ms > self._copy.as_of_ms):
            self._copy = report
        return granted.leases

    async def _become(self, version: str, leases: Sequence[Lease]) -> None:
        """Another release is to run here: give everything back, and begin anew as that."""
        log.warning("release %s instead of %s: giving back what is leased, starting anew", version, self._release)
        await self._give_back(*leases, *self._stop(tuple(self._running)))
        start_anew(version)

    async def _spread(self, leases: Sequence[Lease]) -> None:
        """Training has a slot for itself; inference goes in batches, filled evenly. Each on the least busy device."""
        assert self.devices is not None
        alone = [lease for lease in leases if places_of(lease.kind, self._pool) > 1]
        for batch in [[lease] for lease in alone] + _batches(
            [lease for lease in leases if lease not in alone], max(1, self._free - len(alone))
        ):
            device = self.devices.best()
            if device is None:
                await self._give_back(*batch)
            elif batch[0] in alone:
                self._start(self._train(batch[0], device), Held(batch, device))
            else:
                self._start(self._infer(batch, device), Held(batch, device))

    def _start(self, work: Coroutine[None, None, None], held: Held) -> None:
        if held.on is not None:
            held.on.running += 1
        task = asyncio.create_task(work)
        self._running[task] = held
        task.add_done_callback(self._stopped)

    def _stopped(self, task: asyncio.Task[None]) -> None:
        held = self._running.pop(task, None)
        if held is not None and held.on is not None:
            held.on.running -= 1
        self._freed.set()
        if not task.cancelled() and task.exception() is not None:
            log.error("a job broke; its lease will run out", exc_info=task.exception())

    def _stop(self, tasks: Sequence[asyncio.Task[None]]) -> list[Lease]:
        """Drop these; returns what they had leased."""
        leases = [lease for task in tasks for lease in self._running[task].leases]
        for task in tasks:
            task.cancel()
        return leases

    async def _give_back(self, *leases: Lease) -> None:
        if leases:
            given = Return(self._name, tuple((lease.id, lease.token) for lease in leases))
            await self._call("/returns", encode(given), CALL_LIMIT_S)

    async def _device_changed(self, device: Watched) -> None:
        """What can't end on it goes back at once; training always does, it would take for ever on a slow one."""
        log.warning("%s is %s", device.device.name, device.state)
        if device.state != OK:
            stuck = device.state in ("lost", "hang")
            tasks = [
                task
                for task, held in self._running.items()
                if held.on is device and (stuck or held.leases[0].kind == "training")
            ]
            await self._give_back(*self._stop(tasks))
        await self._ask(0)

    # working

    async def _compute(self, lease: Lease) -> None:
        for step in range(lease.steps_done, lease.steps):
            await asyncio.sleep(lease.step_s)
            if step + 1 < lease.steps and not await self._checkpoint(lease, step + 1):
                self._metrics.count("jobs_dropped_total")
                return
        await self._hand_in(await self._report(lease) if lease.kind == "report" else _done(lease))

    async def _train(self, lease: Lease, device: Watched) -> None:
        try:
            for step in range(lease.steps_done, lease.steps):
                await device.device.run(lease.step_s)
                if step + 1 < lease.steps and not await self._checkpoint(lease, step + 1):
                    self._metrics.count("jobs_dropped_total")
                    return
        except DeviceLostError:
            await self._refused(device, lease)
        else:
            await self._hand_in(_done(lease))

    async def _infer(self, batch: Sequence[Lease], device: Watched) -> None:
        if self._bug == bugs.NO_FEED_TIMEOUT:
            await read_feed(self._feeds, self._session, FEED_PATIENCE_S)
        try:
            await device.device.run(gpu_batch_s(len(batch)))
        except DeviceLostError:
            await self._refused(device, *batch)
        else:
            await self._hand_in(*(_done(lease) for lease in batch))

    async def _refused(self, device: Watched, *leases: Lease) -> None:
        """Look before the next lease comes: it would be refused as well."""
        await self._give_back(*leases)
        if self.devices is not None:
            await self.devices.look(device)

    async def _report(self, lease: Lease) -> Outcome:
        """From fresh data; from the last copy when the feed is late. What is old is marked so."""
        patience_s = FEED_PATIENCE_S if self._bug == bugs.NO_FEED_TIMEOUT else FEED_LIMIT_S
        fresh = await self._fresh(patience_s)
        self._copy = fresh or self._copy
        if self._copy is None:
            return Outcome(lease.id, lease.token, ok=False, text="no data: the feed is silent and there is no copy yet")
        old_s = age_s(self._copy)
        stale = (fresh is None or old_s > STALE_AGE_S) and self._bug != bugs.UNMARKED_STALE
        return Outcome(lease.id, lease.token, True, self._copy.text, stale, round(old_s, 3))

    async def _fresh(self, patience_s: float) -> Report | None:
        """None at once while the feed's breaker is open."""
        breaker, now_s = self._feed_breaker, time.monotonic()
        if not breaker.would_pass(now_s) and self._bug != bugs.NO_FEED_TIMEOUT:
            return None
        breaker.passing(now_s, patience_s)
        fresh = await read_feed(self._feeds, self._session, patience_s)
        if fresh is None:
            breaker.failed(time.monotonic())
        else:
            breaker.succeeded()
        return fresh

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


def _batches(leases: Sequence[Lease], slots: int) -> list[list[Lease]]:
    """As many slots as are free, at most a full batch each, filled evenly."""
    count = min(slots, len(leases))
    return [list(leases[index::count]) for index in range(count)]


async def run(wiring: Wiring, region: str, pool: Pool, bug: str) -> None:
    gateways = {peer.region("gateway"): peer for peer in wiring.peers_of("gateway")}
    if region not in gateways:
        raise WiringError(f"{wiring.instance} works for region {region}, but no gateway-{region} is among its peers")
    async with client(limit_s=CALL_LIMIT_S, idle_s=wiring.idle_s) as session:
        workers = Workers(wiring, gateways[region], pool, session, bug)
        works = [workers.work()]
        if workers.devices is not None:
            works.append(repeat(FEATURES_EVERY_S, workers.refresh_features))
            works.append(repeat(PROBE_EVERY_S, workers.devices.probe))
        if wiring.release == "leaky":
            works.append(repeat(LEAK_EVERY_S, Leak(wiring.leak_mb_per_s).grow))
        if wiring.memory_limit_mb:
            works.append(repeat(WATCH_EVERY_S, Limit(wiring.memory_limit_mb).enforce))
        await serve(wiring, workers.routes(), *works)
