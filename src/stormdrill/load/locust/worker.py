"""One of several workers: Locust's own, which takes its orders from the master of its run and from nobody else."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import gevent
import locust
from gevent.event import Event
from locust.env import Environment
from locust.exception import RPCError
from locust.rpc import Message
from locust.runners import WorkerRunner
from msgspec import MsgspecError
from msgspec.structs import replace

from stormdrill import __version__
from stormdrill.load import wire
from stormdrill.load.files import unpack
from stormdrill.load.locust.control import connect
from stormdrill.load.locust.locustfile import BadLocustfileError
from stormdrill.load.locust.sender import Sender
from stormdrill.load.messages import PROGRESS_EVERY_S, Failed, FromRunner, Generator, Secret, Worker
from stormdrill.load.sealed import TOKEN_VARIABLE, NotSealedError, Seal, new_nonce
from stormdrill.load.vigil import SILENT_AFTER_S
from stormdrill.store.identity import boot_id
from stormdrill.store.records import read_header

REFUSED_CODE = 2
ABANDONED_CODE = 3
_TICK_S = 0.05
_ASK_EVERY_S = 1.0

log = logging.getLogger(__name__)
now = time.monotonic


class Node(WorkerRunner):  # type: ignore[misc]  # Locust has no types
    """Locust's worker as the carrier of our messages: it starts users when we say so, and reports no statistics."""

    def __init__(self, environment: Environment, host: str, port: int, wait_s: float) -> None:
        """Raises ConnectionError when no master answers in time."""
        self._wait_s = wait_s
        super().__init__(environment, host, port)

    def connect_to_master(self) -> None:
        until_s = now() + self._wait_s
        while not self.connection_event.is_set():
            if now() >= until_s:
                raise ConnectionError
            self.client.send(Message("client_ready", locust.__version__, self.client_id))
            self.connection_event.wait(timeout=min(_ASK_EVERY_S, max(until_s - now(), 0.01)))
        self.connected = True

    def stats_reporter(self) -> None:
        """Nobody asks: what is judged stands in the records."""

    def logs_reporter(self) -> None:
        """They stay in this worker's own log."""

    def worker(self) -> None:
        while True:
            try:
                message = self.client.recv()
                if message.type in ("ack", "heartbeat", wire.KIND, wire.REFUSED):
                    self.handle_message(message)
            except Exception as error:
                log.debug("not understood: %s", error)
                gevent.sleep(0.01)


