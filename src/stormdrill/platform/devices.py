"""A GPU worker's devices: simulated ones, and the watch that finds out how they do.

A device is a file that holds one word: ok, slow, hang or cold; without its file it is lost. Only `Device`, the
hardware, reads the word. The watch allocates on the device (a lost one refuses), runs a small batch, and judges it by
its time against what is expected: a grey failure isn't announced anywhere.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from stormdrill.platform.jobs import GPU_DEVICES, MODEL_LOAD_S
from stormdrill.platform.pools import OK

SLOW, HANG, COLD, LOST = "slow", "hang", "cold", "lost"
STATES = (OK, SLOW, HANG, COLD, LOST)
SLOW_FACTOR = 4.0
HANG_LOOK_S = 0.05
PROBE_EVERY_S = 0.25
CANARY_S = 0.02
"""What the watch's own batch takes on a device that is well."""
SLOW_RATIO = 2.5
TRIES = 2
"""In a row, to call a device slow, or well again."""
HANG_PROBES = 6
"""Without an end of the canary: longer than loading a model takes."""


class DeviceLostError(Exception):
    """The device is gone; what ran there must run elsewhere."""


class Device:
    """Simulated hardware."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._path = path
        self._word = OK

    def word(self) -> str:
        try:
            word = self._path.read_text(encoding="utf-8").strip()
        except OSError:
            return LOST
        if word:  # empty while somebody writes it
            self._word = word if word in STATES else LOST
        return self._word

    def allocate(self) -> None:
        if self.word() == LOST:
            raise DeviceLostError(self.name)

    async def run(self, work_s: float) -> None:
        """A batch. Raises DeviceLostError."""
        self.allocate()
        if self._word == COLD:
            await asyncio.sleep(MODEL_LOAD_S)
        await asyncio.sleep(work_s * SLOW_FACTOR if self._word == SLOW else work_s)
        while self.word() == HANG:
            await asyncio.sleep(HANG_LOOK_S)
        self.allocate()


class Watched:
    """A device as its worker sees it."""

    def __init__(self, device: Device, blind: bool) -> None:
        self.device = device
        self.state = OK
        self.running = 0
        self._blind = blind
        """With the bug grey-blind: a device that is there is well."""
        self._canary: asyncio.Task[float] | None = None
        self._probes = 0
        self._streak = 0
        """Canaries in a row that were well, or below 0 that were slow."""

    def look(self) -> None:
        """One probe: judges the last canary, and sends the next."""
        try:
            self.device.allocate()
        except DeviceLostError:
            if self._canary is not None:
                self._canary.cancel()
            self._canary, self._streak, self.state = None, 0, LOST
            return
        if self._blind:
            self.state = OK
            return
        if self._canary is not None and not self._canary.done():
            self._probes += 1
            self._streak = 0
            if self._probes >= TRIES:
                self.state = HANG if self._probes >= HANG_PROBES or self.state == HANG else COLD
            return
        if self._canary is not None and not self._canary.cancelled() and self._canary.exception() is None:
            self._judge(self._canary.result())
        self._probes = 0
        self._canary = asyncio.create_task(self._ratio())

    def _judge(self, ratio: float) -> None:
        if ratio < SLOW_RATIO:
            self._streak = max(self._streak, 0) + 1
            if self._streak >= TRIES:
                self.state = OK
        elif ratio * CANARY_S > MODEL_LOAD_S / 2:
            self._streak, self.state = 0, COLD
        else:
            self._streak = min(self._streak, 0) - 1
            if self._streak <= -TRIES:
                self.state = SLOW

    async def _ratio(self) -> float:
        """The canary's time over that of the same wait at the same moment: a busy machine isn't a slow device."""
        clock = asyncio.get_running_loop().time
        began_s = clock()
        batch = asyncio.create_task(self.device.run(CANARY_S))
        try:
            await asyncio.sleep(CANARY_S)
            expected_s = clock() - began_s
            await batch
            return (clock() - began_s) / max(expected_s, CANARY_S)
        finally:
            batch.cancel()


class Devices:
    def __init__(self, folder: Path, blind: bool, changed: Callable[[Watched], Awaitable[None]]) -> None:
        """Makes them when there is no folder yet; what is missing in one stays lost."""
        if not folder.exists():
            folder.mkdir(parents=True)
            for number in range(GPU_DEVICES):
                (folder / f"gpu{number}").write_text(f"{OK}\n", encoding="utf-8")
        self.all = tuple(Watched(Device(folder / f"gpu{number}"), blind) for number in range(GPU_DEVICES))
        self._changed = changed
        for watched in self.all:
            if watched.device.word() == LOST:
                watched.state = LOST

    def states(self) -> dict[str, int]:
        return dict(Counter(watched.state for watched in self.all))

    def best(self) -> Watched | None:
        """The least busy one that works."""
        return min((one for one in self.all if one.state == OK), key=lambda one: one.running, default=None)

    async def probe(self) -> None:
        for watched in self.all:
            await self.look(watched)

    async def look(self, watched: Watched) -> None:
        """At its beat, and whenever it refused work."""
        before = watched.state
        watched.look()
        if watched.state != before:
            await self._changed(watched)
