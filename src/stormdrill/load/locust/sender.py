"""What sends, in its process: a source with its environment, the record file that it writes, and what it cost."""

from __future__ import annotations

import gc
import resource

from locust.runners import Runner

from stormdrill.load.locust.flights import RecordFile
from stormdrill.load.locust.locustfile import environment_for, source_from
from stormdrill.load.locust.source import Terms
from stormdrill.load.messages import Ended, Generator
from stormdrill.store.records import RecordWriter

_SPARE_FILES = 64


class Sender:
    """One worker's part of the load, from its locustfile to its last record. Raises BadLocustfileError."""

    def __init__(self, config: Generator) -> None:
        self._config = config
        self.max_in_flight = room_for(config.max_in_flight)
        terms = Terms(
            run=config.run,
            entries=config.entries,
            worker=config.worker,
            workers=config.workers,
            max_in_flight=self.max_in_flight,
            profile=config.profile,
            rate_per_s=config.rate_per_s,
            seed=config.seed,
            users=config.users,
            spawn_per_s=config.spawn_per_s,
            deadline_s=config.deadline_s,
        )
        self.source = source_from(config.locustfile, terms)
        self.environment = environment_for(self.source, terms)
        self._cpu_at_begin_s = 0.0

    def get_ready(self, runner: Runner) -> str:
        """Returns when it can begin; why it can't, or nothing."""
        self.environment.runner = runner
        for user in self.environment.user_classes:
            user.host = self.environment.host  # as Locust's runners do when they start by themselves
        self.environment.events.init.fire(environment=self.environment, runner=runner, web_ui=None)
        self.source.start(runner)
        self.source.waiting.wait()
        return self.source.failure

    def begin(self, epoch_s: float, *, epoch_mono_ns: int, epoch_at: str, clock_error_ms: float = 0.0) -> None:
        """Send from `epoch_s` on this process's monotonic clock, which is `epoch_mono_ns` on the journal's."""
        config = self._config
        try:
            writer = RecordWriter(
                config.records,
                worker=config.worker,
                boot_id=config.boot_id,
                epoch_mono_ns=epoch_mono_ns,
                epoch_at=epoch_at,
                labels=self.source.labels,
                loop=self.source.loop,
                clock_error_ms=clock_error_ms,
                room=self.source.room,
            )
        except OSError as error:
            self.source.fail(f"the records can't be written: {error}")
            return
        # What was imported stays for ever: the collector need not look at it again while requests are timed.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        self._cpu_at_begin_s = _cpu_s()
        self.source.begin(epoch_s, RecordFile(writer, epoch_s))

    def summary(self) -> Ended:
        return self.source.summary(_cpu_s() - self._cpu_at_begin_s)


def room_for(asked: int) -> int:
    """How many requests can be in flight, after raising the limit on open files as far as it goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = asked + _SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return asked if soft == resource.RLIM_INFINITY else min(asked, soft - _SPARE_FILES)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
