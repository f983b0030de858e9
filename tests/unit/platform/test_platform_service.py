"""How a process of the platform serves, whatever its role."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

import aiohttp
from aiohttp import web

from stormdrill.platform.service import serve
from stormdrill.platform.wiring import LOOPBACK, Wiring

LIMIT_S = 10.0


async def who(request: web.Request) -> web.Response:
    assert request.transport is not None
    return web.Response(text=str(request.transport.get_extra_info("peername")[1]))


async def asked_until_another_connection(age_s: float, requests: int) -> set[str]:
    """The callers' ports that the server sees of a client which keeps one connection as long as it may."""
    with socket.create_server((LOOPBACK, 0)) as free:
        port = free.getsockname()[1]
    served = asyncio.create_task(
        serve(Wiring("one", LOOPBACK, port, Path(), {}, connection_age_s=age_s), {"GET /who": who})
    )
    seen: set[str] = set()
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
            until_s = time.monotonic() + LIMIT_S
            while len(seen) < 2 and requests and time.monotonic() < until_s:
                try:
                    async with session.get(f"http://{LOOPBACK}:{port}/who") as answer:
                        seen.add(await answer.text())
                        requests -= 1
                except aiohttp.ClientConnectorError:  # not listening yet
                    await asyncio.sleep(0.01)
    finally:
        served.cancel()
    return seen


def test_a_connection_that_is_old_is_closed_with_its_answer_so_that_callers_look_again() -> None:
    assert len(asyncio.run(asked_until_another_connection(age_s=0.05, requests=100_000))) == 2


def test_without_an_age_a_connection_is_kept() -> None:
    assert len(asyncio.run(asked_until_another_connection(age_s=0.0, requests=200))) == 1
