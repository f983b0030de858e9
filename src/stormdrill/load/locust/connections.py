"""Keep-alive connections to one entry: as many as there are requests in flight."""

from __future__ import annotations

import contextlib
import socket
import struct
import time

import gevent.socket
from geventhttpclient.connectionpool import ConnectionPool

_TIMESTAMP = struct.Struct("qq")
_SO_TIMESTAMPNS = 35
"""Linux; Python's socket module doesn't name it."""
_LONGEST_WAY_S = 10.0


class TimedSocket(gevent.socket.socket):  # type: ignore[misc]  # untyped library
    """Knows when the kernel got what was read last.

    After a stall a thousand answers come at one moment, and the last of them is read some 50 ms later. That is the
    generator's own doing, and no latency of the system under test.
    """

    arrived_s = 0.0
    """On the monotonic clock; 0 where the kernel doesn't tell."""

    def recv(self, size: int, flags: int = 0) -> bytes:
        data, notes, _, _ = self.recvmsg(size, 64, flags)
        self.arrived_s = 0.0
        for _, kind, note in notes:
            if kind == _SO_TIMESTAMPNS and len(note) == _TIMESTAMP.size:
                seconds, nanoseconds = _TIMESTAMP.unpack(note)
                age_s = time.time() - (seconds + nanoseconds / 1e9)
                if 0.0 <= age_s < _LONGEST_WAY_S:
                    self.arrived_s = time.monotonic() - age_s
        return data  # type: ignore[no-any-return]


class Connections(ConnectionPool):  # type: ignore[misc]  # untyped library
    """The library asks `select` whether an idle connection lives, which fails beyond 1,024 open files, resolves numeric
    addresses in a thread, and waits on a semaphore and a queue where nobody ever has to wait: the driver bounds what is
    in flight. All of these cost more than the request."""

    def __init__(self, *place: object, **limits: object) -> None:
        super().__init__(*place, **limits)
        self._free: list[gevent.socket.socket] = []

    def get_socket(self) -> gevent.socket.socket:
        while self._free:
            # The one used last: it is the least likely to have been closed meanwhile.
            sock = self._free.pop()
            if self._is_socket_alive(sock):
                return sock
            sock.close()
        return self._create_socket()

    def return_socket(self, sock: gevent.socket.socket) -> None:
        self._free.append(sock)

    def release_socket(self, sock: gevent.socket.socket) -> None:
        sock.close()

    def close(self) -> None:
        while self._free:
            self._free.pop().close()

    def _is_socket_alive(self, sock: gevent.socket.socket | None) -> bool:
        if sock is None or sock.fileno() < 0:
            return False
        try:
            # An idle connection has nothing to read; end of file or stray bytes mean that it can't be used.
            sock._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def _resolve(self) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        try:
            socket.inet_pton(socket.AF_INET, self._connection_host)
        except OSError:
            return super()._resolve()  # type: ignore[no-any-return]
        address = (self._connection_host, self._connection_port)
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address)]

    def _create_tcp_socket(self, family: int, socktype: int, protocol: int) -> TimedSocket:
        return TimedSocket(family, socktype, protocol)

    def after_connect(self, sock: gevent.socket.socket) -> None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
