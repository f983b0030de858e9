"""A server that does nothing, to measure the generator with: `python -m stormdrill.load.null_server`.

Answers any request at once with 200, or, with `--stall-every 5 --stall-for 1`, holds all answers for the last second of
every five: then theory says p90 500 ms and p99 950 ms, which a generator with coordinated omission doesn't see.
Standard library only, a process of its own; ends when its standard input does.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

_BODY = b'{"ok": true}'
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
_BACKLOG = 4096


class Stalls:
    """When answers are held back: for `for_s` at the end of every `every_s` since the start."""

    def __init__(self, every_s: float, for_s: float) -> None:
        self._every_s, self._for_s = every_s, for_s
        self._since_s = asyncio.get_running_loop().time()

    def until(self, now_s: float) -> float:
        """The moment at which a request of `now_s` may be answered."""
        if self._every_s <= 0 or self._for_s <= 0:
            return now_s
        into_s = (now_s - self._since_s) % self._every_s
        return now_s if into_s < self._every_s - self._for_s else now_s + self._every_s - into_s


class NullProtocol(asyncio.Protocol):
    """Enough HTTP/1.1 for keep-alive clients that announce the length of their bodies."""

    def __init__(self, stalls: Stalls) -> None:
        self._stalls = stalls
        self._received = b""
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            size = end + 4 + _body_length(self._received[:end])
            if len(self._received) < size:
                return
            self._received = self._received[size:]
            self._answer()

    def _answer(self) -> None:
        now_s = self._loop.time()
        at_s = self._stalls.until(now_s)
        if at_s <= now_s:
            self._transport.write(_ANSWER)
        else:
            self._loop.call_at(at_s, self._transport.write, _ANSWER)


def _body_length(head: bytes) -> int:
    at = head.lower().find(b"\r\ncontent-length:")
    if at < 0:
        return 0
    return int(head[at + 17 :].split(b"\r\n", 1)[0])


async def serve(host: str, port: int, every_s: float, for_s: float) -> None:
    """Print `listening HOST:PORT`, and serve until standard input ends."""
    loop = asyncio.get_running_loop()
    stalls = Stalls(every_s, for_s)
    server = await loop.create_server(lambda: NullProtocol(stalls), host, port, backlog=_BACKLOG)
    bound = server.sockets[0].getsockname()
    sys.stdout.write(f"listening {bound[0]}:{bound[1]}\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.buffer.read)
    server.close()


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m stormdrill.load.null_server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--stall-every", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--stall-for", type=float, default=0.0, metavar="SECONDS")
    given = parser.parse_args(arguments)
    asyncio.run(serve(given.host, given.port, given.stall_every, given.stall_for))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
