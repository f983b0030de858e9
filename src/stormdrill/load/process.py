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


class Part(Protocol):
    """One of a load's processes, wherever it runs."""

    @property
    def control(self) -> str:
        """Where it finds the runner."""
        ...

    def start(self, keeper: Spawner, config: Config, file: str) -> None:
        """Raises SystemNotReady when it can't be started."""
        ...

    def meet(self, until_s: float, heard: Callable[[FromGenerator], None], gone: Callable[[], None]) -> bool:
        """Wait for it to connect, and listen from then on; False when it is dead or it is `until_s` (monotonic)."""
        ...

    def send(self, message: FromRunner) -> bool:
        """False when it is gone."""
        ...

    def stop(self, limit_s: float = STOP_LIMIT_S) -> None: ...
    def last_lines(self) -> str: ...
    def why_gone(self) -> str:
        """What is to be told of an end that nobody asked for."""
        ...


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

    def why_gone(self) -> str:
        return "it died or was killed: its connection closed"

    def alive(self) -> bool:
        found = stat(self._pid)
        return found is not None and found.start_ticks == self._start_ticks and found.state not in "ZX"

    def last_lines(self) -> str:
        return last_lines(self._directory / "logs" / f"{self.instance}.log")


def last_lines(log: Path) -> str:
    """Of a log, for a person."""
    try:
        lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
    except OSError:
        return "it left no log"
    return "its last lines:\n" + "\n".join(lines) if lines else "its log is empty"
