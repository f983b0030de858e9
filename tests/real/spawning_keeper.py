"""A keeper that only spawns and stops, for tests of what the runner starts through one."""

import contextlib
import os
import signal
import subprocess
from pathlib import Path

from stormdrill.ports import Spawned
from stormdrill.store.identity import stat


class SpawningKeeper:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.stopped: list[str] = []

    def spawn(self, instance, *, service, role, argv, env, cwd, address, labels) -> Spawned:
        (self.directory / "logs").mkdir(exist_ok=True)
        with (self.directory / "logs" / f"{instance}.log").open("wb") as log:
            child = subprocess.Popen(
                argv, env={**os.environ, **env}, cwd=cwd, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.children[instance] = child
        found = stat(child.pid)
        return Spawned(child.pid, found.start_ticks if found else 0)

    def stop(self, instance: str, timeout_s: float) -> None:
        self.stopped.append(instance)
        child = self.children[instance]
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout_s)
        if child.poll() is None:
            child.kill()
            child.wait()

    def kill(self, instance: str) -> None:
        self.children[instance].send_signal(signal.SIGKILL)
        self.children[instance].wait()

    def close(self) -> None:
        for child in self.children.values():
            if child.poll() is None:
                child.kill()
            child.wait()
