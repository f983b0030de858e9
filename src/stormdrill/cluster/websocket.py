"""As much of websocket as an API server speaks: a handshake with a protocol, binary frames that begin with a channel.

Nothing in it waits without a limit. One thread may send while another receives.
"""

from __future__ import annotations

import base64
import contextlib
import os
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from stormdrill.cluster.api import LIMIT_S, Access, Answer, Lost
from stormdrill.errors import StormdrillError

LARGEST_FRAME = 16_000_000
"""Bytes."""
LARGEST_HEAD = 65_536
CLOSES = 255
"""The channel on which v5 tells that another one is closed."""
_CONTINUED, _TEXT, _BINARY, _CLOSE, _PING = 0, 1, 2, 8, 9
_PONG = 10
_AGAIN = (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError, InterruptedError)


class Refusal(StormdrillError):
    """The server did not do it, and said why. `status` is 0 where it gave none."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status = status


@dataclass(slots=True)
class Stream:
    """Channels over one connection."""

    what: str
    protocol: str
    """The one that the server has chosen."""
    sock: socket.socket
    ended: bool = False
    """The server has closed it, or it was closed here: nothing more comes."""
    _read: bytearray = field(default_factory=bytearray)
    _begun: bytearray = field(default_factory=bytearray)
    """Of a message in several frames."""
    _using: threading.Lock = field(default_factory=threading.Lock)
    """One call at a time on the socket: TLS doesn't bear two."""
    _sending: threading.Lock = field(default_factory=threading.Lock)

    def send(self, data: bytes, channel: int = 0, limit_s: float = LIMIT_S) -> None:
        """Raises Lost when it could not be handed over within the limit; the stream is of no use then."""
        self._frame(_BINARY, bytes([channel]) + data, limit_s)

    def finish(self, channel: int = 0) -> None:
        """No more will be sent there. Only v5 can tell it; before, nothing happens."""
        if self.protocol.startswith("v5."):
            self.send(bytes([channel]), CLOSES)

    def receive(self, timeout_s: float) -> tuple[int, bytes] | None:
        """The next message that isn't empty; None when none came in time or the stream has ended (`ended` tells).
        Raises Lost when the connection broke."""
        until_s = time.monotonic() + timeout_s
        while not self.ended:
            if (message := self._next()) is not None:
                if len(message) > 1:
                    return message[0], message[1:]
                continue
            if self.ended or not self._fill(until_s):  # it was closed in order: what comes then is the end of the line
                return None
        return None

    def close(self) -> None:
        """Never raises."""
        try:
            if not self.ended:
                self._frame(_CLOSE, struct.pack("!H", 1000), 0.2)
        except Lost:
            pass
        finally:
            self.ended = True
            self.sock.close()

    def _next(self) -> bytes | None:
        """The next whole message among what was read."""
        while (frame := _frame_in(self._read, self.what)) is not None:
            code, final, payload = frame
            if code == _CLOSE:
                self.ended = True
                return None
            if code == _PING:
                with contextlib.suppress(Lost):  # what was read before the connection broke still counts
                    self._frame(_PONG, payload, LIMIT_S)
            elif code in (_CONTINUED, _TEXT, _BINARY):
                self._begun += payload
                if len(self._begun) > LARGEST_FRAME:
                    raise Lost(f"{self.what}: a message is larger than {LARGEST_FRAME} bytes", sent=True)
                if final:
                    message, self._begun = bytes(self._begun), bytearray()
                    return message
        return None

    def _fill(self, until_s: float) -> bool:
        """Read once. False when nothing came until then."""
        while True:
            try:
                with self._using:
                    data = self.sock.recv(65_536)
            except _AGAIN:
                left_s = until_s - time.monotonic()
                if left_s <= 0 or not _ready(self.sock, left_s, writing=False):
                    return False
                continue
            except (OSError, ValueError) as error:
                self.ended = True
                raise Lost(f"{self.what}: {error}", sent=True) from error
            if not data:
                self.ended = True
                raise Lost(f"{self.what}: the connection was closed", sent=True)
            self._read += data
            return True

    def _frame(self, code: int, payload: bytes, limit_s: float) -> None:
        mask = os.urandom(4)
        length = len(payload)
        if length < 126:
            head = struct.pack("!BB", 0x80 | code, 0x80 | length)
        elif length < 65_536:
            head = struct.pack("!BBH", 0x80 | code, 0x80 | 126, length)
        else:
            head = struct.pack("!BBQ", 0x80 | code, 0x80 | 127, length)
        masked = _masked(payload, mask)
        with self._sending:
            _send(self.sock, head + mask + masked, time.monotonic() + limit_s, self.what, self._using)


def connect(access: Access, path: str, query: str, protocols: Sequence[str], limit_s: float = LIMIT_S) -> Stream:
    """Open a stream. Raises Refusal with what the server said, Lost when nothing was heard within the limit. A 401 is
    answered once with new credentials."""
    until_s = time.monotonic() + limit_s
    try:
        return _connect(access, path, query, protocols, until_s)
    except Refusal as refusal:
        if refusal.status != 401 or not access.refresh():
            raise
    return _connect(access, path, query, protocols, until_s)


