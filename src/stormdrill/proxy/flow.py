"""One direction of one connection: bytes in order, with half-close, backpressure and the hop's toxics."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from stormdrill.proxy.shaping import BUFFER_BYTES, Active, Shaping

READ_BYTES = 512 * 1024
_READ = bytearray(READ_BYTES)
_READ_VIEW = memoryview(_READ)
"""One for all: whatever can't be sent at once is copied out of it before the next read."""
ENDED, BROKEN = "ended", "broken"
MOST_KEPT_BYTES = 256 * 1024 * 1024
"""Of all connections together: beyond it a delayed direction keeps no more than any other."""


@dataclass(slots=True)
class _Kept:
    bytes: int = 0


_ALL = _Kept()


@dataclass(slots=True)
class Traffic:
    """What passed one hop, for exposure."""

    open: int = 0
    connections: int = 0
    refused: int = 0
    """Connections whose upstream could not be reached."""
    bytes_up: int = 0
    bytes_down: int = 0


class Ends(Protocol):
    """The connection that a flow is half of."""

    loop: asyncio.AbstractEventLoop
    traffic: Traffic
    waits: bool
    """Not to be carried on before a cut has healed."""

    def touched(self, active: Sequence[Active], count: int) -> None: ...

    def lost(self, gone: socket.socket) -> None: ...

    def settle(self) -> None: ...

    def abort(self) -> None: ...


