"""Several generators as the runner sees them: one master, workers on this machine, and workers that people start."""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from msgspec.structs import replace

from stormdrill.errors import Refused, SystemNotReady
from stormdrill.load.closing import Left, close_records, told
from stormdrill.load.launcher import KEEPER_LIMIT_S, StopRun, Tell, check_locustfile, live_of, started
from stormdrill.load.messages import (
    Alive,
    Begin,
    Clock,
    End,
    Ended,
    Failed,
    FromGenerator,
    Generator,
    Listening,
    Lost,
    Master,
    Progress,
    Ready,
    Secret,
    Worker,
)
from stormdrill.load.process import LOST_STOP_LIMIT_S, GeneratorProcess, Part, Spawner
from stormdrill.load.sealed import LEAST_TOKEN, TOKEN_VARIABLE, new_token
from stormdrill.load.vigil import SILENT_AFTER_S, Vigil
from stormdrill.load.worker_environment import address_of
from stormdrill.model.event import Event, LoadClockCompared, LoadStarted, LoadWorkerLost
from stormdrill.ports import LiveLoad

MASTER = "generator-master"
LEAD_MS = 500.0
"""Until the first arrival: each worker must have been told, on whatever machine."""
MEET_LIMIT_S = 20.0
HOSTS_LIMIT_S = 120.0
"""How long the run waits for workers that a person starts."""
LOOPBACK = "127.0.0.1"
ANYWHERE = ("0.0.0.0", "*")  # noqa: S104  (what a person may ask for)
_ANSWER_MARGIN_S = 8.0
"""Beyond the limit that `end` gives: the last records sent, clocks compared again."""


class Crew(NamedTuple):
    """Who sends: so many workers of this machine, and those of other machines by name."""

    local: int
    hosts: tuple[str, ...] = ()
    listen: str = ""
    """host:port where the master waits; empty: on loopback, at any port."""
    token: str = ""
    """Preset; empty: one is made."""
    ceiling_per_s: float = 0.0
    """Of one worker, as it was measured."""


