"""Sends requests at a steady rate to where load enters, whether or not earlier ones were answered. Loopback
only, unless an address beyond it is named twice.

What it has done so far stands in its status file, written a few times a second: `sent`, `answered`, `refused` (429
and 503), `failed`, and `skipped` (not sent, because too many were under way).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ipaddress
import json
import os
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

MOST_UNDER_WAY = 256
ANSWER_LIMIT_S = 5.0
STATUS_EVERY_S = 0.05
LONGEST_SLEEP_S = 0.2
"""However seldom it sends: its deadline and its parent's end are looked at in between."""
BODY_LIMIT = 1 << 20

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(slots=True)
class Counts:
    sent: int = 0
    answered: int = 0
    refused: int = 0
    failed: int = 0
    skipped: int = 0


@dataclass(slots=True)
class Client:
    """Keeps connections to one entry and reuses those that are idle."""

    host: str
    port: int
    counts: Counts
    idle: deque[Connection] = field(default_factory=deque)

    async def send(self, request: bytes) -> None:
        self.counts.sent += 1
        connection: Connection | None = None
        try:
            async with asyncio.timeout(ANSWER_LIMIT_S):
                connection = self.idle.pop() if self.idle else await asyncio.open_connection(self.host, self.port)
                connection[1].write(request)
                status, kept = await _answer(connection[0])
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            self.counts.failed += 1
            kept = False
        else:
            self.counts.answered += 1
            self.counts.refused += status in (429, 503)
        if connection is not None and kept:
            self.idle.append(connection)
        elif connection is not None:
            connection[1].close()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """The status of one answer, and whether the connection can be used again. Raises ValueError for what is none."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    status = int(head[0].split()[1])
    fields = {name.strip().lower(): value.strip().lower() for name, _, value in (line.partition(":") for line in head)}
    length = fields.get("content-length", "")
    if not length.isdigit() or int(length) > BODY_LIMIT:
        return status, False
    await reader.readexactly(int(length))
    return status, fields.get("connection") != "close"


def request_of(method: str, path: str, host: str, body: str) -> bytes:
    data = body.encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


async def flood(asked: argparse.Namespace, entries: list[tuple[str, int]], parent: int) -> None:
    counts = Counts()
    clients = [Client(host, port, counts) for host, port in entries]
    under_way: set[asyncio.Task[None]] = set()
    began_s = time.monotonic()
    number, status_s = 0, 0.0
    while (after_s := time.monotonic() - began_s) < asked.deadline_s and os.getppid() == parent:
        while number <= after_s * asked.rate:
            number += 1
            if len(under_way) >= MOST_UNDER_WAY:
                counts.skipped += 1
                continue
            client = clients[number % len(clients)]
            names = {"$id": f"flood-{os.getpid()}-{number}", "$kind": asked.kind, "$tier": str(asked.tier)}
            body = asked.body
            for name, value in names.items():
                body = body.replace(name, value)
            task = asyncio.create_task(client.send(request_of(asked.method, asked.path, client.host, body)))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        if after_s >= status_s:
            status_s = after_s + STATUS_EVERY_S
            _tell(asked.status, counts)
        due_s = number / asked.rate - (time.monotonic() - began_s)
        await asyncio.sleep(min(max(0.001, due_s), LONGEST_SLEEP_S))


def _tell(path: str, counts: Counts) -> None:
    if path:
        part = Path(f"{path}.part")
        part.write_text(json.dumps(asdict(counts)))
        part.replace(path)


def _entries(text: str, beyond: list[str]) -> list[tuple[str, int]]:
    """Raises ValueError for what is neither on loopback nor in `beyond`: no flood leaves this machine by chance."""
    found = []
    for url in text.split(","):
        parts = urlsplit(url)
        told = parts.hostname in beyond
        if not parts.hostname or not (told or ipaddress.ip_address(parts.hostname).is_loopback):
            raise ValueError(f"{url} is not on loopback; a flood goes to http://127.0.0.1:PORT only")
        found.append((parts.hostname, parts.port or 80))
    return found


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="flood", description=__doc__)
    parser.add_argument("--entries", required=True, help="base URLs, separated by commas")
    parser.add_argument("--beyond", action="append", default=[], help="an address that is not on loopback, and meant")
    parser.add_argument("--rate", type=float, required=True, help="requests a second")
    parser.add_argument("--method", default="POST")
    parser.add_argument("--path", default="/")
    parser.add_argument("--body", default="")
    parser.add_argument("--tier", type=int, default=3)
    parser.add_argument("--kind", default="batch")
    parser.add_argument("--deadline-s", type=float, required=True, help="it ends by itself after this long")
    parser.add_argument("--status", default="", help="the file in which it tells what it has done")
    parser.add_argument("--tag", default="", help="means nothing: by this it is found among other processes")
    asked = parser.parse_args(words)
    try:
        entries = _entries(asked.entries, asked.beyond)
    except ValueError as error:
        sys.stderr.write(f"flood: {error}\n")
        return 2
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(flood(asked, entries, os.getppid()))
    return 0
