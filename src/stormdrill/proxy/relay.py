"""One hop: bytes between a caller and its callee, with backpressure, half-close and bounded buffers."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass, field
from typing import cast

from stormdrill.proxy.config import Route

BUFFER_BYTES = 64 * 1024
"""Above this, in either direction, reading from the faster side pauses."""
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of no time."""


@dataclass(slots=True)
class Traffic:
    """What passed one hop, for exposure."""

    open: int = 0
    connections: int = 0
    refused: int = 0
    """Connections whose upstream could not be reached."""
    bytes_up: int = 0
    bytes_down: int = 0


@dataclass(slots=True)
class Hop:
    route: Route
    traffic: Traffic = field(default_factory=Traffic)
    pairs: set[Caller] = field(default_factory=set)

    def accept(self) -> Caller:
        return Caller(self)

    def cut(self) -> None:
        """Reset every connection of this hop."""
        for pair in tuple(self.pairs):
            pair.cut()


class _Side(asyncio.Protocol):
    """One end of a relayed connection; `other` is where its bytes go."""

    transport: asyncio.Transport | None = None
    other: _Side | None = None
    ended = False
    """It has sent its last byte."""

    def send(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def abort(self) -> None:
        """Reset, so that the other end doesn't take it for an orderly end."""
        if self.transport is None:
            return
        end = self.transport.get_extra_info("socket")
        if end is not None and end.fileno() >= 0:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    def pause_writing(self) -> None:
        other = self.other
        if other is not None and other.transport is not None:
            other.transport.pause_reading()

    def resume_writing(self) -> None:
        other = self.other
        if other is not None and other.transport is not None and not other.transport.is_closing():
            other.transport.resume_reading()

    def eof_received(self) -> bool:
        self.ended = True
        other = self.other
        if other is None or other.transport is None or other.transport.is_closing():
            return False
        if other.ended:
            other.transport.close()
            return False
        if other.transport.can_write_eof():
            other.transport.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        other, self.other = self.other, None
        if other is None or other.transport is None:
            return
        if exc is None:
            other.transport.close()
        else:
            other.abort()


class Callee(_Side):
    def __init__(self, caller: Caller) -> None:
        self.other = caller
        self._traffic = caller.hop.traffic

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        self._traffic.bytes_down += len(data)
        if self.other is not None:
            self.other.send(data)


class Caller(_Side):
    """The accepted side: reads nothing before its upstream is there, so that nothing has to be kept."""

    def __init__(self, hop: Hop) -> None:
        self.hop = hop
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=BUFFER_BYTES)
        self.transport.pause_reading()
        traffic = self.hop.traffic
        traffic.open += 1
        traffic.connections += 1
        self.hop.pairs.add(self)
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        route = self.hop.route
        callee = Callee(self)
        try:
            await asyncio.get_running_loop().create_connection(lambda: callee, route.host, route.port)
        except OSError:
            self.hop.traffic.refused += 1
            self.abort()
            return
        if self.transport is None or self.transport.is_closing():
            callee.abort()
            return
        self.other = callee
        self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self.hop.traffic.bytes_up += len(data)
        if self.other is not None:
            self.other.send(data)

    def cut(self) -> None:
        if self.other is not None:
            self.other.abort()
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.hop.traffic.open -= 1
        self.hop.pairs.discard(self)
        if self._connecting is not None:
            self._connecting.cancel()
        super().connection_lost(exc)
