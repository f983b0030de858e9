"""One generator as the runner sees it: starts it through the keeper, speaks to it, closes its records."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from stormdrill.errors import Problem, Refused, SystemNotReady
from stormdrill.load.ceiling import CEILING_PER_S, refuse_beyond_ceiling
from stormdrill.load.closing import Left, close_records, told
from stormdrill.load.messages import Alive, Begin, End, Ended, Failed, FromGenerator, Generator, Progress, Ready
from stormdrill.load.process import LOST_STOP_LIMIT_S, GeneratorProcess, Spawner
from stormdrill.load.vigil import Vigil
from stormdrill.model.event import Event, LoadStarted, LoadWorkerLost
from stormdrill.model.profile import Profile
from stormdrill.ports import LiveLoad
from stormdrill.store.identity import boot_id

INSTANCE = "generator-0"
READY_LIMIT_S = 20.0
LEAD_MS = 100.0
KEEPER_LIMIT_S = 0.25
_FILE = "load/worker-0.records"
_SILENT_LIMIT_S = 10.0
_ANSWER_MARGIN_S = 3.0
"""Beyond the limit that `end` gives: closing the records, on a slow disk."""
_SEEN_MS = 1_100.0
"""How far back the live figures look: a second, and the report before it."""

Tell = Callable[[Event], object]
"""Writes down what can't wait for the load's end."""
StopRun = Callable[[str], object]
"""Ends the run, for a reason, when its load is not what was asked for any more."""


def _nobody(_: object) -> None:
    pass


class LocustLoad:
    """One generator (`ports.Load`). `entries` are base URLs, `directory` the run directory.

    Raises Refused when the locustfile can't be read, or the rate is beyond what one generator can send on time.
    """

    lead_ms = LEAD_MS

    def __init__(  # noqa: PLR0913  (what a load is made of)
        self,
        *,
        directory: str | Path,
        run: str,
        profile: Profile | None,
        rate_per_s: float,
        seed: int,
        locustfile: str | Path,
        entries: Sequence[str],
        max_in_flight: int = 2000,
        ceiling_per_s: float | None = CEILING_PER_S,
        users: int = 0,
        spawn_per_s: float = 0.0,
        deadline_s: float = 0.0,
        tell: Tell = _nobody,
        stop_run: StopRun = _nobody,
        through: str = "",
    ) -> None:
        check_locustfile(locustfile)
        if ceiling_per_s is not None and profile is not None:
            refuse_beyond_ceiling(profile, rate_per_s, ceiling_per_s)
        if not entries:
            raise Refused("the load has no entry: the system's entry service has no instance with an address")
        self._directory = Path(directory)
        self._path = self._directory / _FILE
        self._process = GeneratorProcess(INSTANCE, self._directory)
        self._config = Generator(
            control=self._process.control,
            run=run,
            records=str(self._path),
            locustfile=str(locustfile),
            profile=profile,
            rate_per_s=rate_per_s,
            seed=seed,
            entries=tuple(entry.rstrip("/") for entry in entries),
            boot_id=boot_id(),
            max_in_flight=max_in_flight,
            users=users,
            spawn_per_s=spawn_per_s,
            deadline_s=deadline_s,
        )
        self._ceiling_per_s = ceiling_per_s or 0.0
        self._tell, self._stop_run = tell, stop_run
        self._through = through
        self._vigil = Vigil(self._silent, lambda: self._process.send(Alive()))
        self._heard = threading.Condition()
        self._begun = False
        self._ready: Ready | None = None
        self._failed: Failed | None = None
        self._ended: Ended | None = None
        self._gone = ""
        self._progress: deque[Progress] = deque(maxlen=12)

    def prepare(self, keeper: Spawner) -> None:
        """Start the process and wait until its user is ready to send.

        Raises Refused when the locustfile is at fault, SystemNotReady when the process dies or takes too long.
        """
        until_s = time.monotonic() + READY_LIMIT_S
        self._process.start(keeper, self._config, "worker-0.json")
        if self._process.meet(until_s, self._hear, self._lose_line):
            with self._heard:
                self._heard.wait_for(
                    lambda: self._ready or self._failed or self._gone, max(until_s - time.monotonic(), 0)
                )
        if self._ready is not None:
            return
        self._process.close()
        if self._failed is not None and self._failed.input:
            raise Refused(self._failed.text)
        raise SystemNotReady(self._why_not_ready())

    def begin(self, epoch_mono_ms: float) -> LoadStarted:
        """The first arrival counts from here; may lie in the future.

        Raises SystemNotReady when the generator went since it was ready.
        """
        with self._heard:
            if self._gone or self._failed is not None:
                raise SystemNotReady(self._why_not_ready())
            self._begun = True
        self._process.send(Begin(epoch_mono_ms))
        self._vigil.heard(INSTANCE)
        self._vigil.start()
        return started((INSTANCE,), self._config, epoch_mono_ms, self._ceiling_per_s, self._through)

    def live(self) -> LiveLoad:
        """Counts of the generator's last second. All zero while it is silent."""
        with self._heard:
            reports = [] if self._gone else list(self._progress)
        return live_of([reports], time.monotonic() * 1e3)

    @property
    def generator_cpu_s(self) -> float:
        """CPU time that the generator says it used from begin to end; 0 before it ended."""
        return self._ended.cpu_s if self._ended else 0.0

    def records(self) -> Sequence[str]:
        """Paths of the record files, whether or not they exist yet."""
        return (str(self._path),)

    def lost(self, instance: str, detail: str) -> None:
        """The process exited, or does nothing any more; `end` then closes its records as incomplete."""
        with self._heard:
            news = not (self._gone or self._ended)
            self._gone = self._gone or detail
            self._heard.notify_all()
        if news and self._begun:
            self._vigil.stop()
            self._tell(LoadWorkerLost(instance, _FILE, self._detail()))
            self._stop_run(f"the load generator was lost: {self._detail()}")

    def end(self, last_intended_mono_ms: float, timeout_s: float, *, retries: bool = True) -> Sequence[Event]:
        """No arrivals after that; waits for what is in flight, ends the process, closes its records.

        `retries`: an arrival that waits to be tried again still may be, until its deadline.
        A generator that died, failed or doesn't answer is a lost worker, and its file is closed as incomplete.
        """
        self._process.send(End(last_intended_mono_ms, timeout_s, retries))
        self._await_end(max(last_intended_mono_ms / 1e3, time.monotonic()) + timeout_s + _ANSWER_MARGIN_S)
        self._vigil.stop()
        self._process.stop()
        with self._heard:
            scheduled = self._progress[-1].scheduled if self._progress else 0
        return close_records(self._directory, [Left(INSTANCE, self._path, self._ended, scheduled, self._detail())])

    def _await_end(self, until_s: float) -> None:
        """Until it ended, is gone, or fell silent: it reports four times a second for as long as it works."""
        silent_at_s = time.monotonic() + _SILENT_LIMIT_S
        with self._heard:
            while not (self._ended or self._failed or self._gone):
                if self._progress:
                    silent_at_s = max(silent_at_s, self._progress[-1].mono_ms / 1e3 + _SILENT_LIMIT_S)
                remaining_s = min(until_s, silent_at_s) - time.monotonic()
                if remaining_s <= 0:
                    self._gone = "the generator did not answer when it was asked to end"
                else:
                    self._heard.wait(remaining_s)

    def _detail(self) -> str:
        if self._failed is not None:
            return self._failed.text
        return told(self._ended) if self._ended is not None else self._gone

    def _hear(self, message: FromGenerator) -> None:
        with self._heard:
            match message:
                case Ready():
                    self._ready = message
                case Failed():
                    self._failed = message
                case Progress():
                    self._progress.append(message)
                    self._vigil.heard(INSTANCE)
                case Ended():
                    self._ended = message
                    self._vigil.stop()
            self._heard.notify_all()

    def _silent(self, instance: str, for_s: float) -> None:
        self.lost(instance, f"nothing was heard of it for {for_s:.1f} s")
        # A frozen one that thaws would go on where it stood.
        self._process.stop(LOST_STOP_LIMIT_S)

    def _lose_line(self) -> None:
        with self._heard:  # the keeper, whose child it is, may know a moment later how it ended
            self._heard.wait_for(lambda: self._gone or self._ended or self._failed, KEEPER_LIMIT_S)
        self.lost(INSTANCE, "the generator closed its connection: it died or was killed")

    def _why_not_ready(self) -> str:
        if self._failed is not None:
            return f"the load generator is not ready: {self._failed.text}"
        if self._gone or not self._process.alive():
            return f"the load generator died at once; {self._process.last_lines()}"
        return f"the load generator was not ready within {READY_LIMIT_S:g} s; {self._process.last_lines()}"


