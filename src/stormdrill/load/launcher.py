"""The generator's process as the runner sees it: starts it through the keeper, speaks to it, closes its records."""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from stormdrill.errors import Problem, Refused, SystemNotReady
from stormdrill.load.ceiling import CEILING_PER_S, refuse_beyond_ceiling
from stormdrill.load.line import GeneratorLine
from stormdrill.load.messages import Begin, End, Ended, Failed, FromGenerator, Generator, Progress, Ready
from stormdrill.model.event import Event, LoadEnded, RecordClosed
from stormdrill.model.profile import Profile
from stormdrill.ports import LiveLoad, Spawned
from stormdrill.store.identity import boot_id, stat
from stormdrill.store.records import Outcome, read_records

INSTANCE = "generator-0"
READY_LIMIT_S = 20.0
_STOP_LIMIT_S = 2.0
_LOG_LINES = 12
_SILENT_LIMIT_S = 10.0
_ANSWER_MARGIN_S = 3.0
"""Beyond the limit that `end` gives: closing the records, on a slow disk."""


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


class _Totals(NamedTuple):
    sent: int
    dropped: int
    unfinished: int
    lag_p99_ms: float


class LocustLoad:
    """One generator (`ports.Load`). `entries` are base URLs, `directory` the run directory.

    Raises Refused when the locustfile can't be read, or the rate is beyond what one generator can send on time.
    """

    def __init__(
        self,
        *,
        directory: str | Path,
        run: str,
        profile: Profile,
        rate_per_s: float,
        seed: int,
        locustfile: str | Path,
        entries: Sequence[str],
        max_in_flight: int = 2000,
        ceiling_per_s: float | None = CEILING_PER_S,
    ) -> None:
        check_locustfile(locustfile)
        if ceiling_per_s is not None:
            refuse_beyond_ceiling(profile, rate_per_s, ceiling_per_s)
        if not entries:
            raise Refused("the load has no entry: the system's entry service has no instance with an address")
        self._directory = Path(directory)
        self._path = self._directory / "load" / "worker-0.records"
        self._line = GeneratorLine()
        self._config = Generator(
            control=self._line.name,
            run=run,
            records=str(self._path),
            locustfile=str(locustfile),
            profile=profile,
            rate_per_s=rate_per_s,
            seed=seed,
            entries=tuple(entry.rstrip("/") for entry in entries),
            boot_id=boot_id(),
            max_in_flight=max_in_flight,
        )
        self._keeper: Spawner | None = None
        self._pid = self._start_ticks = 0
        self._heard = threading.Condition()
        self._ready: Ready | None = None
        self._failed: Failed | None = None
        self._ended: Ended | None = None
        self._gone = ""
        self._progress: deque[Progress] = deque(maxlen=12)

    def prepare(self, keeper: Spawner) -> None:
        """Start the process and wait until its user is ready to send.

        Raises Refused when the locustfile is at fault, SystemNotReady when the process dies or takes too long.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        config = self._path.with_name("worker-0.json")
        config.write_bytes(msgspec.json.encode(self._config))
        until_s = time.monotonic() + READY_LIMIT_S
        self._keeper = keeper
        spawned = keeper.spawn(
            INSTANCE,
            service="load",
            role="generator",
            argv=[sys.executable, "-P", "-m", "stormdrill.load.locust", "--config", str(config)],
            env={},
            cwd=str(self._directory),
            address="",
            labels={},
        )
        self._pid, self._start_ticks = spawned.pid, spawned.start_ticks
        if self._line.accept(spawned.pid, until_s, self._alive):
            self._line.listen(self._hear, self._lose_line)
            with self._heard:
                self._heard.wait_for(
                    lambda: self._ready or self._failed or self._gone, max(until_s - time.monotonic(), 0)
                )
        if self._ready is not None:
            return
        self._line.close()
        if self._failed is not None and self._failed.input:
            raise Refused(self._failed.text)
        raise SystemNotReady(self._why_not_ready())

    def begin(self, epoch_mono_ms: float) -> None:
        """The first arrival counts from here; may lie in the future."""
        self._line.send(Begin(epoch_mono_ms))

    def live(self) -> LiveLoad:
        """Counts of the generator's last second. All zero while it is silent."""
        with self._heard:
            reports = list(self._progress)
        if self._gone or not reports or reports[-1].mono_ms < time.monotonic() * 1e3 - 2_000:
            return LiveLoad()
        last = reports[-1]
        first = next((item for item in reports if item.mono_ms >= last.mono_ms - 1_100), last)
        return LiveLoad(
            scheduled=last.scheduled - first.scheduled,
            sent=last.sent - first.sent,
            done=last.done - first.done,
            dropped=last.dropped - first.dropped,
            lag_p99_ms=last.lag_p99_ms,
        )

    @property
    def generator_cpu_s(self) -> float:
        """CPU time that the generator says it used from begin to end; 0 before it ended."""
        return self._ended.cpu_s if self._ended else 0.0

    def records(self) -> Sequence[str]:
        """Paths of the record files, whether or not they exist yet."""
        return (str(self._path),)

    def lost(self, detail: str) -> None:
        """The conductor learned that the process exited; `end` then closes its records as incomplete."""
        with self._heard:
            self._gone = self._gone or detail
            self._heard.notify_all()

    def end(self, last_intended_mono_ms: float, timeout_s: float) -> Sequence[Event]:
        """No arrivals after that; waits for what is in flight, ends the process, closes its records.

        A generator that died, failed or doesn't answer is a lost worker, and its file is closed as incomplete.
        """
        self._line.send(End(last_intended_mono_ms, timeout_s))
        self._await_end(max(last_intended_mono_ms / 1e3, time.monotonic()) + timeout_s + _ANSWER_MARGIN_S)
        if self._keeper is not None and self._pid:
            self._keeper.stop(INSTANCE, _STOP_LIMIT_S)
        self._line.close()
        return self._close_records()

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

    def _close_records(self) -> Sequence[Event]:
        complete = self._ended is not None
        if not self._path.exists():
            return (LoadEnded(0, 0, 0, 0, 0.0, 0 if complete else 1, self._detail() or "it never began"),)
        totals = _totals(self._path)
        digest, size = _digest(self._path)
        told = self._ended
        scheduled = told.scheduled if told else max(totals.sent + totals.dropped, self._last_scheduled())
        detail = self._detail()
        if told is not None and (told.sent, told.dropped) != (totals.sent, totals.dropped):
            complete = False
            detail = (
                f"the file holds {totals.sent} sent and {totals.dropped} dropped, "
                f"the generator counted {told.sent} and {told.dropped}"
            )
        name = self._path.relative_to(self._directory).as_posix()
        return (
            LoadEnded(
                scheduled=scheduled,
                sent=totals.sent,
                dropped=totals.dropped,
                unfinished=totals.unfinished,
                lag_p99_ms=totals.lag_p99_ms,
                lost_workers=0 if complete else 1,
                detail=detail,
            ),
            RecordClosed(file=name, sha256=digest, bytes=size, complete=complete),
        )

    def _detail(self) -> str:
        if self._failed is not None:
            return self._failed.text
        if self._ended is None:
            return self._gone
        parts = []
        if self._ended.failovers:
            parts.append(f"{self._ended.failovers} requests were refused by one entry and answered by the next")
        if self._ended.errors:
            parts.append(f"serve() went wrong {self._ended.errors} times: {self._ended.first_error}")
        return "; ".join(parts)

    def _last_scheduled(self) -> int:
        with self._heard:
            return self._progress[-1].scheduled if self._progress else 0

    def _hear(self, message: FromGenerator) -> None:
        with self._heard:
            match message:
                case Ready():
                    self._ready = message
                case Failed():
                    self._failed = message
                case Progress():
                    self._progress.append(message)
                case Ended():
                    self._ended = message
            self._heard.notify_all()

    def _lose_line(self) -> None:
        self.lost("the generator closed its connection: it died or was killed")

    def _alive(self) -> bool:
        found = stat(self._pid)
        return found is not None and found.start_ticks == self._start_ticks and found.state not in "ZX"

    def _why_not_ready(self) -> str:
        if self._failed is not None:
            return f"the load generator is not ready: {self._failed.text}"
        if self._gone or not self._alive():
            return f"the load generator died at once; {self._last_lines()}"
        return f"the load generator was not ready within {READY_LIMIT_S:g} s; {self._last_lines()}"

    def _last_lines(self) -> str:
        log = self._directory / "logs" / f"{INSTANCE}.log"
        try:
            lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        except OSError:
            return "it left no log"
        return "its last lines:\n" + "\n".join(lines) if lines else "its log is empty"


