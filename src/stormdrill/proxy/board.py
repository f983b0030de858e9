"""The toxics in force: put, replaced, taken away, and ended by themselves when their time is over."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from stormdrill.proxy.relay import Hop
from stormdrill.proxy.shaping import Active
from stormdrill.proxy.toxic import Toxic, ToxicError, read


class Board:
    def __init__(self, hops: Sequence[Hop]) -> None:
        self.hops: Mapping[str, Hop] = {hop.route.name: hop for hop in hops}
        self._active: dict[str, Active] = {}

    def put(self, tag: str, body: bytes) -> dict[str, object]:
        """Put what the body asks for under this tag, on all its hops or on none. Raises ToxicError."""
        toxic, life_s = read(tag, body, self.hops)
        held = self._active.get(tag)
        if held is None or held.toxic != toxic:
            if held is not None:
                held.end()
            self._active[tag] = held_now = Active(toxic)
            self._apply(*(held.toxic.routes if held is not None else ()), *toxic.routes)
        else:
            held_now = held
        self._let_live(held_now, life_s)
        return shown(held_now)

    def remove(self, *tags: str) -> int:
        """How many of these there were. Raises ToxicError when a hop can't listen again yet."""
        found = [self._active.pop(tag) for tag in tags if tag in self._active]
        for one in found:
            one.end()
        self._apply(*(route for one in found for route in one.toxic.routes))
        late = [name for name, hop in self.hops.items() if hop.listener is not None and hop.listener.late]
        if late:
            raise ToxicError(503, [f"{name}: its port can't be listened on yet; it is tried again" for name in late])
        return len(found)

    def clear(self) -> int:
        return self.remove(*self._active)

    def list(self) -> list[dict[str, object]]:
        return [shown(one) for one in self._active.values()]

    def _let_live(self, active: Active, life_s: float | None) -> None:
        if active.expiry is not None:
            active.expiry.cancel()
        loop = asyncio.get_running_loop()
        active.expiry = None if life_s is None else loop.call_later(life_s, self._expire, active.toxic)

    def _expire(self, toxic: Toxic) -> None:
        try:
            self.remove(toxic.tag)
        except ToxicError:
            return  # the listener goes on trying, and /routes shows it

    def _apply(self, *routes: str) -> None:
        for name in dict.fromkeys(routes):
            on_it = tuple(one for one in self._active.values() if name in one.toxic.routes)
            self.hops[name].apply(on_it)


def shown(active: Active) -> dict[str, object]:
    toxic, expiry = active.toxic, active.expiry
    left_s = None if expiry is None else max(0.0, round(expiry.when() - asyncio.get_running_loop().time(), 3))
    return {
        "tag": toxic.tag,
        "routes": list(toxic.routes),
        "kind": toxic.kind,
        **toxic.numbers(),
        "expires_in_s": left_s,
        "connections": active.connections,
        "bytes": active.bytes,
        "refused": active.refused,
    }