class WorkerProcess:
    """The life of one worker, from its name to the master's last word."""

    def __init__(self, config: Worker) -> None:
        self._config = config
        self._control = connect(config.control) if config.control else None
        self._token = os.environ.pop(TOKEN_VARIABLE, "")
        self._told = Event()
        self._nonce = new_nonce()
        self._seal = self._hello_seal = Seal("", "worker")
        self._welcomed = False
        self._heard_s = now()
        self._sender: Sender | None = None
        self._tail: _Tail | None = None
        self._done = False
        self._quit = Event()
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def _begun(self) -> bool:
        return self._sender is not None and self._sender.source.begun

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._terminated)
        if self._control is not None:
            self._control.listen(self._hear_runner, self._orphaned)
            self._told.wait()
        place = f"{self._config.host}:{self._config.port}"
        try:
            bare = Environment(user_classes=[], events=locust.events)
            self._node = Node(bare, self._config.host, self._config.port, self._config.wait_s)
        except (ConnectionError, RPCError):
            return self._give_up(f"nobody waits for load workers at {place}; start the run first, or look at --master")
        bare.runner = self._node
        self._node.register_message(wire.KIND, self._hear)
        self._node.register_message(wire.REFUSED, self._refused)
        self._hello_seal = Seal(self._token, "worker")
        hello = wire.Hello(self._config.name, self._nonce, __version__, boot_id())
        self._post(self._hello_seal.close(wire.pack(hello)))
        return self._until_quit()

    def _until_quit(self) -> int:
        """Says four times a second that it lives, how far it is, and what it has recorded."""
        ticked_s = reported_s = now()
        while not self._quit.wait(_TICK_S):
            at_s = now()
            held_up_s, ticked_s = at_s - ticked_s, at_s
            if self._begun and held_up_s > SILENT_AFTER_S:
                # Frozen for so long, it has been given up; what has become due meanwhile must not be sent in a burst.
                return self._give_up(f"this process stood still for {held_up_s:.1f} s: its master has given it up")
            self._heard_s += max(held_up_s - 2 * _TICK_S, 0.0)
            if self._welcomed and at_s - self._heard_s > SILENT_AFTER_S:
                if self._done:  # the last word was lost with whom it was of
                    self._leave()
                    continue
                return self._give_up(f"nothing was heard of the master for {at_s - self._heard_s:.1f} s")
            if self._welcomed and at_s - reported_s >= PROGRESS_EVERY_S - 0.01:
                reported_s = at_s
                self._report()
        if self._control is not None:
            # The runner ends this process through the keeper, so that its end is an expected one.
            self._control.wait_for_end_of_file()
        return 0

    def _report(self) -> None:
        sender = self._sender
        if sender is None or self._done:
            self._say(wire.Report())
            return
        finished = sender.source.finished.is_set()
        if sender.source.failure and (finished or not self._begun):
            self._say(wire.Failed(sender.source.failure))
            self._done = True
            return
        head, rows = self._tail.read() if self._tail is not None else (b"", b"")
        self._say(wire.Report(sender.source.progress() if self._begun else None, head, rows))
        if finished and sender.source.asked_to_end.is_set():
            self._done = True
            self._say(wire.Done(sender.summary(), *(self._tail.whole() if self._tail else (0, ""))))

    # --- what is heard -----------------------------------------------------------------------------------------

    def _hear_runner(self, message: FromRunner) -> None:
        if isinstance(message, Secret):
            self._token = message.token
            self._told.set()

    def _refused(self, environment: Environment, msg: Any) -> None:
        if not self._welcomed:
            sys.exit(self._give_up(f"refused by the run: {msg.data}", REFUSED_CODE))

    def _hear(self, environment: Environment, msg: Any) -> None:
        try:
            seal = self._seal if self._welcomed else self._hello_seal
            message = wire.unpack_from_master(seal.open(msg.data))
        except (NotSealedError, MsgspecError) as error:
            log.warning("a message that is not the master's: %s", error)
            return
        self._heard_s = now()
        match message:
            case wire.Welcome():
                self._enter(message)
            case wire.Job():
                gevent.spawn(self._guarded, self._prepare, message.config, message)
            case wire.Ping():
                self._say(wire.Pong(message.number, now()))
            case wire.Begin() if self._sender is not None:
                self._sender.begin(
                    message.epoch_s,
                    epoch_mono_ns=message.epoch_mono_ns,
                    epoch_at=message.epoch_at,
                    clock_error_ms=message.clock_error_ms,
                )
            case wire.End() if self._sender is not None:
                self._sender.source.end(message.last_intended_s, message.timeout_s, retries=message.retries)
            case wire.Quit():
                self._leave()

    def _enter(self, welcome: wire.Welcome) -> None:
        if welcome.echo != self._nonce:
            log.warning("an old answer of a master")
            return
        self._seal = Seal(self._token, "worker", self._nonce, welcome.nonce)
        self._welcomed = True
        self._tell(f"{self._config.name} is in; it waits for the others and for the run")

    def _guarded(self, work: Callable[[Generator, wire.Job], None], config: Generator, job: wire.Job) -> None:
        try:
            work(config, job)
        except (BadLocustfileError, ValueError) as error:
            log.error("%s", error)
            self._say(wire.Failed(str(error), input=True))
        except OSError as error:
            self._say(wire.Failed(f"can't be prepared: {error}"))

    def _prepare(self, config: Generator, job: wire.Job) -> None:
        if job.locustfile is not None:
            config = self._unpack(config, job)
        sender = Sender(config)
        self._node.environment = sender.environment
        why = sender.get_ready(self._node)
        if why:
            self._say(wire.Failed(why, input=True))
            return
        self._sender = sender
        self._say(wire.Prepared(sender.max_in_flight))

    def _unpack(self, config: Generator, job: wire.Job) -> Generator:
        """What came from the master's machine, in a directory that goes when this process does."""
        assert job.locustfile is not None
        self._folder = tempfile.TemporaryDirectory(prefix="stormdrill-load-")
        folder = Path(self._folder.name)
        unpack((job.locustfile, *job.files), folder)
        os.chdir(folder)
        records = folder / "worker.records"
        self._tail = _Tail(records)
        return replace(
            config, locustfile=str(folder / job.locustfile.name), records=str(records), boot_id=boot_id(), control=""
        )

    # --- what is said ------------------------------------------------------------------------------------------

    def _say(self, message: wire.FromWorker) -> None:
        self._post(self._seal.close(wire.pack(message)))

    def _post(self, data: bytes) -> None:
        try:
            self._node.send_message(wire.KIND, data)
        except RPCError as error:
            log.warning("the master can't be told: %s", error)

    def _tell(self, text: str) -> None:
        """A person, who started this worker by hand."""
        if self._control is None:
            sys.stderr.write(f"{text}\n")

    # --- ends --------------------------------------------------------------------------------------------------

    def _give_up(self, text: str, code: int = ABANDONED_CODE) -> int:
        """Whatever was recorded is kept, nothing more is sent."""
        if self._control is not None:
            self._control.send(Failed(text, worker=self._config.name))
        self._flush()
        sys.stderr.write(f"{text}\n")
        self._clear()
        os._exit(code)

    def _leave(self) -> None:
        if self._control is None:
            self._tell("the load has ended" if self._done else "the run has ended without this worker")
            self._clear()
            os._exit(0 if self._done else ABANDONED_CODE)
        if not self._done:
            self._orphaned()
        self._quit.set()

    def _orphaned(self) -> None:
        self._flush()
        self._clear()
        os._exit(0 if self._done else 1)

    def _terminated(self, number: int, _frame: FrameType | None) -> None:
        if self._control is None and self._welcomed and not self._done:
            self._say(wire.Failed(f"it was stopped on its machine ({signal.Signals(number).name})"))
            gevent.sleep(0.05)
        self._orphaned()

    def _flush(self) -> None:
        if self._begun and self._sender is not None:
            self._sender.source.flush()

    def _clear(self) -> None:
        if self._folder is not None:
            os.chdir("/")
            self._folder.cleanup()


class _Tail:
    """The record file as far as it is written, in pieces. Records first: what they need then stands in the head."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._head = b""
        self._length = self._reached = 0

    def read(self) -> tuple[bytes, bytes]:
        """The head, if it has changed, and what is new behind it."""
        if not self._path.exists():
            return b"", b""
        if not self._length:
            self._length = self._reached = read_header(self._path)[1]
        with self._path.open("rb") as file:
            file.seek(self._reached)
            rows = file.read()
            file.seek(0)
            head = file.read(self._length)
        self._reached += len(rows)
        changed, self._head = head != self._head, head
        return head if changed else b"", rows

    def whole(self) -> tuple[int, str]:
        """Bytes and SHA-256."""
        if not self._path.exists():
            return 0, ""
        with self._path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return file.tell(), digest
