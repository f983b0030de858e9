"""The edge: where users' requests enter. It balances over regions, gives up in time, and moves work when it must."""

from __future__ import annotations

import asyncio
import random
import time
import zlib
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import ClientSession, ClientTimeout, web
from msgspec import Struct
from msgspec.json import decode, encode

from stormdrill.platform import bugs
from stormdrill.platform.admission import retry_after_s
from stormdrill.platform.alerts import alerts
from stormdrill.platform.breaker import Breaker, RetryBudget, StuckBreaker
from stormdrill.platform.control import Control
from stormdrill.platform.jobs import BadJobError, JobRequest, Placement, parse_job, place
from stormdrill.platform.memory import rss_bytes
from stormdrill.platform.messages import Attempt, Health, Refusal
from stormdrill.platform.metrics import Metrics
from stormdrill.platform.service import CALL_ERRORS, JSON, Handler, answer, client, log, metrics, repeat, serve
from stormdrill.platform.sight import Sight
from stormdrill.platform.wiring import Peer, Wiring

HEALTH_EVERY_S = 0.5
HEALTH_LIMIT_S = 0.4
FIRST_TRY_SHARE = 0.5
"""Part of the deadline that the first attempt may use when there is a second region to try."""
ACCEPT_LIMIT_S = 0.5
"""An acceptance (202) is quick or not at all."""
SHORTEST_TRY_S = 0.05
STORM_TRIES = 5
HIDDEN_S = 0.15
"""With the bug hidden-queue new requests are looked at so often, and counted only then."""
BLOAT_S = 0.2
"""With the bug buffer-bloat a report is waited for so long after its deadline."""
IN_STEP_S = "2"
SLOW_REJECTION_S = 0.5
_HEADERS = {"Content-Type": JSON}
_MOVABLE = (500, 502, 503, 504)
"""Answers after which the other region may be tried."""


class Tried(Struct, frozen=True):
    """How one attempt ended; status 0: no answer."""

    status: int
    body: bytes = b""
    retry_after: str | None = None
    region: str = ""
    """Whose answer it is."""


