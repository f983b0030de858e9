"""A process that loads: `python -m stormdrill.load.locust --config FILE`, or a worker by its environment alone.

With `--boot` it is told what it is by the first line of its standard input, and speaks over that: a program in a pod.

One generator, the master of several, or one of its workers. Started by the keeper, spoken to by the runner over a
socket; end of file there means that the runner is gone, and ends this process at once. A worker on another machine has
no such socket, but $STORMDRILL_LOAD_MASTER (host:port), $STORMDRILL_LOAD_NAME, $STORMDRILL_LOAD_TOKEN and perhaps
$STORMDRILL_LOAD_WAIT (seconds). Exit codes: 0 asked to end, 1 the load could not go on, 2 the locustfile is at fault or
the worker was refused, 3 it was left alone by its master.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import gevent
import msgspec
from gevent.event import Event

from stormdrill.load.locust.boot import booted
from stormdrill.load.locust.control import Control
from stormdrill.load.locust.driver import now
from stormdrill.load.locust.locustfile import BadLocustfileError
from stormdrill.load.locust.sender import Sender
from stormdrill.load.messages import (
    PROGRESS_EVERY_S,
    RUNNER_SILENT_AFTER_S,
    Begin,
    Config,
    End,
    Failed,
    FromRunner,
    Generator,
    Master,
    Ready,
    Worker,
    frozen,
)
from stormdrill.load.vigil import Silences
from stormdrill.load.worker_environment import worker_of

if TYPE_CHECKING:
    from collections.abc import Sequence


class Process:
    """The life of one generator that works alone, from its configuration to its end."""

    def __init__(self, config: Generator) -> None:
        self._config = config
        self._control = Control(config.control)
        self._sender: Sender | None = None
        self._gone = Event()
        self._silences = Silences(RUNNER_SILENT_AFTER_S, PROGRESS_EVERY_S)

    def run(self) -> int:
        signal.signal(signal.SIGTERM, self._terminated)
        try:
            self._sender = Sender(self._config)
        except (BadLocustfileError, ValueError) as error:
            logging.error("%s", error)
            self._control.send(Failed(str(error), input=True))
            return 2
        why = self._sender.get_ready(self._sender.environment.create_local_runner())
        if why:
            self._control.send(Failed(why, input=True))
            return 2
        self._control.send(Ready(os.getpid(), self._sender.max_in_flight))
        self._control.listen(self._hear, self._orphaned)
        return self._until_ended(self._sender)

    def _until_ended(self, sender: Sender) -> int:
        source = sender.source
        while not source.finished.wait(PROGRESS_EVERY_S):
            if source.begun:
                self._control.send(source.progress())
            for _, silent_s in self._silences.look(now()):
                source.fail(frozen(silent_s))
        while not source.failure and not source.asked_to_end.wait(PROGRESS_EVERY_S):
            self._control.send(source.progress())
        if source.failure:
            self._control.send(Failed(source.failure))
            return 1
        self._control.send(sender.summary())
        # The runner ends this process through the keeper, so that its end is an expected one.
        self._control.wait_for_end_of_file()
        return 0

    def _hear(self, message: FromRunner) -> None:
        assert self._sender is not None
        self._silences.heard("runner", now())
        match message:
            case Begin():
                epoch_s = message.epoch_mono_ms / 1e3
                at = datetime.fromtimestamp(datetime.now(UTC).timestamp() + epoch_s - now(), UTC).isoformat()
                self._sender.begin(epoch_s, epoch_mono_ns=round(message.epoch_mono_ms * 1e6), epoch_at=at)
            case End():
                last_s = message.last_intended_mono_ms / 1e3
                self._sender.source.end(last_s, message.timeout_s, retries=message.retries)

    def _orphaned(self) -> None:
        """The runner is gone, or has what it wanted: what was recorded is kept, nothing more is sent."""
        if self._sender is None:
            os._exit(1)
        if self._sender.source.begun:
            self._sender.source.flush()
        os._exit(0 if self._sender.source.finished.is_set() else 1)

    def _terminated(self, _signal: int, _frame: FrameType | None) -> None:
        self._orphaned()


def life_of(config: Config) -> int:
    match config:
        case Generator():
            return Process(config).run()
        case Master():
            from stormdrill.load.locust.master import MasterProcess

            return MasterProcess(config).run()
        case Worker():
            from stormdrill.load.locust.worker import WorkerProcess

            return WorkerProcess(config).run()


def _told(path: Path | None) -> Config:
    return msgspec.json.decode(path.read_bytes(), type=Config) if path else worker_of(os.environ)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m stormdrill.load.locust", description="A load generator.")
    parser.add_argument("--config", type=Path, help="left out: a worker, told by its environment where its master is")
    parser.add_argument("--boot", action="store_true", help="be told on standard input, and answer on standard output")
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    given = parser.parse_args(arguments)
    try:
        life = booted().run if given.boot else partial(life_of, _told(given.config))
    except (ValueError, msgspec.MsgspecError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    status = life()
    sys.stdout.flush()
    sys.stderr.flush()
    # Greenlets that hang in a system that hangs must not keep the process.
    os._exit(status)


if __name__ == "__main__":
    gevent.get_hub()
    sys.exit(main(sys.argv[1:]))
