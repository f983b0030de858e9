"""One of the load's processes on this machine: started through the keeper, spoken to over a socket of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from stormdrill.load.line import GeneratorLine
from stormdrill.load.messages import Config, FromGenerator, FromRunner
from stormdrill.ports import Spawned
from stormdrill.store.identity import stat

STOP_LIMIT_S = 2.0
LOST_STOP_LIMIT_S = 0.1
"""For one that was given up: what it would still say is not waited for."""
_LOG_LINES = 12


class Spawner(Protocol):
    """What of a keeper the load needs."""

    def spawn(
        self,
        instance: str,
        *,
        service: str,
        role: str,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: str,
        address: str,
        labels: Mapping[str, str],
    ) -> Spawned: ...

    def stop(self, instance: str, timeout_s: float) -> None: ...


class GeneratorProcess:
    """From its configuration, which is written into the run directory, to its end."""

    def __init__(self, instance: str, directory: Path) -> None:
        self.instance = instance
        self._directory = directory
        self._line = GeneratorLine()
        self._keeper: Spawner | None = None
        self._pid = self._start_ticks = 0

    @property
    def control(self) -> str:
        """Where it finds the runner."""
        return self._line.name

    def start(self, keeper: Spawner, config: Config, file: str) -> None:
        """Raises SystemNotReady when it can't be started."""
        place = self._directory / "load" / file
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(msgspec.json.encode(config))
        spawned = keeper.spawn(
            self.instance,
            service="load",
            role="generator",
            argv=[sys.executable, "-P", "-m", "stormdrill.load.locust", "--config", str(place)],
            env={},
            cwd=str(self._directory),
            address="",
            labels={},
        )
        self._keeper = keeper
        self._pid, self._start_ticks = spawned.pid, spawned.start_ticks

    def meet(self, until_s: float, heard: Callable[[FromGenerator], None], gone: Callable[[], None]) -> bool:
        """Wait for it to connect, and listen from then on; False when it is dead or it is `until_s` (monotonic)."""
        if not self._line.accept(self._pid, until_s, self.alive):
            return False
        self._line.listen(heard, gone)
        return True

    def send(self, message: FromRunner) -> bool:
        return self._line.send(message)

    def stop(self, limit_s: float = STOP_LIMIT_S) -> None:
        """Ended through the keeper, so that its end is an expected one."""
        if self._keeper is not None:
            self._keeper.stop(self.instance, limit_s)
        self._line.close()

    def close(self) -> None:
        self._line.close()

    def alive(self) -> bool:
        found = stat(self._pid)
        return found is not None and found.start_ticks == self._start_ticks and found.state not in "ZX"

    def last_lines(self) -> str:
        log = self._directory / "logs" / f"{self.instance}.log"
        try:
            lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        except OSError:
            return "it left no log"
        return "its last lines:\n" + "\n".join(lines) if lines else "its log is empty"