class ClusterLoad:
    """Several generators (`ports.Load`). `config` is what each of them is to send, but for its number.

    Raises Refused for an address that can't be listened at, a token that is too short, entries that another machine
    can't reach, and a locustfile that isn't Python.
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
        tell: Tell,
        stop_run: StopRun,
        announce: Callable[[str], object],
        hosts_limit_s: float = HOSTS_LIMIT_S,
        through: str = "",
    ) -> None:
        """`announce` is told, for a person, how to start the workers of other machines; it holds the token."""
        check_locustfile(config.locustfile)
        self._directory = Path(directory)
        self._crew = crew
        self._local = tuple(f"generator-{number}" for number in range(crew.local))
        self._names = self._local + crew.hosts
        self._host, self._port = _place(crew.listen)
        self._config = config
        self._check()
        self._token = crew.token or new_token()
        self._tell, self._stop_run, self._announce = tell, stop_run, announce
        self._hosts_limit_s = hosts_limit_s
        self._through = through
        self._master = self._part(MASTER)
        self._workers = {name: self._part(name) for name in self._local}
        self._vigil = Vigil(self._silent, self._show_life, self.silent_after_s)
        self._heard = threading.Condition()
        self._listening: Listening | None = None
        self._ready: set[str] = set()
        self._failed: Failed | None = None
        self._ended: dict[str, Ended] = {}
        self._lost: dict[str, str] = {}
        self._progress: dict[str, deque[Progress]] = {name: deque(maxlen=12) for name in self._names}
        self._begun = self._ending = False
        self._over = False
        """All is told, or given up: ends are expected."""

    def _show_life(self) -> None:
        self._master.send(Alive())

    def _part(self, name: str) -> Part:
        return GeneratorProcess(name, self._directory)

    def _check(self) -> None:
        token = self._crew.token
        if not self._config.entries:
            raise Refused("the load has no entry: the system's entry service has no instance with an address")
        if token and len(token) < LEAST_TOKEN:
            raise Refused(f"${TOKEN_VARIABLE} has {len(token)} letters; set at least {LEAST_TOKEN}, or leave it out")
        if len(set(self._names)) != len(self._names):
            raise Refused(f"load hosts: {', '.join(self._crew.hosts)} are not all different, or named generator-N")
        near = [entry for entry in self._config.entries if _only_here(entry)]
        if self._crew.hosts and self._crew.listen and near and not _only_here(f"http://{self._host}"):
            raise Refused(
                f"load hosts: {near[0]} can't be reached from another machine; let the system listen on an address "
                "that it can, or leave hosts out"
            )

    # --- before ------------------------------------------------------------------------------------------------

    def prepare(self, keeper: Spawner) -> None:
        """Start master and workers, and wait until all are ready, those of other machines too.

        Raises Refused when the locustfile or the address is at fault, SystemNotReady when somebody dies or is missing.
        """
        until_s = time.monotonic() + self.meet_limit_s
        try:
            self._open(keeper, until_s)
            for name in self._local:
                self._start(keeper, name)
            for name in self._local:
                self._greet(name, until_s)
            self._await_all(until_s)
        except (Refused, SystemNotReady):
            self._stop_all(LOST_STOP_LIMIT_S)
            raise

    def _open(self, keeper: Spawner, until_s: float) -> None:
        self._master.start(keeper, self._master_config(), "master.json")
        if not self._master.meet(until_s, self._hear, lambda: self._cut(MASTER)):
            raise SystemNotReady(f"the master of the load did not come; {self._master.last_lines()}")
        self._master.send(Secret(self._token))
        with self._heard:
            self._heard.wait_for(lambda: self._listening or self._trouble(), max(until_s - time.monotonic(), 0))
        self._raise_trouble()
        if self._listening is None:
            raise SystemNotReady(f"the master of the load does not listen; {self._master.last_lines()}")

    def _master_config(self) -> Master:
        return Master(
            control=self._master.control,
            directory=str(self._directory),
            host=self._host,
            port=self._port,
            names=self._names,
            local=len(self._local),
            load=replace(self._config, control=""),
        )

    def _start(self, keeper: Spawner, name: str) -> None:
        assert self._listening is not None
        process = self._workers[name]
        host = LOOPBACK if self._host in ANYWHERE else self._host
        worker = Worker(name, host, self._listening.port, control=process.control)
        process.start(keeper, worker, f"{name}.json")

    def _greet(self, name: str, until_s: float) -> None:
        process = self._workers[name]
        if not process.meet(until_s, self._hear, lambda: self._cut(name)):
            raise SystemNotReady(f"{name} did not come; {process.last_lines()}")
        process.send(Secret(self._token))

    def _await_all(self, until_s: float) -> None:
        if self._crew.hosts:
            until_s = time.monotonic() + self._hosts_limit_s
            self._announce(self._command())
        with self._heard:
            self._heard.wait_for(
                lambda: len(self._ready) == len(self._names) or self._trouble(), max(until_s - time.monotonic(), 0)
            )
        self._raise_trouble()
        missing = [name for name in self._names if name not in self._ready]
        if missing:
            assert self._listening is not None
            place = f"{self._listening.host}:{self._listening.port}"
            limit_s = self._hosts_limit_s if self._crew.hosts else self.meet_limit_s
            raise SystemNotReady(
                f"load workers are missing: {', '.join(missing)} never became ready ({place} waited {limit_s:g} s for "
                "them)"
            )

    def _command(self) -> str:
        assert self._listening is not None
        # at every address of this machine: a name that the others may know it by
        host = socket.gethostname() if self._listening.host in ANYWHERE else self._listening.host
        lines = ["the load waits for its workers; on each of their machines:"]
        lines += [
            f"  {TOKEN_VARIABLE}={self._token} stormdrill load worker "
            f"--master {host}:{self._listening.port} --name {name}"
            for name in self._crew.hosts
        ]
        return "\n".join(lines)

    def _trouble(self) -> bool:
        return self._failed is not None or any(name in self._lost for name in (MASTER, *self._local))

    def _raise_trouble(self) -> None:
        if self._failed is not None:
            text = f"{self._failed.worker}: {self._failed.text}" if self._failed.worker else self._failed.text
            raise Refused(text) if self._failed.input else SystemNotReady(f"the load is not ready: {text}")
        for name, why in self._lost.items():
            if name in self._workers or name == MASTER:
                process = self._workers.get(name, self._master)
                raise SystemNotReady(f"{name} died at once ({why}); {process.last_lines()}")

    # --- while it goes on --------------------------------------------------------------------------------------

    def begin(self, epoch_mono_ms: float) -> LoadStarted:
        """The first arrival counts from here; lies `lead_ms` in the future.

        Raises SystemNotReady for a worker that went since it was ready, Refused when its locustfile is at fault.
        """
        try:
            with self._heard:
                self._raise_trouble()
                gone = [name for name in self._names if name not in self._ready]
                if gone:
                    raise SystemNotReady(f"load workers are missing: {', '.join(gone)} went before the load began")
                self._begun = True  # from here on whoever is lost is told of
        except (Refused, SystemNotReady):
            self._stop_all(LOST_STOP_LIMIT_S)
            raise
        self._master.send(self._begin_at(epoch_mono_ms))
        self._vigil.heard(MASTER)
        self._vigil.start()
        return started(self._names, self._config, epoch_mono_ms, self._crew.ceiling_per_s, self._through)

    def _begin_at(self, epoch_mono_ms: float) -> Begin:
        return Begin(epoch_mono_ms)

    def live(self) -> LiveLoad:
        """Counts of all workers' last second."""
        with self._heard:
            reports = [list(mine) for name, mine in self._progress.items() if name not in self._lost]
        return live_of(reports, time.monotonic() * 1e3)

    @property
    def generator_cpu_s(self) -> float:
        """CPU time that the workers say they used from begin to end."""
        return sum(ended.cpu_s for ended in self._ended.values())

    def records(self) -> Sequence[str]:
        """Paths of the record files, whether or not they exist yet."""
        return tuple(str(self._path(name)) for name in self._names)

    def lost(self, instance: str, detail: str) -> None:
        """A process of this machine exited, a worker fell silent, or the master did: nothing more is sent."""
        with self._heard:
            over = instance in self._ended or (self._ending and self._all_told())
            if over or self._over or instance in self._lost:
                return
            known = MASTER in self._lost  # then the workers' ends are its consequence
            self._lost[instance] = detail
            self._heard.notify_all()
        if known or not self._begun:
            return
        if instance == MASTER:
            self._vigil.stop()
        else:
            self._master.send(Lost(instance, detail))
        file = self._file(instance) if instance in self._names else ""
        self._tell(LoadWorkerLost(instance, file, detail))
        who = f"the load's master {instance}" if instance == MASTER else f"load worker {instance}"
        self._stop_run(f"{who} was lost: {detail}")
        # What is frozen must not go on when it thaws; without a master nobody may.
        for name in self._local if instance == MASTER else (instance,):
            if name in self._workers:
                self._workers[name].stop(LOST_STOP_LIMIT_S)
        if instance == MASTER:
            self._master.stop(LOST_STOP_LIMIT_S)

    def _cut(self, instance: str) -> None:
        """Its socket is closed. The keeper, whose child it is, may know a moment later how it ended."""
        with self._heard:
            self._heard.wait_for(lambda: self._over or instance in self._lost, KEEPER_LIMIT_S)
        self.lost(instance, self._workers.get(instance, self._master).why_gone())

    def _silent(self, instance: str, for_s: float) -> None:
        self.lost(instance, f"nothing was heard of it for {for_s:.1f} s")

    def _hear(self, message: FromGenerator) -> None:
        self._vigil_heard(message)
        match message:
            case Clock():
                self._tell(
                    LoadClockCompared(
                        worker=message.worker,
                        file=self._file(message.worker),
                        when=message.when,
                        boot_id=message.boot_id,
                        offset_ms=message.offset_ms,
                        error_ms=message.error_ms,
                        round_trip_ms=message.round_trip_ms,
                    )
                )
            case Lost() | Failed():
                self._gone(message)
            case _:
                self._note(message)

    def _gone(self, message: Lost | Failed) -> None:
        """Before the load began a person may have stopped a worker: it may come again. `begin` looks who is there."""
        failed = message if isinstance(message, Failed) else None
        with self._heard:
            if not self._begun:
                if message.worker in self._crew.hosts and not (failed and failed.input):
                    self._ready.discard(message.worker)
                    return
                if failed:
                    self._failed = self._failed or failed
                    self._heard.notify_all()
                    return
        self.lost(message.worker or MASTER, message.text if isinstance(message, Failed) else message.why)

    def _note(self, message: FromGenerator) -> None:
        with self._heard:
            match message:
                case Listening():
                    self._listening = message
                case Ready():
                    self._ready.add(message.worker)
                case Progress() if message.worker in self._progress:
                    self._progress[message.worker].append(message)
                case Ended():
                    self._ended[message.worker] = message
            self._heard.notify_all()

    def _vigil_heard(self, message: FromGenerator) -> None:
        if self._begun and isinstance(message, Alive | Progress):
            self._vigil.heard(MASTER)

    # --- the end -----------------------------------------------------------------------------------------------

    def end(self, last_intended_mono_ms: float, timeout_s: float, *, retries: bool = True) -> Sequence[Event]:
        """No arrivals after that; waits for what is in flight, gathers, ends all processes, closes their records.

        `retries`: an arrival that waits to be tried again still may be, until its deadline.
        """
        self._master.send(End(last_intended_mono_ms, timeout_s, retries))
        until_s = max(last_intended_mono_ms / 1e3, time.monotonic()) + timeout_s + _ANSWER_MARGIN_S
        with self._heard:
            self._ending = True
            if self._begun:
                self._heard.wait_for(self._all_told, max(until_s - time.monotonic(), 0))
            for name in self._names:
                if self._begun and name not in self._ended:
                    why = (
                        "its master was lost" if MASTER in self._lost else "it did not answer when it was asked to end"
                    )
                    self._lost.setdefault(name, why)
        self._vigil.stop()
        self._before_stop()
        self._stop_all()
        return close_records(self._directory, [self._left(name) for name in self._names])

    def _before_stop(self) -> None:
        """All is told that will be, and who told it is still there."""

    def _all_told(self) -> bool:
        return MASTER in self._lost or all(name in self._ended or name in self._lost for name in self._names)

    def _left(self, name: str) -> Left:
        ended = None if name in self._lost else self._ended.get(name)
        scheduled = self._progress[name][-1].scheduled if self._progress[name] else 0
        return Left(name, self._path(name), ended, scheduled, told(ended) if ended else self._lost.get(name, ""))

    def _stop_all(self, limit_s: float | None = None) -> None:
        self._over = True
        for process in (*self._workers.values(), self._master):
            process.stop() if limit_s is None else process.stop(limit_s)

    def _file(self, name: str) -> str:
        return f"load/worker-{self._names.index(name)}.records"

    def _path(self, name: str) -> Path:
        return self._directory / self._file(name)


def _place(listen: str) -> tuple[str, int]:
    if not listen:
        return LOOPBACK, 0
    try:
        return address_of(listen)
    except ValueError as error:
        raise Refused(f"load listen: {error}") from error


def _only_here(entry: str) -> bool:
    host = urlsplit(entry).hostname or ""
    return host == "localhost" or host.startswith("127.") or host == "::1"
