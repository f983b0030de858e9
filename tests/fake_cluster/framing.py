"""The server's side of RFC 6455, as much of it as exec and port-forward need."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import select
import socket
import ssl
import struct
import threading

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
AT_ONCE_S = 0.05
"""For a part of a TLS record that came alone."""


class WebSocket:
    """One connection after its handshake. Sends from any thread, receives in one."""

    def __init__(self, sock: socket.socket, read: bytes) -> None:
        self._sock = sock
        self._read = read
        self._lock = threading.Lock()
        self._closed = False

    def accept(self, key: str, protocol: str) -> None:
        digest = base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()  # noqa: S324 - the RFC's
        head = [
            "HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {digest}",
        ]  # fmt: skip
        if protocol:
            head.append(f"Sec-WebSocket-Protocol: {protocol}")
        self._sock.sendall(("\r\n".join(head) + "\r\n\r\n").encode())

    def send(self, opcode: int, payload: bytes) -> bool:
        """False when nobody listens any more."""
        size = len(payload)
        if size < 126:
            head = struct.pack("!BB", 0x80 | opcode, size)
        elif size < 1 << 16:
            head = struct.pack("!BBH", 0x80 | opcode, 126, size)
        else:
            head = struct.pack("!BBQ", 0x80 | opcode, 127, size)
        with self._lock:
            if self._closed:
                return False
            try:
                self._sock.sendall(head + payload)
            except OSError:
                self._closed = True
        return not self._closed

    def close(self, code: int = 1000) -> None:
        self.send(CLOSE, struct.pack("!H", code))
        with self._lock:
            self._closed = True
        if not isinstance(self._sock, ssl.SSLSocket):  # it would forget its keys, and read what comes as plain text
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)

    def receive(self) -> tuple[int, bytes] | None:
        """The next whole message; None at the end. Pings are answered."""
        opcode, parts = 0, b""
        while True:
            frame = self._frame()
            if frame is None:
                return None
            last, kind, payload = frame
            if kind == CLOSE:
                self.send(CLOSE, payload[:2])
                return None
            if kind == PING:
                self.send(PONG, payload)
            if kind in (PING, PONG):
                continue
            opcode, parts = kind or opcode, parts + payload
            if last:
                return opcode, parts

    def _frame(self) -> tuple[bool, int, bytes] | None:
        head = self._exactly(2)
        if head is None:
            return None
        size = head[1] & 0x7F
        if size > 125:
            more = self._exactly(2 if size == 126 else 8)
            if more is None:
                return None
            size = int.from_bytes(more, "big")
        mask = self._exactly(4) if head[1] & 0x80 else b"\0\0\0\0"
        payload = self._exactly(size)
        if mask is None or payload is None:
            return None
        whole = (mask * (size // 4 + 1))[:size]
        plain = (int.from_bytes(payload, "big") ^ int.from_bytes(whole, "big")).to_bytes(size, "big")
        return bool(head[0] & 0x80), head[0] & 0x0F, plain

    def _more(self) -> bytes | None:
        """What came; empty at the end, None: look again. One TLS connection can't be read and written at once."""
        if not isinstance(self._sock, ssl.SSLSocket):
            return self._sock.recv(1 << 16)
        if not self._sock.pending():
            select.select([self._sock], [], [])
        with self._lock:
            self._sock.settimeout(AT_ONCE_S)
            try:
                return self._sock.recv(1 << 16)
            except (TimeoutError, ssl.SSLWantReadError):
                return None  # part of a record
            finally:
                self._sock.settimeout(None)

    def _exactly(self, count: int) -> bytes | None:
        while len(self._read) < count:
            try:
                part = self._more()
            except (OSError, ValueError):
                return None
            if part == b"":
                return None
            self._read += part or b""
        found, self._read = self._read[:count], self._read[count:]
        return found
