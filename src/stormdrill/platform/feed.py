"""The feed: the platform's data dependency. It says something new every second, and when it is from."""

from __future__ import annotations

import time

from aiohttp import web

from stormdrill.platform.messages import Report
from stormdrill.platform.metrics import Metrics
from stormdrill.platform.service import answer, metrics, serve
from stormdrill.platform.wiring import Wiring

NEWS_EVERY_S = 1.0


class Feed:
    def __init__(self) -> None:
        self._metrics = Metrics()

    async def latest(self, request: web.Request) -> web.StreamResponse:
        self._metrics.count("requests_served_total")
        edition = int(time.time() / NEWS_EVERY_S)
        return answer(Report(f"edition {edition}", edition * NEWS_EVERY_S * 1000.0))

    async def health(self, request: web.Request) -> web.StreamResponse:
        return answer(b'{"status":"ok"}')

    async def show_metrics(self, request: web.Request) -> web.StreamResponse:
        return metrics(self._metrics.text())


async def run(wiring: Wiring) -> None:
    feed = Feed()
    routes = {"GET /latest": feed.latest, "GET /healthz": feed.health, "GET /metrics": feed.show_metrics}
    await serve(wiring.port, routes)