def _connect(access: Access, path: str, query: str, protocols: Sequence[str], until_s: float) -> Stream:
    what = f"GET {path}"
    parts = urlsplit(access.server)
    context = access.context()
    host, port = parts.hostname or "", parts.port or (80 if context is None else 443)
    lines = [
        f"GET {parts.path.rstrip('/')}{path}?{query} HTTP/1.1",
        f"Host: {parts.netloc}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        f"Sec-WebSocket-Protocol: {', '.join(protocols)}",
        *(f"{name}: {value}" for name, value in access.headers().items()),
    ]
    request = ("\r\n".join(lines) + "\r\n\r\n").encode()
    sock: socket.socket | None = None
    try:
        sock = socket.create_connection((host, port), timeout=max(0.01, until_s - time.monotonic()))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            sock = context.wrap_socket(sock, server_hostname=host)
    except (OSError, ValueError) as error:
        if sock is not None:
            sock.close()
        raise Lost(f"{what}: {error}", sent=False) from error
    try:
        sock.setblocking(False)
        _send(sock, request, until_s, what)
        head, rest = _head(sock, until_s, what)
        status = int(head[0].split()[1])
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        if status == 101:
            return Stream(what, headers.get("sec-websocket-protocol", ""), sock, _read=bytearray(rest))
        raise Refusal(status, Answer(status, headers, _body(sock, rest, headers, until_s)).said)
    except (IndexError, ValueError) as error:
        sock.close()
        raise Lost(f"{what}: the answer is not HTTP", sent=True) from error
    except StormdrillError:
        sock.close()
        raise


def _head(sock: socket.socket, until_s: float, what: str) -> tuple[list[str], bytes]:
    read = bytearray()
    while b"\r\n\r\n" not in read:
        if len(read) > LARGEST_HEAD or not (data := _recv(sock, until_s)):
            raise Lost(f"{what}: no answer to the handshake", sent=True)
        read += data
    head, _, rest = bytes(read).partition(b"\r\n\r\n")
    return head.decode("latin-1").split("\r\n"), rest


def _body(sock: socket.socket, rest: bytes, headers: dict[str, str], until_s: float) -> bytes:
    """As much of a refusal's text as comes."""
    wanted = min(int(headers.get("content-length", "0") or 0), LARGEST_HEAD)
    while len(rest) < wanted and (data := _recv(sock, until_s)):
        rest += data
    return rest


def _recv(sock: socket.socket, until_s: float) -> bytes:
    """Empty when nothing came until then, or nothing more comes."""
    while True:
        try:
            return sock.recv(65_536)
        except _AGAIN:
            left_s = until_s - time.monotonic()
            if left_s <= 0 or not _ready(sock, left_s, writing=False):
                return b""
        except OSError:
            return b""


def _send(sock: socket.socket, data: bytes, until_s: float, what: str, using: threading.Lock | None = None) -> None:
    lock = using or threading.Lock()
    left = memoryview(data)
    while left:
        try:
            with lock:
                left = left[sock.send(left) :]
        except _AGAIN:
            left_s = until_s - time.monotonic()
            if left_s <= 0 or not _ready(sock, left_s, writing=True):
                raise Lost(f"{what}: it could not be sent in time", sent=True) from None
        except (OSError, ValueError) as error:
            raise Lost(f"{what}: {error}", sent=True) from error


def _ready(sock: socket.socket, limit_s: float, *, writing: bool) -> bool:
    try:
        poll = select.poll()
        poll.register(sock, select.POLLOUT if writing else select.POLLIN)
        return bool(poll.poll(min(limit_s, LIMIT_S) * 1000)) or limit_s > LIMIT_S
    except (OSError, ValueError):
        return True  # the call itself tells what is wrong


def _masked(payload: bytes, mask: bytes) -> bytes:
    """As one large number: a loop over the bytes would take longer than the network."""
    length = len(payload)
    key = (mask * (length // 4 + 1))[:length]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(length, "big")


def _frame_in(read: bytearray, what: str) -> tuple[int, bool, bytes] | None:
    """Take the first whole frame out of what was read: its code, whether it ends a message, its payload."""
    if len(read) < 2:
        return None
    length, at = read[1] & 0x7F, 2
    if length >= 126:
        at = 4 if length == 126 else 10
        if len(read) < at:
            return None
        length = int.from_bytes(read[2:at], "big")
    if length > LARGEST_FRAME:
        raise Lost(f"{what}: a frame is larger than {LARGEST_FRAME} bytes", sent=True)
    if read[1] & 0x80:
        raise Lost(f"{what}: the server masks its frames", sent=True)
    if len(read) < at + length:
        return None
    code, final, payload = read[0] & 0x0F, bool(read[0] & 0x80), bytes(read[at : at + length])
    del read[: at + length]
    return code, final, payload
