"""A load that is sent from inside of the cluster: a master and its workers in pods, their records brought home.

The runner speaks to each over the standard input and output of a program that it started by exec, through the API
server; requests and what workers and master tell each other stay in the cluster. Records come home while the load goes
on, so that guards see them, and are checked against the SHA-256 that each worker tells at its end.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

from msgspec.structs import replace

from stormdrill.cluster.api import Api
from stormdrill.errors import Refused, SystemNotReady
from stormdrill.load.clocks import Compared, Look, compare, drifted
from stormdrill.load.cluster import MASTER, ClusterLoad, Crew
from stormdrill.load.in_cluster_line import PodProgram
from stormdrill.load.in_cluster_pods import Place, Pods
from stormdrill.load.launcher import StopRun, Tell, check_locustfile
from stormdrill.load.messages import (
    RUNNER_SILENT_AFTER_S,
    Alive,
    Ask,
    Begin,
    Clock,
    File,
    FromGenerator,
    Generator,
    Master,
    Now,
    Progress,
    Records,
    Whole,
)
from stormdrill.load.process import LOST_STOP_LIMIT_S, Part, Spawner
from stormdrill.model.event import Warned

LEAD_MS = 1_000.0
MEET_LIMIT_S = 60.0
"""From when all pods run to when all workers are ready: Locust is imported in each, on whatever cores are left."""
SILENT_AFTER_S = RUNNER_SILENT_AFTER_S
"""As patient as the master is with the runner: between them are the API server and two kubelets."""
FILES_LIMIT = 16_000_000
"""Bytes of locustfile and traces together, which pass the API server to each start."""
LOOKS = 24
_LOOK_LIMIT_S = 1.0


class Inside(NamedTuple):
    """From which cluster, and where in it."""

    api: Api
    place: Place
    least_workers: int = 1
    """Unless the experiment says how many."""


class InClusterLoad(ClusterLoad):
    """Generators in pods of a cluster (`ports.Load`). `crew.local` says how many.

    Raises Refused for a locustfile that isn't Python, files that are too large, and hosts of other machines.
    """

    lead_ms = LEAD_MS
    meet_limit_s = MEET_LIMIT_S
    silent_after_s = SILENT_AFTER_S

    def __init__(
        self,
        directory: str | Path,
        config: Generator,
        crew: Crew,
        *,
        inside: Inside,
        tell: Tell,
        stop_run: StopRun,
        announce: Callable[[str], object],
    ) -> None:
        if crew.hosts or crew.listen:
            raise Refused("load hosts: a load that is sent from the cluster has no workers on other machines; leave it")
        check_locustfile(config.locustfile)
        self._pods = Pods(inside.api, inside.place)
        self._files = _files(Path(directory), config)
        self._answers: dict[int, float] = {}
        self._answered = threading.Condition()
        self._before: Compared | None = None
        """The master's clock against the runner's."""
        self._after: list[Clock] = []
        """What the master found at the end, until its own clock is compared again."""
        self._homes: dict[str, BinaryIO] = {}
        self._turns = itertools.cycle(f"generator-{number}" for number in range(crew.local))
        super().__init__(directory, config, crew, tell=tell, stop_run=stop_run, announce=announce)

    def _part(self, name: str) -> Part:
        return PodProgram(name, self._directory, self._pods, self._files if name == MASTER else ())

    # --- before ------------------------------------------------------------------------------------------------

    def prepare(self, keeper: Spawner) -> None:
        """Make the pods, start master and workers in them, and wait until all are ready.

        Raises Refused when the locustfile is at fault, SystemNotReady when somebody dies or is missing.
        """
        (self._directory / "load").mkdir(exist_ok=True)
        try:
            self._pods.make((MASTER, *self._local))
            self._host = self._pods.pod_of(MASTER).ip
            super().prepare(keeper)
        except (Refused, SystemNotReady):
            self._stop_all(LOST_STOP_LIMIT_S)
            raise

    def _master_config(self) -> Master:
        load = replace(self._config, control="", locustfile=Path(self._config.locustfile).name)
        return replace(super()._master_config(), directory="", local=0, load=load, sends_records=True)

    def _open(self, keeper: Spawner, until_s: float) -> None:
        super()._open(keeper, until_s)
        self._before = self._compare()
        if self._before is None:
            raise SystemNotReady(
                "the clock of the load's master could not be compared with this one: no answer in time"
            )

    def _begin_at(self, epoch_mono_ms: float) -> Begin:
        assert self._before is not None
        return Begin(epoch_mono_ms, self._before.offset_ms, self._before.error_ms)

    # --- while it goes on --------------------------------------------------------------------------------------

    def _hear(self, message: FromGenerator) -> None:
        match message:
            case Now():
                with self._answered:
                    self._answers[message.number] = message.mono_s
                    self._answered.notify_all()
            case Records():
                self._keep(message)
            case Whole():
                self._check_whole(message)
            case Clock():
                self._clock(message)
            case Progress():
                # on this clock, whatever that of its sender is
                super()._hear(replace(message, mono_ms=time.monotonic() * 1e3))
            case _:
                super()._hear(message)

    def _keep(self, message: Records) -> None:
        """The record file as the worker writes it; see `wire.Report`."""
        if message.worker not in self._names or message.worker in self._lost:
            return
        try:
            file = self._homes.get(message.worker)
            if file is None:
                if not message.head:
                    return
                file = self._homes[message.worker] = self._path(message.worker).open("xb", buffering=0)
                file.write(message.head)
            elif message.head:
                # in place, and before the records that need what it has learnt
                os.pwrite(file.fileno(), message.head, 0)
            file.write(message.rows)
        except OSError as error:
            self.lost(message.worker, f"its records can't be written: {error}")

    def _check_whole(self, message: Whole) -> None:
        if message.worker not in self._names:
            return
        why = _damage(self._homes.pop(message.worker, None), self._path(message.worker), message)
        if why:
            self.lost(message.worker, why)

    def _show_life(self) -> None:
        """To the workers too, one after the other: a stream on which nothing is said is cut by what lies on the way."""
        super()._show_life()
        self._workers[next(self._turns)].send(Alive())

    # --- clocks ------------------------------------------------------------------------------------------------

    def _compare(self) -> Compared | None:
        """The master's clock with this one; None when nobody answers."""
        looks: list[Look] = []
        while len(looks) < LOOKS and (look := self._ask(len(looks))) is not None:
            looks.append(look)
        return compare(looks) if looks else None

    def _ask(self, number: int) -> Look | None:
        with self._answered:
            self._answers.clear()
        sent_s = time.monotonic()
        if not self._master.send(Ask(number)):
            return None
        with self._answered:
            if not self._answered.wait_for(lambda: number in self._answers, _LOOK_LIMIT_S):
                return None
            return Look(sent_s, self._answers[number], time.monotonic())

    def _clock(self, message: Clock) -> None:
        """The master compared a worker's clock with its own."""
        if message.when == "after":
            self._after.append(message)
        elif self._before is not None:
            self._tell_clock(message, self._before)

    def _tell_clock(self, message: Clock, master: Compared) -> None:
        """Against this one: the offsets add up, and so do the errors."""
        super()._hear(
            replace(
                message,
                offset_ms=round(message.offset_ms + master.offset_ms, 4),
                error_ms=round(message.error_ms + master.error_ms, 4),
                round_trip_ms=round(message.round_trip_ms + master.round_trip_ms, 4),
            )
        )

    # --- the end -----------------------------------------------------------------------------------------------

    def _before_stop(self) -> None:
        if not self._after or self._before is None or MASTER in self._lost:
            return
        again = self._compare()
        after, self._after = self._after, []
        for message in after:
            if again is None:
                self._lost.setdefault(message.worker, "the clock of its master could not be compared after the load")
            else:
                self._tell_clock(message, drifted(self._before, again))

    def _stop_all(self, limit_s: float | None = None) -> None:
        """What can't be taken away now ends by its deadline, and goes with the run's ledger."""
        super()._stop_all(limit_s)
        if left := self._pods.remove():
            where = f"in namespace {self._pods.namespace}, until their deadline"
            self._tell(Warned(f"jobs of the load are left {where}: {left}"))
        for file in self._homes.values():
            file.close()


