"""A server that does nothing, to measure the generator with: `python -m stormdrill.load.null_server`.

Answers any request at once with 200, or, with `--stall-every 5 --stall-for 1`, holds all answers for the last second of
every five: then theory says p90 500 ms and p99 950 ms, which a generator with coordinated omission doesn't see. With
`--mute` it accepts connections and never answers. Standard library only, a process of its own; ends when its standard
input does. One thread on epoll: it has to cost less than the generator, or it would be the server that is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import socket
import sys
import time
from collections.abc import Sequence

_BODY = b'{"ok": true}'
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
_BACKLOG = 4096
_END = b"\r\n\r\n"
_STDIN = 0


class Stalls:
    """When answers are held back: for `for_s` at the end of every `every_s` since the start."""

    def __init__(self, every_s: float, for_s: float, since_s: float) -> None:
        self._every_s, self._for_s, self._since_s = every_s, for_s, since_s
        self.any = every_s > 0 and for_s > 0

    def until(self, now_s: float) -> float:
        """The moment at which a request of `now_s` may be answered."""
        if not self.any:
            return now_s
        into_s = (now_s - self._since_s) % self._every_s
        return now_s if into_s < self._every_s - self._for_s else now_s + self._every_s - into_s


class NullServer:
    """Enough HTTP/1.1 for keep-alive clients that announce the length of their bodies."""

    def __init__(self, listener: socket.socket, stalls: Stalls, *, mute: bool) -> None:
        self._listener = listener
        self._stalls = stalls
        self._mute = mute
        self._clients: dict[int, socket.socket] = {}
        self._begun: dict[int, bytes] = {}
        """Requests of which a part has come."""
        self._held: list[tuple[float, socket.socket]] = []
        """By the moment of their answers, which rises."""
        self._poll = select.epoll()
        self._poll.register(listener, select.EPOLLIN)

    def serve(self) -> None:
        """Until standard input ends."""
        with contextlib.suppress(PermissionError):  # a file or /dev/null: ended by a signal then
            self._poll.register(_STDIN, select.EPOLLIN)
        accepting, poll, clients = self._listener.fileno(), self._poll, self._clients
        while True:
            for fd, _ in poll.poll(self._nap_s()):
                client = clients.get(fd)
                if client is not None:
                    self._hear(fd, client)
                elif fd == accepting:
                    self._accept()
                elif fd == _STDIN and not os.read(_STDIN, 4096):
                    return
            if self._held:
                self._release()

    def _nap_s(self) -> float:
        return max(self._held[0][0] - time.monotonic(), 0.0) if self._held else -1

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                client, _ = self._listener.accept()
                client.setblocking(False)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._clients[client.fileno()] = client
                self._poll.register(client, select.EPOLLIN)

    def _hear(self, fd: int, client: socket.socket) -> None:
        try:
            data = client.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(fd, client)
            return
        if fd in self._begun:
            data = self._begun.pop(fd) + data
        while data:
            end = data.find(_END)
            size = end + len(_END) + _body_length(data, end)
            if end < 0 or len(data) < size:
                self._begun[fd] = data
                return
            data = data[size:]
            self._answer(client)

    def _answer(self, client: socket.socket) -> None:
        if self._mute:
            return
        if self._stalls.any:
            now_s = time.monotonic()
            at_s = self._stalls.until(now_s)
            if at_s > now_s:
                self._held.append((at_s, client))
                return
        _send(client)

    def _release(self) -> None:
        now_s = time.monotonic()
        due = [client for at_s, client in self._held if at_s <= now_s]
        self._held = self._held[len(due) :]
        for client in due:
            _send(client)

    def _close(self, fd: int, client: socket.socket) -> None:
        self._poll.unregister(fd)
        self._clients.pop(fd)
        self._begun.pop(fd, None)
        client.close()


def _send(client: socket.socket) -> None:
    # Whoever went away meanwhile is noticed by its end of file.
    with contextlib.suppress(OSError):
        client.send(_ANSWER)


def _body_length(data: bytes, end: int) -> int:
    if data.startswith(b"GET "):
        return 0
    head = data[: max(end, 0)].lower()
    at = head.find(b"\r\ncontent-length:")
    return int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0


def main(arguments: Sequence[str]) -> int:
    """Print `listening HOST:PORT`, and serve."""
    parser = argparse.ArgumentParser(prog="python -m stormdrill.load.null_server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--stall-every", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--stall-for", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--mute", action="store_true", help="accept, and never answer")
    given = parser.parse_args(arguments)
    with socket.create_server((given.host, given.port), backlog=_BACKLOG) as listener:
        listener.setblocking(False)
        stalls = Stalls(given.stall_every, given.stall_for, time.monotonic())
        server = NullServer(listener, stalls, mute=given.mute)
        host, port = listener.getsockname()[:2]
        sys.stdout.write(f"listening {host}:{port}\n")
        sys.stdout.flush()
        server.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
