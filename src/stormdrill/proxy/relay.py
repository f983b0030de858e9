"""One hop: its connections, each accepted one joined to one made for it, and the toxics that are on it."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import struct
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from stormdrill.proxy.config import Route
from stormdrill.proxy.flow import BROKEN, Flow, Traffic
from stormdrill.proxy.shaping import Active

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stormdrill.proxy.listener import Listener

CONNECT_LIMIT_S = 30.0
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of no time."""
_RESETTING = ("reset", "refuse")
Address = tuple[int, tuple[object, ...]]


@dataclass(eq=False)
class Hop:
    route: Route
    traffic: Traffic = field(default_factory=Traffic)
    pairs: dict[Pair, None] = field(default_factory=dict)
    """In the order of their acceptance."""
    toxics: tuple[Active, ...] = ()
    listener: Listener | None = None

    def accept(self, caller: socket.socket) -> None:
        Pair(self, caller)

    def cut(self) -> None:
        """Reset every connection of this hop."""
        for pair in tuple(self.pairs):
            pair.abort()

    def of_kind(self, *kinds: str) -> list[Active]:
        return [one for one in self.toxics if one.toxic.kind in kinds]

    def apply(self, toxics: tuple[Active, ...]) -> None:
        """These are its toxics from now on, for connections that are open too."""
        self.toxics = toxics
        if self.listener is not None:
            self.listener.serve(not self.of_kind("refuse"))
        for pair in tuple(self.pairs):
            pair.reshape()

    @cached_property
    def fixed(self) -> Address | None:
        """Where it leads; None for a name, which is looked up for each connection."""
        try:
            version = ipaddress.ip_address(self.route.host).version
        except ValueError:
            return None
        return socket.AF_INET if version == 4 else socket.AF_INET6, (self.route.host, self.route.port)


class Pair:
    """An accepted connection and the one that was made for it."""

    def __init__(self, hop: Hop, caller: socket.socket) -> None:
        self.hop = hop
        self.traffic = hop.traffic
        self.loop = asyncio.get_running_loop()
        self.waits = False
        self.up = Flow(self, "up")
        self.down = Flow(self, "down")
        self._caller: socket.socket | None = caller
        self._callee: socket.socket | None = None
        self._numbers: dict[Active, int] = {}
        self._touched: set[Active] = set()
        self._limit: asyncio.TimerHandle | None = None
        self._lookup: asyncio.Task[None] | None = None
        self.joined = self._closed = False
        hop.traffic.connections += 1
        hop.traffic.open += 1
        hop.pairs[self] = None
        caller.setblocking(False)
        caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.up.source = caller
        self._begin()

    def _begin(self) -> None:
        if self._reset_by(self.hop.of_kind(*_RESETTING)):
            return
        cut = self.hop.of_kind("cut")
        self.waits = bool(cut)
        if cut:
            # Read from at once, so that a caller who gives up is noticed and its connection not kept until the healing.
            self.touched(cut, 0)
            self._reshape_flows()
        else:
            self._connect()

    def touched(self, active: Sequence[Active], count: int) -> None:
        """These toxics had `count` bytes of this connection in hand."""
        for one in active:
            one.bytes += count
            if one not in self._touched:
                self._touched.add(one)
                one.connections += 1

    def _reset_by(self, toxics: Sequence[Active]) -> bool:
        if toxics:
            self.touched(toxics, 0)
            for one in toxics:
                one.refused += 1
            self.abort()
        return bool(toxics)

    def reshape(self) -> None:
        """The hop's toxics are others now."""
        if self._reset_by(self.hop.of_kind(*_RESETTING)):
            return
        healed = self.waits and not self.hop.of_kind("cut")
        if healed:
            self.waits = False
            self._connect()
        if self.joined or self.up.shaping is not None:
            self._reshape_flows()

    def _reshape_flows(self) -> None:
        for one in self.hop.toxics:
            if one not in self._numbers:
                self._numbers[one] = one.numbered
                one.numbered += 1
        for flow in (self.up, self.down):
            if not self._closed:
                active = [(one, self._numbers[one]) for one in self.hop.toxics if one.toxic.touches(flow.direction)]
                flow.reshape(active)

    def _connect(self) -> None:
        self._limit = self.loop.call_later(CONNECT_LIMIT_S, self._unreachable)
        fixed = self.hop.fixed
        if fixed is not None:
            self._try([fixed])
        else:
            self._lookup = self.loop.create_task(self._look_up())

    async def _look_up(self) -> None:
        route = self.hop.route
        try:
            found = await self.loop.getaddrinfo(route.host, route.port, type=socket.SOCK_STREAM)
        except OSError:
            self._unreachable()
            return
        self._try([(int(family), address) for family, _, _, _, address in found])

    def _try(self, addresses: list[Address]) -> None:
        """Connect to the first of them that answers."""
        while addresses and not self._closed:
            family, address = addresses.pop(0)
            try:
                callee = socket.socket(family, socket.SOCK_STREAM)
            except OSError:
                continue
            callee.setblocking(False)
            callee.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if callee.connect_ex(address) in (0, errno.EINPROGRESS):
                self._callee = callee
                self.loop.add_writer(callee, self._answered, callee, addresses)
                return
            callee.close()
        self._unreachable()

    def _answered(self, callee: socket.socket, others: list[Address]) -> None:
        self.loop.remove_writer(callee)
        if callee.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            callee.close()
            self._callee = None
            self._try(others)
            return
        self.joined = True
        if self._limit is not None:
            self._limit.cancel()
        self.up.sink = self.down.source = callee
        self.down.sink = self._caller
        self._reshape_flows()

    def _unreachable(self) -> None:
        if not self._closed:
            self.traffic.refused += 1
            self.abort()

    def lost(self, gone: socket.socket) -> None:
        """One end is gone without an orderly end. The other learns it when the toxics between them let it."""
        if self._closed:
            return
        out, back = (self.up, self.down) if gone is self._caller else (self.down, self.up)
        if out.shaping is None or not self.joined or None in (self._caller, self._callee):
            self.abort()
            return
        back.drop()
        out.part()
        if gone is self._caller:
            self._caller = None
        else:
            self._callee = None
        gone.close()
        out.end(BROKEN)

    def settle(self) -> None:
        """Close when both ends have said all they had to."""
        if self.up.done and self.down.done:
            self._close()

    def abort(self) -> None:
        """Reset both ends, so that neither takes it for an orderly end."""
        for end in (self._caller, self._callee):
            if end is not None:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._close()

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self.traffic.open -= 1
        self.hop.pairs.pop(self, None)
        if self._limit is not None:
            self._limit.cancel()
        if self._lookup is not None:
            self._lookup.cancel()
        if self._callee is not None and not self.joined:
            self.loop.remove_writer(self._callee)
        self.up.close()
        self.down.close()
        for end in (self._caller, self._callee):
            if end is not None:
                end.close()
        self._caller = self._callee = None