def check_locustfile(path: str | Path) -> None:
    """Raises Refused for a file that isn't there or isn't Python. It isn't run: only the generator does that."""
    try:
        compile(Path(path).read_bytes(), str(path), "exec", dont_inherit=True)
    except OSError as error:
        raise Refused([Problem(str(path), 0, 0, f"the locustfile can't be read: {error.strerror}")]) from error
    except (SyntaxError, ValueError) as error:
        line, column = getattr(error, "lineno", 0) or 0, getattr(error, "offset", 0) or 0
        raise Refused([Problem(str(path), line, column, f"the locustfile is not Python: {error.args[0]}")]) from error


def _totals(path: Path) -> _Totals:
    import numpy as np

    try:
        _, rows = read_records(path)
    except ValueError:
        return _Totals(0, 0, 0, 0.0)
    dropped = rows["outcome"] == Outcome.DROPPED
    sent = rows[~dropped]
    # The "higher" of two neighbours: a lag that was really seen, and never a flattering one.
    lag_p99_ms = float(np.quantile(sent["lag_us"], 0.99, method="higher")) / 1e3 if sent.size else 0.0
    return _Totals(
        int(sent.size), int(dropped.sum()), int((rows["outcome"] == Outcome.UNFINISHED).sum()), round(lag_p99_ms, 3)
    )


def _digest(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return digest.hexdigest(), file.tell()
