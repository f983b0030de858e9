"""Keep-alive connections to one entry: as many as there are requests in flight."""

from __future__ import annotations

import socket

import gevent.socket
from geventhttpclient.connectionpool import ConnectionPool


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

    def after_connect(self, sock: gevent.socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
