"""The generator's process: `python -m stormdrill.load.locust --config FILE`.

Started by the keeper, spoken to by the runner over a socket; end of file there means that the runner is gone, and ends
this process at once. Exit codes: 0 asked to end, 1 the load could not go on, 2 the locustfile is at fault.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import logging
import os
import resource
import signal
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import gevent
import locust
import msgspec
from locust.env import Environment

from stormdrill.load.arrivals import arrivals
from stormdrill.load.locust.control import Control
from stormdrill.load.locust.driver import Driver, now
from stormdrill.load.locust.flights import RecordFile
from stormdrill.load.locust.user import OpenLoopUser, report_lost
from stormdrill.load.messages import PROGRESS_EVERY_S, Begin, Failed, Generator, Ready
from stormdrill.store.records import LabelClass, RecordWriter

if TYPE_CHECKING:
    from collections.abc import Sequence

_SPARE_FILES = 64


class _BadLocustfileError(Exception):
    """The user's own file can't be used."""


def load_user(path: str) -> type[OpenLoopUser]:
    """The one open-loop user class of a locustfile, imported under a name that shadows no module."""
    file = Path(path)
    # Not Locust's own loader: it would put a file named http.py or platform.py in the place of Python's.
    spec = importlib.util.spec_from_file_location(f"stormdrill_locustfile_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise _BadLocustfileError(f"{path}: not a Python file; write a locustfile that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    sys.path.append(str(file.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise _BadLocustfileError(f"{path}: {_where(error, path)}{type(error).__name__}: {error}") from error
    users = [
        item
        for item in vars(module).values()
        if isinstance(item, type) and issubclass(item, OpenLoopUser) and not item.abstract
    ]
    if len(users) != 1:
        found = ", ".join(user.__name__ for user in users) or "none"
        raise _BadLocustfileError(f"{path}: needs exactly one subclass of OpenLoopUser with serve(); found {found}")
    return users[0]


def _where(error: Exception, path: str) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return f"line {frames[-1].lineno}: " if frames else ""


def room_for(asked: int) -> int:
    """How many requests can be in flight, after raising the limit on open files as far as it goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = asked + _SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return asked if soft == resource.RLIM_INFINITY else min(asked, soft - _SPARE_FILES)


class Process:
    """The life of one generator, from its configuration to its end."""

    def __init__(self, config: Generator) -> None:
        self._config = config
        self._control = Control(config.control)
        self._max_in_flight = room_for(config.max_in_flight)
        planned = arrivals(config.profile, config.rate_per_s, config.seed)
        self._driver = Driver(
            (item for item in planned if item.job % config.workers == config.worker),
            run=config.run,
            streams=config.profile.streams,
            entries=config.entries,
            max_in_flight=self._max_in_flight,
            lost=lambda flight: report_lost(self._environment, flight),
        )

    def run(self) -> int:
        try:
            user = load_user(self._config.locustfile)
        except _BadLocustfileError as error:
            logging.error("%s", error)
            self._control.send(Failed(str(error), input=True))
            return 2
        signal.signal(signal.SIGTERM, self._terminated)
        self._environment = Environment(user_classes=[user], events=locust.events, host=self._config.entries[0])
        self._environment.stormdrill_driver = self._driver
        runner = self._environment.create_local_runner()
        self._environment.events.init.fire(environment=self._environment, runner=runner, web_ui=None)
        self._environment.events.user_error.add_listener(self._user_failed)
        runner.start(1, spawn_rate=1)
        self._driver.waiting.wait()
        if self._driver.failure:
            self._control.send(Failed(self._driver.failure, input=True))
            return 2
        self._control.send(Ready(os.getpid(), self._max_in_flight))
        self._control.listen(begin=self._begin, end=self._driver.end, gone=self._orphaned)
        return self._until_ended()

    def _until_ended(self) -> int:
        while not self._driver.finished.wait(PROGRESS_EVERY_S):
            if self._driver.begun:
                self._control.send(self._driver.progress())
        if self._driver.failure:
            self._control.send(Failed(self._driver.failure))
            return 1
        self._driver.asked_to_end.wait()
        self._control.send(self._driver.summary(_cpu_s() - self._cpu_at_begin))
        # The runner ends this process through the keeper, so that its end is an expected one.
        self._control.wait_for_end_of_file()
        return 0

    _cpu_at_begin = 0.0

    def _begin(self, begin: Begin) -> None:
        config, epoch_s = self._config, begin.epoch_mono_ms / 1e3
        at = datetime.now(UTC).timestamp() + (epoch_s - now())
        classes = [LabelClass(labels=item.labels, deadline_ms=item.deadline_s * 1e3) for item in config.profile.streams]
        try:
            writer = RecordWriter(
                config.records,
                worker=config.worker,
                boot_id=config.boot_id,
                epoch_mono_ns=round(begin.epoch_mono_ms * 1e6),
                epoch_at=datetime.fromtimestamp(at, UTC).isoformat(),
                labels=classes,
            )
        except OSError as error:
            self._driver.fail(f"the records can't be written: {error}")
            return
        # What was imported stays for ever: the collector need not look at it again while requests are timed.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        self._cpu_at_begin = _cpu_s()
        self._driver.begin(epoch_s, RecordFile(writer, epoch_s))

    def _user_failed(self, exception: Exception, **_: object) -> None:
        """`on_start` raised, or the driver itself did, which is a defect of ours."""
        if not self._driver.waiting.is_set():
            where = _where(exception, self._config.locustfile)
            text = f"{self._config.locustfile}: {where}on_start: {type(exception).__name__}: {exception}"
        else:
            text = "".join(traceback.format_exception(exception))
        self._driver.fail(text)
        self._driver.waiting.set()
        self._driver.finished.set()

    def _orphaned(self) -> None:
        """The runner is gone, or has what it wanted: what was recorded is kept, nothing more is sent."""
        self._driver.flush()
        os._exit(0 if self._driver.finished.is_set() else 1)

    def _terminated(self, _signal: int, _frame: FrameType | None) -> None:
        self._orphaned()


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m stormdrill.load.locust", description="One load generator.")
    parser.add_argument("--config", required=True, type=Path)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    config = msgspec.json.decode(parser.parse_args(arguments).config.read_bytes(), type=Generator)
    status = Process(config).run()
    sys.stdout.flush()
    sys.stderr.flush()
    # Greenlets that hang in a system that hangs must not keep the process.
    os._exit(status)


if __name__ == "__main__":
    gevent.get_hub()
    sys.exit(main(sys.argv[1:]))
