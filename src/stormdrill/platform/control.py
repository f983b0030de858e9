"""What people set while the platform runs (drained regions, shed level), shared by merging versions.

Each register carries (counter, writer): the greater one wins on every side, so that gateways and edges agree after
any loss, and a region that was away can't bring an old setting back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec import Struct

SHED_LEVELS = (0, 1, 2, 3)
SHED = "shed_level"
RELEASES = ("stable", "leaky")
"""Versions of the workers that can be rolled out."""


class Register(Struct, frozen=True):
    key: str
    counter: int
    writer: str
    """The gateway where a person set it; breaks ties."""
    value: int

    @property
    def version(self) -> tuple[int, str]:
        return (self.counter, self.writer)


class Release(Struct, frozen=True):
    """What the workers of one pool in one region are to run."""

    pool: str
    version: str
    before: str
    """The version before the last change: where a roll-back leads. Asked for twice, it stays what it was."""


class Control:
    def __init__(self, registers: Iterable[Register] = (), saved: Callable[[Register], None] | None = None) -> None:
        self._registers = {register.key: register for register in registers}
        self._saved = saved
        """Called with each register that changes, before the change is visible."""

    def snapshot(self) -> tuple[Register, ...]:
        return tuple(self._registers.values())

    def merge(self, registers: Iterable[Register]) -> bool:
        """Take what is newer; True when something changed."""
        changed = False
        for register in registers:
            known = self._registers.get(register.key)
            if known is None or register.version > known.version:
                self._take(register)
                changed = True
        return changed

    def set(self, key: str, value: int, writer: str) -> int:
        """Write a register above every version seen; returns the value before."""
        before = self._value(key)
        counter = 1 + max((register.counter for register in self._registers.values()), default=0)
        self._take(Register(key, counter, writer, value))
        return before

    def drained(self, region: str) -> bool:
        return bool(self._value(f"drained.{region}"))

    def drain(self, region: str, drained: bool, writer: str) -> bool:
        """Returns whether it was drained before."""
        return bool(self.set(f"drained.{region}", int(drained), writer))

    @property
    def shed_level(self) -> int:
        """0: by prediction only; 1: tier 3 is shed; 2: tiers 2 and 3, tier 2 by half; 3: only tier 1 is admitted."""
        return self._value(SHED)

    def release(self, region: str, pool: str) -> Release:
        before, version = divmod(self._value(f"release.{region}.{pool}"), len(RELEASES))
        return Release(pool, RELEASES[version], RELEASES[before])

    def roll_out(self, region: str, pool: str, version: str, writer: str) -> Release:
        """The same version again changes nothing, so that asking twice doesn't hide where a roll-back leads."""
        now = self.release(region, pool)
        if now.version == version:
            return now
        value = RELEASES.index(now.version) * len(RELEASES) + RELEASES.index(version)
        self.set(f"release.{region}.{pool}", value, writer)
        return self.release(region, pool)

    def _value(self, key: str) -> int:
        register = self._registers.get(key)
        return register.value if register else 0

    def _take(self, register: Register) -> None:
        if self._saved is not None:
            self._saved(register)
        self._registers[register.key] = register