class Edge:
    def __init__(self, wiring: Wiring, session: ClientSession, bug: str) -> None:
        self._name = wiring.instance
        self._session = session
        self._bug = bug
        self._gateways = {peer.region("gateway"): peer for peer in wiring.peers_of("gateway")}
        self._regions = tuple(sorted(self._gateways))
        breaker = StuckBreaker if bug == bugs.STUCK_BREAKER else Breaker
        self._sights = {region: Sight(region, breaker=breaker()) for region in self._regions}
        self._control = Control()
        self._budget = RetryBudget()
        self._metrics = Metrics()
        self._random = random.Random(zlib.crc32(wiring.instance.encode()))  # noqa: S311
        self._was_ready = False
        self._inside = 0
        """Requests that were taken and aren't answered."""

    def routes(self) -> Mapping[str, Handler]:
        return {
            "POST /jobs": self.submit,
            "GET /jobs/{id}": self.look_up,
            "GET /healthz": self.health,
            "GET /metrics": self.show_metrics,
            "GET /alerts": self.show_alerts,
        }

    # users

    async def submit(self, request: web.Request) -> web.StreamResponse:
        began_s = time.monotonic()
        if self._bug == bugs.HIDDEN_QUEUE:
            await asyncio.sleep(HIDDEN_S - began_s % HIDDEN_S)
        self._inside += 1
        try:
            response = await self._submit(request, began_s)
        finally:
            self._inside -= 1
        if self._bug == bugs.SLOW_REJECTION and response.status == 429:
            await asyncio.sleep(SLOW_REJECTION_S)
        return response

    async def _submit(self, request: web.Request, began_s: float) -> web.StreamResponse:
        try:
            job = parse_job(await request.read())
        except BadJobError as error:
            return answer(Refusal(str(error)), 400)
        placement = place(job.id, job.residency, self._regions)
        if placement is None:
            where = ", ".join(self._regions)
            return answer(Refusal(f"`residency` is {job.residency!r}; write one of {where}, or null"), 400)
        if self._bug == bugs.RESIDENCY_IGNORED:
            placement = place(job.id, None, self._regions) or placement
        self._budget.earn()
        self._metrics.count("hop_received_total")
        if self._bug == bugs.RETRY_STORM:
            tried = await self._storm(job, placement, began_s)
        else:
            tried = await self._carry(job, placement, began_s)
        response = self._response(tried)
        self._metrics.count("requests_total", code=str(response.status), tier=str(job.tier))
        self._metrics.count("requests_served_total")
        return response

    async def _carry(self, job: JobRequest, placement: Placement, began_s: float) -> Tried:
        """Home first, the other region when home is lost or doesn't answer and the retry budget has something left."""
        first, second = self._order(placement)
        if first is None:
            return Tried(503, encode(Refusal("no region can take this job now")), self._later())
        tried = await self._try(first, job, self._limit_s(job, began_s, second is not None), 1)
        if tried.status == 409:
            owner = decode(tried.body, type=Refusal).owner
            second = owner if owner in self._gateways and owner != first else None
        elif tried.status == 429 and self._bug == bugs.SHED_RETRIED and second is not None and self._usable(second):
            return await self._try(second, job, self._limit_s(job, began_s, False), 2)
        elif tried.status not in (0, *_MOVABLE) or second is None or not self._usable(second):
            return tried
        if second is None or self._left_s(job, began_s) < SHORTEST_TRY_S or not self._budget.spend():
            return tried
        self._metrics.count("retries_total")
        return await self._try(second, job, self._limit_s(job, began_s, False), 2)

    async def _storm(self, job: JobRequest, placement: Placement, began_s: float) -> Tried:
        """The bug retry-storm: tries instead of looking. No budget, no breaker, no patience, and no eye for what is
        drained; refusals are tried again at once as well.
        """
        tried = Tried(503, encode(Refusal("no region can take this job now")), self._later())
        ways = [region for region in (placement.home, placement.fallback) if region is not None]
        for number in range(STORM_TRIES):
            if self._left_s(job, began_s) < SHORTEST_TRY_S:
                break
            limit_s = self._limit_s(job, began_s, len(ways) > 1)
            tried = await self._try(ways[number % len(ways)], job, limit_s, number + 1)
            if tried.status not in (0, 429, 409, *_MOVABLE):
                break
            self._metrics.count("retries_total")
        return tried

    def _order(self, placement: Placement) -> tuple[str | None, str | None]:
        home, fallback = placement.home, placement.fallback
        if self._bug == bugs.NO_FAILOVER:
            return home, None
        if self._usable(home):
            return home, fallback if fallback is not None and self._usable(fallback) else None
        if fallback is not None and self._usable(fallback):
            return fallback, None
        return None, None

    def _usable(self, region: str) -> bool:
        return self._sights[region].usable(time.monotonic(), self._control)

    def _left_s(self, job: JobRequest, began_s: float) -> float:
        return job.deadline_ms / 1000.0 - (time.monotonic() - began_s)

    def _limit_s(self, job: JobRequest, began_s: float, another: bool) -> float:
        left_s = self._left_s(job, began_s)
        limit_s = left_s if job.wait else min(left_s, ACCEPT_LIMIT_S)
        if self._bug == bugs.BUFFER_BLOAT and job.kind == "report":
            return limit_s + BLOAT_S
        return limit_s * FIRST_TRY_SHARE if another and job.wait else limit_s

    async def _try(self, region: str, job: JobRequest, limit_s: float, number: int) -> Tried:
        sight = self._sights[region]
        sight.breaker.passing(time.monotonic(), limit_s)
        self._metrics.count("attempts_total", region=region)
        self._metrics.count("hop_sent_total")
        attempt = Attempt(job, time.time() * 1000.0 + limit_s * 1000.0, self._name, number)
        try:
            async with self._session.post(
                f"{self._gateways[region].url}/attempts",
                data=encode(attempt),
                headers=_HEADERS,
                timeout=ClientTimeout(total=limit_s),
            ) as response:
                tried = Tried(response.status, await response.read(), response.headers.get("Retry-After"), region)
        except CALL_ERRORS as error:
            self._failed(region)
            timed_out = isinstance(error, TimeoutError)
            self._metrics.count("attempts_failed_total", region=region, error=type(error).__name__)
            refusal = Refusal("deadline passed" if timed_out else "the region can't be reached", region)
            return Tried(0, encode(refusal), None if timed_out else self._later())
        if tried.status in (500, 502, 503):
            self._failed(region)
        else:
            sight.breaker.succeeded()
        return tried

    def _failed(self, region: str) -> None:
        breaker = self._sights[region].breaker
        was_open = breaker.is_open
        breaker.failed(time.monotonic())
        if breaker.is_open and not was_open:
            log.warning("breaker for %s opens", region)

    def _response(self, tried: Tried) -> web.Response:
        status = tried.status
        if status == 0:
            status = 503 if tried.retry_after else 504
        elif status in (409, 421, 500, 502):
            status = 503
        headers = {"X-Region": tried.region} if tried.region else {}
        if status in (429, 503) and self._bug != bugs.NO_RETRY_AFTER:
            in_step = self._bug == bugs.RETRY_IN_STEP
            headers["Retry-After"] = IN_STEP_S if in_step else tried.retry_after or self._later()
        return web.Response(body=tried.body, status=status, headers=headers, content_type=JSON)

    def _later(self) -> str:
        return str(retry_after_s(1.0, self._random.random()))

    async def look_up(self, request: web.Request) -> web.StreamResponse:
        """The job as its owner knows it; 503 when a region that may know it can't be asked."""
        job_id = request.match_info["id"]
        silent: list[str] = []
        for region in self._regions:
            try:
                async with self._session.get(f"{self._gateways[region].url}/jobs/{job_id}") as response:
                    if response.status == 200:
                        return answer(await response.read())
            except CALL_ERRORS:
                silent.append(region)
        if silent:
            refusal = Refusal(f"{' and '.join(silent)} can't be asked now")
            return web.Response(
                body=encode(refusal), status=503, headers={"Retry-After": self._later()}, content_type=JSON
            )
        return answer(Refusal(f"no job {job_id}"), 404)

    # sight

    def watchers(self) -> list[Callable[[], Awaitable[None]]]:
        return [self._watcher(region, peer) for region, peer in self._gateways.items()]

    def _watcher(self, region: str, peer: Peer) -> Callable[[], Awaitable[None]]:
        sight = self._sights[region]

        async def check() -> None:
            was = sight.healthy
            try:
                async with self._session.get(
                    f"{peer.url}/healthz", timeout=ClientTimeout(total=HEALTH_LIMIT_S)
                ) as response:
                    health = decode(await response.read(), type=Health)
            except CALL_ERRORS:
                sight.missed(time.monotonic())
            else:
                sight.answered(health, time.monotonic())
                self._control.merge(health.control)
            if sight.healthy != was:
                log.warning("region %s is %s", region, "healthy" if sight.healthy else "lost")

        return check

    async def health(self, request: web.Request) -> web.StreamResponse:
        """Ready once a region was; from then on it answers for itself alone."""
        self._was_ready = self._was_ready or all(sight.ever_healthy for sight in self._sights.values())
        if not self._was_ready:
            return answer(Refusal("not every region has answered yet"), 503)
        return answer(b'{"status":"ok"}')

    async def show_metrics(self, request: web.Request) -> web.StreamResponse:
        for region, sight in self._sights.items():
            self._metrics.gauge("region_healthy", sight.healthy, region=region)
            self._show_breaker(sight.breaker.is_open, sight.breaker.trials, region, f"gateway-{region}")
            feed = sight.health.feed_breaker if sight.health is not None else None
            if feed is not None:
                self._show_breaker(feed.open, feed.probes, region, "feed")
        self._metrics.gauge("retry_budget_tokens", self._budget.tokens)
        self._metrics.gauge("requests_in_flight", self._inside)
        self._metrics.gauge("process_resident_memory_bytes", rss_bytes())
        return metrics(self._metrics.text())

    def _show_breaker(self, is_open: bool, trials: int, region: str, to: str) -> None:
        self._metrics.gauge("breaker_open", is_open, region=region, to=to)
        self._metrics.gauge("breaker_probes_total", trials, region=region, to=to)

    async def show_alerts(self, request: web.Request) -> web.StreamResponse:
        return metrics(alerts(tuple(self._sights.values()), time.monotonic()))


async def run(wiring: Wiring, bug: str) -> None:
    async with client(limit_s=1.0, idle_s=wiring.idle_s) as session:
        edge = Edge(wiring, session, bug)
        works = [repeat(HEALTH_EVERY_S, check) for check in edge.watchers()]
        await serve(wiring, edge.routes(), *works)
