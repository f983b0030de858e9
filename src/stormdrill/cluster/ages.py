"""How long things have lasted that a watchdog looks at, also over its restarts.

While it lives it counts on its own clock. What it has first seen when, by the API server's clock, stands in the ledger
with its sign of life; one that is started again takes it from there, less a margin: servers' clocks differ a little and
tell whole seconds. So restarts every few seconds don't begin any time anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

SKEW_S = 5.0


@dataclass(slots=True)
class Ages:
    now: Callable[[], float]
    """The own clock."""
    server_s: Callable[[], float]
    """The API server's, as its last answer told it; 0: it tells none."""
    _own: dict[str, float] = field(default_factory=dict)
    _first: dict[str, int] = field(default_factory=dict)
    """When it was first seen, by the API server's clock."""
    _resumed: set[str] = field(default_factory=set)

    def see(self, name: str) -> None:
        """It is there; the first time counts."""
        self._own.setdefault(name, self.now())
        if name not in self._first and (server_s := self.server_s()):
            self._first[name] = int(server_s)

    def resume(self, written: object) -> None:
        """What the one before has written."""
        for name, first in written.items() if isinstance(written, Mapping) else ():
            if isinstance(first, int) and not isinstance(first, bool):
                self._first[str(name)] = first
                self._resumed.add(str(name))

    def of_s(self, name: str) -> float:
        """At least so long ago it was first seen. 0 for what never was."""
        return max(self.now() - self._own[name] if name in self._own else 0.0, self.before_s(name))

    def before_s(self, name: str) -> float:
        """The same by what was written before this life; 0 for what is new in it."""
        if name not in self._resumed or not (server_s := self.server_s()):
            return 0.0
        return max(0.0, server_s - self._first[name] - SKEW_S)

    def forget(self, name: str) -> None:
        """It is over; it begins anew when it is seen again."""
        self._own.pop(name, None)
        self._first.pop(name, None)
        self._resumed.discard(name)

    def written(self, names: Iterable[str]) -> dict[str, int]:
        return {name: self._first[name] for name in names if name in self._first}