def started(
    names: Sequence[str], config: Generator, epoch_mono_ms: float, ceiling_per_s: float, through: str = ""
) -> LoadStarted:
    return LoadStarted(
        profile=config.profile.name if config.profile else "",
        workers=len(names),
        epoch_mono_ms=epoch_mono_ms,
        loop="open" if config.profile else "closed",
        ceiling_per_s=ceiling_per_s,
        names=list(names),
        through=through,
    )


def live_of(reports: Sequence[Sequence[Progress]], now_ms: float) -> LiveLoad:
    """The sums of all workers' last second, and the worst lag of any. Each has its reports in the order of time."""
    scheduled = sent = done = dropped = lag_p99_ms = 0.0
    for mine in reports:
        if not mine or mine[-1].mono_ms < now_ms - 2_000:
            continue
        last = mine[-1]
        first = next((item for item in mine if item.mono_ms >= last.mono_ms - _SEEN_MS), last)
        # reports come when they can: what lies between two of them is brought to a second
        share = 1_000 / (last.mono_ms - first.mono_ms) if last.mono_ms > first.mono_ms else 0.0
        scheduled += (last.scheduled - first.scheduled) * share
        sent += (last.sent - first.sent) * share
        done += (last.done - first.done) * share
        dropped += (last.dropped - first.dropped) * share
        lag_p99_ms = max(lag_p99_ms, last.lag_p99_ms)
    return LiveLoad(round(scheduled), round(sent), round(done), round(dropped), lag_p99_ms)


def check_locustfile(path: str | Path) -> None:
    """Raises Refused for a file that isn't there or isn't Python. It isn't run: only the generator does that."""
    try:
        compile(Path(path).read_bytes(), str(path), "exec", dont_inherit=True)
    except OSError as error:
        raise Refused([Problem(str(path), 0, 0, f"the locustfile can't be read: {error.strerror}")]) from error
    except (SyntaxError, ValueError) as error:
        line, column = getattr(error, "lineno", 0) or 0, getattr(error, "offset", 0) or 0
        raise Refused([Problem(str(path), line, column, f"the locustfile is not Python: {error.args[0]}")]) from error
