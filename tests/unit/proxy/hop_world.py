"""A hop of the proxy between a caller and a callee of the test, over real sockets in one event loop."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from stormdrill.proxy.board import Board
from stormdrill.proxy.config import Route
from stormdrill.proxy.listener import Listener
from stormdrill.proxy.relay import Hop

LIMIT_S = 20.0
NAME = "a>b"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def in_time(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), LIMIT_S))


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


async def until(seen: Callable[[], bool]) -> None:
    """Wait until it is so; the story's limit is the limit."""
    while not seen():
        await asyncio.sleep(0.005)


async def send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            await send(writer, data)
    except ConnectionError:
        pass
    writer.close()


async def said(reader: asyncio.StreamReader) -> tuple[int, Any]:
    """Status and JSON of one answer of the control."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = int(head.lower().partition("content-length: ")[2].split("\r\n")[0])
    return int(head.split()[1]), json.loads(await reader.readexactly(length))


@dataclass
class World:
    hop: Hop
    board: Board

    @property
    def port(self) -> int:
        return self.hop.route.listen

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    def put(self, tag: str, kind: str, **fields: object) -> dict[str, object]:
        return self.board.put(tag, json.dumps({"routes": [NAME], "kind": kind, **fields}).encode())


@asynccontextmanager
async def world(serve: Serve = echo, to: int = 0) -> AsyncIterator[World]:
    """A hop to a callee that behaves as told, or to a port where nobody is."""
    callee = await asyncio.start_server(serve, "127.0.0.1", 0)
    hop = Hop(Route(NAME, free_port(), "127.0.0.1", to or callee.sockets[0].getsockname()[1]))
    hop.listener = Listener("127.0.0.1", hop.route.listen, hop.accept)
    try:
        yield World(hop, Board([hop]))
    finally:
        hop.listener.close()
        hop.cut()
        callee.close()