class Flow:
    """One direction of one connection."""

    def __init__(self, pair: Ends, direction: str) -> None:
        self._pair = pair
        self._loop = pair.loop
        self._up = direction == "up"
        self.direction = direction
        self._traffic = pair.traffic
        self.source: socket.socket | None = None
        self.sink: socket.socket | None = None
        self.shaping: Shaping | None = None
        self.ending = ""
        """How its source has stopped sending: in order, or broken. Its place in the queue is an empty chunk."""
        self.done = False
        self._queue: deque[tuple[float, float, bytes | memoryview]] = deque()
        """Read at, may leave at, bytes."""
        self.kept_bytes = 0
        self._reading = False
        self._writing = False
        self._timer: asyncio.TimerHandle | None = None

    def readable(self) -> None:
        source = self.source
        if source is None:
            return
        shaping = self.shaping
        room = READ_BYTES if shaping is None else min(READ_BYTES, self._limit() - self.kept_bytes)
        if room <= 0:  # others have taken it since
            self._watch(write=self._writing)
            return
        try:
            count = source.recv_into(_READ, room)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._pair.lost(source)
            return
        if not count:
            self.end(ENDED)
            return
        if self._up:
            self._traffic.bytes_up += count
        else:
            self._traffic.bytes_down += count
        if shaping is not None:
            self._pair.touched(shaping.touching, count)
            self._keep(bytes(_READ_VIEW[:count]))
            self.pump()
            return
        self._pass_on(count)

    def _pass_on(self, count: int) -> None:
        """Nothing is active and nothing waits: the only copy is the kernel's."""
        sink = self.sink
        sent = 0
        try:
            if sink is not None:
                sent = sink.send(_READ_VIEW[:count])
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            if sink is not None:
                self._pair.lost(sink)
            return
        if sent < count:
            self._keep(bytes(_READ_VIEW[sent:count]))
            self._watch(write=sink is not None)

    def _keep(self, data: bytes) -> None:
        at_s = self._loop.time()
        self._queue.append((at_s, at_s if self.shaping is None else self.shaping.due_s(at_s), data))
        self.kept_bytes += len(data)
        _ALL.bytes += len(data)

    def end(self, how: str) -> None:
        """Its source sends no more. The other end learns it after all that was sent before."""
        if self._pair.waits:
            self._pair.abort()
            return
        if not self.ending or self.done:
            self._keep(b"")
        self.ending = how
        self.pump()

    def drop(self) -> None:
        """Its sink is gone: there is nobody to bring anything to."""
        self.done = True
        self.close()

    def part(self) -> None:
        """Its source is gone; what was read of it stays."""
        if self._reading and self.source is not None:
            self._loop.remove_reader(self.source)
        self._reading = False
        self.source = None

    def wanted(self) -> int:
        return len(self._queue[0][2]) if self._queue else 0

    def pump(self) -> None:
        """Send whatever may leave now, and see to it that it is called when more may."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        blocked = False
        if self.sink is not None and not (self.shaping is not None and self.shaping.held):
            while self._queue and not blocked:
                portion = self._portion()
                if portion is None:
                    break
                if not portion:
                    self._finish()
                    return
                try:
                    blocked = not self._sent(self.sink, portion)
                except OSError:
                    self._pair.lost(self.sink)
                    return
        self._watch(write=blocked)

    def _portion(self) -> bytes | memoryview | None:
        """What may leave now; empty: the end; None: nothing."""
        _, due_s, chunk = self._queue[0]
        shaping = self.shaping
        if shaping is None:
            return chunk
        if due_s > self._loop.time():
            self._timer = self._loop.call_at(due_s, self.pump)
            return None
        if not chunk:
            return chunk
        allowed = shaping.allow(self, len(chunk))
        if not allowed and shaping.slowed_by is not None:
            self._pair.touched((shaping.slowed_by,), 0)
        return memoryview(chunk)[:allowed] if allowed else None

    def _sent(self, sink: socket.socket, portion: bytes | memoryview) -> bool:
        """Whether all of it could be sent."""
        try:
            sent = sink.send(portion)
        except (BlockingIOError, InterruptedError):
            return False
        if self.shaping is not None:
            self.shaping.spend(sent)
            if self.shaping.slowed_by is not None:
                self._pair.touched((self.shaping.slowed_by,), sent)
        self.kept_bytes -= sent
        _ALL.bytes -= sent
        at_s, due_s, chunk = self._queue.popleft()
        if sent < len(chunk):
            self._queue.appendleft((at_s, due_s, memoryview(chunk)[sent:]))
        elif not self._queue and self.shaping is not None:
            self.shaping.slowed_by = None
        return sent == len(portion)

    def _finish(self) -> None:
        self._queue.clear()
        self._watch(write=False)
        if self.ending == BROKEN:
            self._pair.abort()
            return
        self.done = True
        if self.sink is not None:
            try:
                self.sink.shutdown(socket.SHUT_WR)
            except OSError:
                self._pair.lost(self.sink)
                return
        self._pair.settle()

    def reshape(self, numbered: Sequence[tuple[Active, int]]) -> None:
        """From now on these toxics hold, for what waits here too."""
        if self.shaping is not None:
            self.shaping.end()
        self.shaping = Shaping(numbered, self.direction) if numbered else None
        if self.shaping is not None:
            if self.kept_bytes:  # a connection without a byte in hand is not touched yet
                self._pair.touched(self.shaping.touching, self.kept_bytes)
            waiting = [(at_s, self.shaping.due_s(at_s), chunk) for at_s, _, chunk in self._queue]
            self._queue = deque(waiting)
        self.pump()

    def _watch(self, write: bool) -> None:
        """Wait for the sink to take more, if it must; read from the source while there is room."""
        if write != self._writing:
            self._writing = write
            if write and self.sink is not None:
                self._loop.add_writer(self.sink, self.pump)
            elif self.sink is not None:
                self._loop.remove_writer(self.sink)
        read = self.source is not None and not self.ending and self.kept_bytes < self._limit()
        if read != self._reading and self.source is not None:
            self._reading = read
            if read:
                self._loop.add_reader(self.source, self.readable)
            else:
                self._loop.remove_reader(self.source)

    def _limit(self) -> int:
        """What it may keep before it stops reading."""
        if self.shaping is None:
            return 1
        return self.shaping.limit if _ALL.bytes < MOST_KEPT_BYTES else min(self.shaping.limit, BUFFER_BYTES)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.shaping is not None:
            self.shaping.end()
        self._queue.clear()
        _ALL.bytes -= self.kept_bytes
        self.kept_bytes = 0
        self.part()
        if self._writing and self.sink is not None:
            self._loop.remove_writer(self.sink)
        self._writing = False
        self.sink = None