def _damage(file: BinaryIO | None, path: Path, message: Whole) -> str:
    """Why what arrived isn't what the worker wrote; empty when it is."""
    if file is None:
        return "" if message.size == 0 else f"none of its {message.size:,} bytes of records arrived"
    os.fsync(file.fileno())
    file.close()
    data = path.read_bytes()
    if len(data) != message.size:
        return f"{len(data):,} of its {message.size:,} bytes of records arrived"
    return "" if hashlib.sha256(data).hexdigest() == message.sha256 else "its records arrived changed"


def _files(directory: Path, config: Generator) -> tuple[File, ...]:
    """The locustfile, and whatever else the profile names. Raises Refused where they are too large."""
    parts = config.profile.parts if config.profile is not None else ()
    traces = dict.fromkeys(part.trace.file for part in parts if part.trace is not None)
    path = Path(config.locustfile)
    files = [_file(path.name, path), *(_file(name, directory / name) for name in traces)]
    size = sum(len(file.data) for file in files)
    if size > FILES_LIMIT:
        raise Refused(
            f"locustfile and traces are {size:,} bytes together, and at most {FILES_LIMIT:,} are brought into a "
            "cluster; thin the trace out, or shorten it"
        )
    return tuple(files)


def _file(name: str, path: Path) -> File:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Refused(f"{path}: can't be read: {error.strerror}") from error
    return File(name, data, hashlib.sha256(data).hexdigest())


__all__ = ["InClusterLoad", "Inside", "Place"]
