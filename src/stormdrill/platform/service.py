"""What every role needs to be a well-behaved HTTP service: listen where told, answer JSON, end within a second."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from typing import TypeVar

import aiohttp
from aiohttp import web
from aiohttp.typedefs import Middleware
from msgspec import DecodeError, Struct, ValidationError
from msgspec.json import decode, encode

from stormdrill.platform.wiring import Wiring

SHUTDOWN_S = 0.3
BODY_LIMIT_BYTES = 64 * 1024
JSON = "application/json"
PROMETHEUS = "text/plain; version=0.0.4"

T = TypeVar("T")
log = logging.getLogger("platform")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def answer(body: Struct | bytes, status: int = 200, retry_after_s: int | None = None) -> web.Response:
    headers = {"Retry-After": str(retry_after_s)} if retry_after_s is not None else None
    payload = body if isinstance(body, bytes) else encode(body)
    return web.Response(body=payload, status=status, headers=headers, content_type=JSON)


def metrics(text: str) -> web.Response:
    return web.Response(body=text.encode(), headers={"Content-Type": PROMETHEUS})


async def read(request: web.Request, wanted: type[T]) -> T:
    """The request's body as that type. Raises HTTPBadRequest that names the field."""
    try:
        return decode(await request.read(), type=wanted)
    except (ValidationError, DecodeError) as error:
        payload = encode({"error": f"{request.path}: {error}"}).decode()
        raise web.HTTPBadRequest(text=payload, content_type=JSON) from None


def client(limit_s: float, idle_s: float) -> aiohttp.ClientSession:
    """For calls to other services: never through a proxy of the environment, every call with a limit. A connection that
    was idle for `idle_s` isn't used again."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=idle_s),
        timeout=aiohttp.ClientTimeout(total=limit_s),
        trust_env=False,
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
    )


CALL_ERRORS = (aiohttp.ClientError, TimeoutError, OSError, DecodeError, ValidationError)
"""What a call to another service may end with instead of an answer."""


async def repeat(every_s: float, step: Callable[[], Awaitable[None]]) -> None:
    """Run `step` on a steady beat; beats missed during a pause are skipped, not caught up."""
    due_s = time.monotonic()
    while True:
        await step()
        due_s = max(due_s + every_s, time.monotonic())
        await asyncio.sleep(due_s - time.monotonic())


@contextlib.asynccontextmanager
async def background(*works: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """These run until the block is left; one that breaks ends the process, loudly."""
    tasks = [asyncio.create_task(work) for work in works]
    for task in tasks:
        task.add_done_callback(_end_loudly)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _end_loudly(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("a background task broke; ending", exc_info=task.exception())
        signal.raise_signal(signal.SIGTERM)


def _closing_old(age_s: float) -> Middleware:
    """Ends a connection with its first answer after `age_s`: callers that hold one for ever would not hear of a Service
    that leads somewhere else by now."""
    since: weakref.WeakKeyDictionary[asyncio.BaseTransport, float] = weakref.WeakKeyDictionary()

    @web.middleware
    async def ending(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        now_s = time.monotonic()
        if request.transport is not None and now_s - since.setdefault(request.transport, now_s) > age_s:
            response.force_close()
        return response

    return ending


async def serve(wiring: Wiring, routes: Mapping[str, Handler], *works: Coroutine[None, None, None]) -> None:
    """Answer `"METHOD /path"` routes until SIGTERM or SIGINT."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    aging = (_closing_old(wiring.connection_age_s),) if wiring.connection_age_s else ()
    app = web.Application(client_max_size=BODY_LIMIT_BYTES, middlewares=aging)
    for route, handler in routes.items():
        method, path = route.split(" ", 1)
        app.router.add_route(method, path, handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S, keepalive_timeout=60.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, wiring.host, wiring.port, backlog=512, reuse_address=True).start()
        log.info("listening on %s:%d", wiring.host, wiring.port)
        async with background(*works):
            await ended.wait()
    finally:
        await runner.cleanup()
