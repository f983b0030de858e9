"""The feed: the platform's data dependency. It says something new every second, and when it is from.

`PUT /lag` makes its data old without making it slow: late data is another failure than a late answer.
"""

from __future__ import annotations

import time

from aiohttp import web
from msgspec import Struct

from stormdrill.platform.messages import Refusal, Report
from stormdrill.platform.metrics import Metrics
from stormdrill.platform.service import answer, log, metrics, read, serve
from stormdrill.platform.wiring import Wiring

NEWS_EVERY_S = 1.0
LONGEST_LAG_S = 86_400


class LagAsked(Struct, frozen=True):
    seconds: float


class Lag(Struct, frozen=True):
    seconds: float = 0.0
    """How old the data are beyond what is usual."""
    before: float = 0.0
    """What it was before the last change; asked for twice, it stays what it was."""


class Feed:
    def __init__(self) -> None:
        self._lag = Lag()
        self._metrics = Metrics()

    async def latest(self, request: web.Request) -> web.StreamResponse:
        self._metrics.count("requests_served_total")
        edition = int((time.time() - self._lag.seconds) / NEWS_EVERY_S)
        return answer(Report(f"edition {edition}", edition * NEWS_EVERY_S * 1000.0))

    async def lag(self, request: web.Request) -> web.StreamResponse:
        return answer(self._lag)

    async def set_lag(self, request: web.Request) -> web.StreamResponse:
        seconds = (await read(request, LagAsked)).seconds
        if not 0 <= seconds <= LONGEST_LAG_S:
            return answer(Refusal(f"`seconds` is {seconds:g}; write 0 to {LONGEST_LAG_S}"), 400)
        if seconds != self._lag.seconds:
            self._lag = Lag(seconds, self._lag.seconds)
            log.warning("data are from %g s ago", seconds)
        return answer(self._lag)

    async def health(self, request: web.Request) -> web.StreamResponse:
        return answer(b'{"status":"ok"}')

    async def show_metrics(self, request: web.Request) -> web.StreamResponse:
        self._metrics.gauge("feed_lag_seconds", self._lag.seconds)
        return metrics(self._metrics.text())


async def run(wiring: Wiring) -> None:
    feed = Feed()
    routes = {
        "GET /latest": feed.latest,
        "GET /lag": feed.lag,
        "PUT /lag": feed.set_lag,
        "GET /healthz": feed.health,
        "GET /metrics": feed.show_metrics,
    }
    await serve(wiring, routes)
