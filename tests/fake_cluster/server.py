"""HTTP/1.1 over real sockets: a thread a connection, kept alive; streams in chunks; a connection can be handed over."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import parse_qs

from fake_cluster.calls import Call, Reply, Request
from fake_cluster.problems import Problem
from fake_cluster.store import dump

LARGEST_HEAD = 65_536
LARGEST_BODY = 3_145_728
CRLF = b"\r\n"


class Hangup(Exception):
    """The connection ends without a word."""


Answer = Callable[[Request, dict[str, str], dict[str, list[str]]], "Reply | Call"]
"""A Reply, or a Call whose connection is handed over."""


class Connection:
    """Reads requests from one socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._read = b""

    def head(self) -> tuple[str, str, dict[str, str]] | None:
        """Method, target, headers; None at the end of the connection."""
        while b"\r\n\r\n" not in self._read:
            if len(self._read) > LARGEST_HEAD or not self._more():
                return None
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, _, rest = first.partition(" ")
        headers: dict[str, str] = {}
        for one in lines:
            name, _, value = one.partition(":")
            name = name.strip().lower()
            headers[name] = f"{headers[name]}, {value.strip()}" if name in headers else value.strip()
        return method, rest.rpartition(" ")[0], headers

    def body(self, headers: dict[str, str]) -> bytes:
        if headers.get("expect", "").lower() == "100-continue":
            self.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" in headers.get("transfer-encoding", "").lower():
            return self._chunks()
        return self._exactly(int(headers.get("content-length") or 0))

    def beyond(self) -> bytes:
        """What was read already and belongs to whoever takes the connection over."""
        read, self._read = self._read, b""
        return read

    def _chunks(self) -> bytes:
        parts = []
        while True:
            while CRLF not in self._read:
                if not self._more():
                    raise Hangup
            size, _, self._read = self._read.partition(CRLF)
            chunk = self._exactly(int(size.partition(b";")[0], 16))
            self._exactly(2)
            if not chunk:
                return b"".join(parts)
            parts.append(chunk)

    def _exactly(self, count: int) -> bytes:
        parts = [self._read]
        size = len(self._read)
        while size < count:
            part = self.sock.recv(1 << 16)
            if not part:
                raise Hangup
            parts.append(part)
            size += len(part)
        whole = b"".join(parts)
        self._read = whole[count:]
        return whole[:count]

    def _more(self) -> bool:
        part = self.sock.recv(1 << 16)
        self._read += part
        return bool(part)


class Server:
    """Listens on loopback. `answer` is called in the connection's thread."""

    def __init__(self, answer: Answer, context: ssl.SSLContext | None = None) -> None:
        self._answer = answer
        self._context = context
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closing = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self._listener.getsockname()[1])
        self._accept()

    def refuse(self) -> None:
        """Nobody listens any more, and who was connected is cut off."""
        with self._lock:
            self._closing = True
            held, self._open = self._open, set()
        _end(self._listener)
        for sock in held:
            _end(sock)

    def resume(self) -> None:
        deadline = time.monotonic() + 10
        while True:
            try:
                self._listener = socket.create_server(("127.0.0.1", self.port), backlog=256)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        self._closing = False
        self._accept()

    def _accept(self) -> None:
        threading.Thread(target=self._listen, args=[self._listener], name="fake cluster", daemon=True).start()

    def _listen(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                if self._closing:
                    sock.close()
                    continue
                self._open.add(sock)
            threading.Thread(target=self._serve, args=[sock], name="fake cluster connection", daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        sock = raw
        try:
            if self._context is not None:
                sock = self._context.wrap_socket(raw, server_side=True)
                with self._lock:
                    self._open.discard(raw)
                    self._open.add(sock)
            connection = Connection(sock)
            while self._one(connection):
                pass
        except (OSError, Hangup, ValueError):
            pass
        finally:
            with self._lock:
                self._open.discard(sock)
                self._open.discard(raw)
            _end(sock)

    def _one(self, connection: Connection) -> bool:
        """Whether the connection goes on."""
        read = connection.head()
        if read is None:
            return False
        method, target, headers = read
        path, _, query = target.partition("?")
        values = parse_qs(query, keep_blank_values=True)
        body = connection.body(headers)
        request = Request(method, path, {name: each[0] for name, each in values.items()}, body=body)
        reply = self._answer(request, headers, values)
        if isinstance(reply, Call):
            upgrade = reply.registry.upgrades[reply.served().resource, reply.sub]
            upgrade(reply, connection.sock, connection.beyond())
            return False
        keep = headers.get("connection", "").lower() != "close"
        if reply.stream is not None:
            self._stream(connection.sock, reply)
            return keep
        payload, content_type = reply.payload()
        head = {"Date": formatdate(usegmt=True), "Content-Type": content_type, "Content-Length": str(len(payload))}
        head |= reply.headers
        if reply.status == 204:
            head = {}
        connection.sock.sendall(_head(reply.status, head) + (b"" if method == "HEAD" else payload))
        return keep

    def _stream(self, sock: socket.socket, reply: Reply) -> None:
        assert reply.stream is not None
        sock.sendall(_head(reply.status, {"Transfer-Encoding": "chunked", **reply.headers}))
        for part in reply.stream:
            sock.sendall(b"%x\r\n%b\r\n" % (len(part), part))
        sock.sendall(b"0\r\n\r\n")


def _head(status: int, headers: dict[str, str]) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


def _end(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def refused(problem: Problem) -> Reply:
    body = problem.body if isinstance(problem.body, str) else dump(problem.body)
    return Reply(problem.status, body, dict(problem.headers))
