"""A caller and a callee that cost little, to be put on either side of the proxy: `python -m bench.proxy_ends ROLE …`.

Not a subject: `bench.proxy` starts it. HTTP/1.1 with keep-alive, one request in flight a connection; or one stream
of bytes.
"""

from __future__ import annotations

import select
import socket
import sys
import time

REQUEST = b"GET /x HTTP/1.1\r\nHost: callee\r\nAccept: application/json\r\nX-Request-Id: 0123456789abcdef\r\n\r\n"
BODY = b'{"id": "0123456789abcdef", "status": "done", "took_ms": 12}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
STREAM = b"STREAM\n"
WRITE_BYTES = 64 * 1024


def serve() -> None:
    """Answer requests; a connection that begins with STREAM is read to its end and told how much it was."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        listener.setblocking(False)
        poll = select.epoll()
        poll.register(listener, select.EPOLLIN)
        ends: dict[int, socket.socket] = {}
        while True:
            for number, _ in poll.poll():
                if number == listener.fileno():
                    end, _ = listener.accept()
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    ends[end.fileno()] = end
                    poll.register(end, select.EPOLLIN)
                    continue
                end = ends[number]
                try:
                    data = end.recv(65536)
                except OSError:
                    data = b""
                if data[: len(STREAM)] == STREAM:
                    _swallow(end, len(data))
                    data = b""
                if data:
                    end.send(ANSWER * (data.count(b"\r\n\r\n") or 1))
                else:
                    poll.unregister(number)
                    ends.pop(number).close()


def _swallow(end: socket.socket, count: int) -> None:
    room = bytearray(256 * 1024)
    while got := end.recv_into(room):
        count += got
    end.sendall(b"%d\n" % count)


def ask(port: int, connections: int, for_s: float) -> float:
    """Requests a second over connections that stay open."""
    poll = select.epoll()
    ends = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
    for end in ends:
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poll.register(end, select.EPOLLIN)
        end.send(REQUEST)
    known = {end.fileno(): end for end in ends}
    done = 0
    began_s = time.monotonic()
    while time.monotonic() - began_s < for_s:
        for number, _ in poll.poll(1.0):
            end = known[number]
            if end.recv(4096) != ANSWER:
                raise RuntimeError("an answer came in parts")
            done += 1
            end.send(REQUEST)
    took_s = time.monotonic() - began_s
    for end in ends:
        end.close()
    return done / took_s


def stream(port: int, for_s: float, pace_per_s: float) -> float:
    """Bytes a second of one connection, 64 KiB a write, until the callee has said that all are there. Pace 0: as fast
    as it goes."""
    with socket.create_connection(("127.0.0.1", port)) as end:
        end.sendall(STREAM)
        data = bytes(WRITE_BYTES)
        sent = 0
        began_s = time.monotonic()
        while time.monotonic() - began_s < for_s:
            end.sendall(data)
            sent += WRITE_BYTES
            while pace_per_s and time.monotonic() - began_s < sent / pace_per_s:
                time.sleep(0.0005)
        end.shutdown(socket.SHUT_WR)
        count = int(end.makefile("rb").readline())
        return count / (time.monotonic() - began_s)


if __name__ == "__main__":
    role, *rest = sys.argv[1:]
    if role == "serve":
        serve()
    elif role == "ask":
        print(ask(int(rest[0]), int(rest[1]), float(rest[2])))
    else:
        print(stream(int(rest[0]), float(rest[1]), float(rest[2])))
