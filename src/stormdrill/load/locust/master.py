"""The master of several workers: Locust's own, which starts nothing by itself and believes nobody without the token.

It admits the workers that the experiment names, tells each what to send, compares clocks, gathers the records of those
on other machines, and says at once who fell silent. It sends no request itself.
"""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import gevent
import locust
from gevent.event import AsyncResult, Event
from locust.env import Environment
from locust.exception import RPCError
from locust.rpc import Message
from locust.runners import MasterRunner
from msgspec import MsgspecError
from msgspec.structs import replace

from stormdrill import __version__
from stormdrill.load import wire
from stormdrill.load.clocks import Compared, Look, compare, drifted
from stormdrill.load.locust.control import connect
from stormdrill.load.messages import (
    GRACE_S,
    RUNNER_SILENT_AFTER_S,
    Alive,
    Ask,
    Begin,
    Clock,
    End,
    Failed,
    File,
    FromRunner,
    Generator,
    Listening,
    Lost,
    Master,
    Now,
    Ready,
    Records,
    Secret,
    Whole,
    frozen,
)
from stormdrill.load.sealed import NotSealedError, Seal, new_nonce
from stormdrill.load.vigil import SILENT_AFTER_S, Silences

LOOKS = 24
LOOK_LIMIT_S = 1.0
LOOK_EVERY_S = 0.01
TICK_S = 0.1
_LAST_WORD_S = 0.05
"""Until what was said is on its way: nobody says when it is, and who is ended with it unsaid has not said it."""
_SAME = "install the same on both"
_HEARD_BY_ITSELF = ("client_ready", "heartbeat", wire.KIND)

log = logging.getLogger(__name__)
now = time.monotonic


class Exchange(MasterRunner):  # type: ignore[misc]  # Locust has no types
    """Locust's master as the exchange of our messages: strangers' are dropped, whatever is in them."""

    def client_listener(self) -> None:
        while True:
            try:
                client_id, message = self.server.recv_from_client()
                if message.type in _HEARD_BY_ITSELF:
                    message.node_id = client_id  # whose connection it is, and not who it says it is
                    self.handle_message(client_id, message)
            except Exception as error:
                log.debug("not understood: %s", error)
                gevent.sleep(0.01)


class Link:
    """The conversation with one worker."""

    def __init__(self, client_id: str, hello: wire.Hello, seal: Seal) -> None:
        self.client_id = client_id
        self.name = hello.name
        self.boot_id = hello.boot_id
        self.seal = seal
        self.prepared = self.told_to_end = self.done = False
        self.before: Compared | None = None
        self.answers: dict[int, AsyncResult[float]] = {}
        self.file: BinaryIO | None = None

    @property
    def offset_s(self) -> float:
        return self.before.offset_ms / 1e3 if self.before else 0.0


class MasterProcess:
    """The life of the master, from its configuration to the end of the runner's interest in it."""

    def __init__(self, config: Master) -> None:
        self._config = config
        self._control = connect(config.control)
        self._token = ""
        self._told = Event()
        self._links: dict[str, Link] = {}
        """By the name of Locust's connection."""
        self._by_name: dict[str, Link] = {}
        self._strangers: dict[str, Seal] = {}
        self._begun = False
        self._ahead_ms = 0.0
        """Of the runner's clock, where that is on another machine."""
        self._silences = Silences(SILENT_AFTER_S, TICK_S)
        self._runner = Silences(RUNNER_SILENT_AFTER_S, TICK_S)
        self._files = _files(config)

    def run(self) -> int:
        self._control.listen(self._hear_runner, self._orphaned)
        gevent.signal_handler(signal.SIGTERM, self._orphaned)
        self._told.wait()
        environment = Environment(user_classes=[], events=locust.events)
        try:
            self._exchange = Exchange(environment, self._config.host, self._config.port)
        except (RPCError, OSError) as error:
            place = f"{self._config.host}:{self._config.port}"
            self._control.send(Failed(f"workers can't be waited for at {place}: {error}", input=True))
            return 2
        environment.runner = self._exchange
        self._exchange.register_message(wire.KIND, self._hear)
        self._control.send(Listening(self._config.host, self._exchange.server.port))
        self._watch()
        return 0

    # --- the runner --------------------------------------------------------------------------------------------

    def _hear_runner(self, message: FromRunner) -> None:
        match message:
            case Secret():
                self._token = message.token
                self._told.set()
            case Begin():
                self._runner.heard("runner", now())
                self._begin(message)
            case Alive():
                self._runner.heard("runner", now())
            case Ask():
                self._control.send(Now(message.number, now()))
            case End():
                here = replace(message, last_intended_mono_ms=message.last_intended_mono_ms + self._ahead_ms)
                for link in self._living():
                    self._end(link, here)
            case Lost():
                self._lose(message.worker, message.why, tell=False)

    def _begin(self, message: Begin) -> None:
        self._begun = True
        self._ahead_ms = message.ahead_ms
        epoch_s = (message.epoch_mono_ms + message.ahead_ms) / 1e3
        at = datetime.fromtimestamp(datetime.now(UTC).timestamp() + epoch_s - now(), UTC).isoformat()
        for link in self._living():
            error_ms = (link.before.error_ms if link.before else 0.0) + message.error_ms
            epoch_ns = round(message.epoch_mono_ms * 1e6)
            self._say(link, wire.Begin(epoch_s + link.offset_s, epoch_ns, at, error_ms))

    def _end(self, link: Link, message: End) -> None:
        if not link.told_to_end:
            link.told_to_end = True
            last_s = message.last_intended_mono_ms / 1e3 + link.offset_s
            self._say(link, wire.End(last_s, message.timeout_s, message.retries))

    def _orphaned(self) -> None:
        """The runner is gone, or has what it wanted."""
        for link in self._living():
            self._say(link, wire.Quit())
        gevent.sleep(_LAST_WORD_S)
        os._exit(0)

    # --- workers -----------------------------------------------------------------------------------------------

    def _living(self) -> list[Link]:
        return list(self._by_name.values())

    def _say(self, link: Link, message: wire.FromMaster) -> None:
        self._post(link.client_id, link.seal.close(wire.pack(message)))

    def _post(self, client_id: str, data: object, kind: str = wire.KIND) -> None:
        try:
            self._exchange.server.send_to_client(Message(kind, data, client_id))
        except RPCError as error:
            log.warning("%s can't be told: %s", client_id, error)

    def _hear(self, environment: Environment, msg: Any) -> None:
        """Of Locust's connection `msg.node_id`; whatever is wrong with it is wrong with that worker alone."""
        link = self._links.get(msg.node_id)
        try:
            if link is None:
                self._admit(msg.node_id, msg.data)
                return
            message = wire.unpack_from_worker(link.seal.open(msg.data))
            if link.prepared:  # importing a locustfile may take its time
                self._silences.heard(link.name, now())
            self._take(link, message)
        except (NotSealedError, MsgspecError) as error:
            if link is not None:
                self._lose(link.name, f"it sent what can't be read: {error}")
            elif isinstance(error, MsgspecError):  # it knows the token, and speaks otherwise
                self._refuse(msg.node_id, f"it is not of stormdrill {__version__}, as the run is; {_SAME}")
            else:
                self._refuse(msg.node_id, f"the token is not that of this run ({error})")
        except OSError as error:
            self._lose(link.name if link else "", f"its records can't be written: {error}")

    def _refuse(self, client_id: str, text: str) -> None:
        log.warning("refused a worker: %s", text)
        self._post(client_id, text, wire.REFUSED)

    def _admit(self, client_id: str, data: object) -> None:
        hello = wire.unpack_from_worker(Seal(self._token, "master").open(data))
        if not isinstance(hello, wire.Hello):
            raise NotSealedError("it didn't say who it is")
        why = self._why_not(hello)
        if why:
            self._refuse(client_id, why)
            return
        nonce = new_nonce()
        welcome = wire.pack(wire.Welcome(nonce, hello.nonce))
        self._post(client_id, Seal(self._token, "master").close(welcome))
        link = Link(client_id, hello, Seal(self._token, "master", hello.nonce, nonce))
        self._links[client_id] = self._by_name[hello.name] = link
        number = self._config.names.index(hello.name)
        config = replace(self._config.load, worker=number, workers=len(self._config.names))
        if self._is_local(hello.name):
            records = Path(self._config.directory) / "load" / f"worker-{number}.records"
            self._say(link, wire.Job(replace(config, records=str(records))))
        else:
            self._say(link, wire.Job(config, *self._files))

    def _why_not(self, hello: wire.Hello) -> str:
        if hello.version != __version__:
            return f"it is of stormdrill {hello.version}, the run of {__version__}; {_SAME}"
        if hello.name not in self._config.names:
            return f"the experiment names no host {hello.name!r}; it names {', '.join(self._hosts()) or 'none'}"
        if hello.name in self._by_name:
            return f"a worker named {hello.name!r} is there already; give each a name of its own"
        if self._begun:
            return "the load began without it"
        return ""

    def _hosts(self) -> tuple[str, ...]:
        return self._config.names[self._config.local :]

    def _is_local(self, name: str) -> bool:
        return name in self._config.names[: self._config.local]

    def _take(self, link: Link, message: wire.FromWorker) -> None:
        match message:
            case wire.Pong():
                waiting = link.answers.pop(message.number, None)
                if waiting is not None:
                    waiting.set(message.mono_s)
            case wire.Prepared():
                link.prepared = True
                gevent.spawn(self._welcome, link, message.max_in_flight)
            case wire.Failed():
                self._control.send(Failed(message.text, message.input, link.name))
            case wire.Report():
                self._write(link, message)
                if message.progress is not None:
                    self._control.send(replace(message.progress, worker=link.name, mono_ms=now() * 1e3))
            case wire.Done():
                gevent.spawn(self._finish, link, message)
            case _:
                raise NotSealedError("it said who it is a second time")

    def _welcome(self, link: Link, max_in_flight: int) -> None:
        if not self._is_local(link.name):
            link.before = self._compare(link)
            if link.before is None:
                self._lose(link.name, "its clock could not be compared with the run's: it didn't answer in time")
                return
            self._tell_clock(link, link.before, "before")
        self._control.send(Ready(0, max_in_flight, link.name))

    def _compare(self, link: Link) -> Compared | None:
        looks = []
        for number in range(LOOKS):
            waiting: AsyncResult[float] = AsyncResult()
            link.answers[number] = waiting
            sent_s = now()
            self._say(link, wire.Ping(number))
            try:
                looks.append(Look(sent_s, waiting.get(timeout=LOOK_LIMIT_S), now()))
            except gevent.Timeout:
                link.answers.pop(number, None)
                if not looks:
                    return None
            gevent.sleep(LOOK_EVERY_S)
        return compare(looks)

    def _tell_clock(self, link: Link, found: Compared, when: str) -> None:
        offset_ms, error_ms, trip_ms = (round(one, 4) for one in (found.offset_ms, found.error_ms, found.round_trip_ms))
        self._control.send(Clock(link.name, link.boot_id, offset_ms, error_ms, trip_ms, when))

    def _write(self, link: Link, report: wire.Report) -> None:
        if self._config.sends_records:
            if report.head or report.records:
                self._control.send(Records(link.name, report.head, report.records))
            return
        if link.file is None:
            if not report.head:
                return
            place = Path(self._config.directory) / "load" / f"worker-{self._config.names.index(link.name)}.records"
            link.file = place.open("xb", buffering=0)
            link.file.write(report.head)
        elif report.head:
            # in place, and before the records that need what it has learnt
            os.pwrite(link.file.fileno(), report.head, 0)
        link.file.write(report.records)

    def _finish(self, link: Link, message: wire.Done) -> None:
        """All of its records are here, as it wrote them; the clocks are compared once more."""
        link.done = True
        if not self._is_local(link.name):
            if self._config.sends_records:
                self._control.send(Whole(link.name, message.size, message.sha256))
            why = "" if self._config.sends_records else _damage(link, message)
            after = None if why else self._compare(link)
            if after is None:
                self._lose(link.name, why or "its clock could not be compared again after the load")
                return
            assert link.before is not None
            self._tell_clock(link, drifted(link.before, after), "after")
        self._say(link, wire.Quit())
        self._by_name.pop(link.name, None)
        self._silences.forget(link.name)
        gevent.sleep(_LAST_WORD_S)
        self._control.send(replace(message.ended, worker=link.name))

    # --- silence -----------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Says that the master lives, and who doesn't. Never returns."""
        told_s = now()
        while True:
            gevent.sleep(TICK_S)
            at_s = now()
            for _, silent_s in self._runner.look(at_s):
                self._control.send(Failed(frozen(silent_s)))
                self._orphaned()
            for name, silent_s in self._silences.look(at_s):
                self._lose(name, f"nothing was heard of it for {silent_s:.1f} s")
            if at_s - told_s >= wire.ALIVE_EVERY_S:
                told_s = at_s
                self._control.send(Alive())
                for link in self._living():
                    self._say(link, wire.Alive())

    def _lose(self, name: str, why: str, *, tell: bool = True) -> None:
        """Its records are not complete, so nothing that rests on them can be judged: nobody goes on sending."""
        link = self._by_name.pop(name, None)
        if link is None:
            return
        self._links.pop(link.client_id, None)
        self._silences.forget(name)
        self._say(link, wire.Quit())
        if link.file is not None:
            link.file.close()
        if tell:
            self._control.send(Lost(name, why))
        if self._begun:
            patience_s = _patience_s(self._config.load)
            for other in self._living():
                self._end(other, End(now() * 1e3, patience_s, retries=False))


def _patience_s(load: Generator) -> float:
    """How long what is in flight may still take."""
    deadlines_s = [stream.deadline_s for stream in load.profile.every_stream] if load.profile else [load.deadline_s]
    return GRACE_S + max(deadlines_s)


def _damage(link: Link, message: wire.Done) -> str:
    """Why what arrived isn't what the worker wrote; empty when it is."""
    if link.file is None:
        return "" if message.size == 0 else f"none of its {message.size:,} bytes of records arrived"
    os.fsync(link.file.fileno())
    link.file.close()
    data = Path(link.file.name).read_bytes()
    if len(data) != message.size:
        return f"{len(data):,} of its {message.size:,} bytes of records arrived"
    return "" if hashlib.sha256(data).hexdigest() == message.sha256 else "its records arrived changed"


def _files(config: Master) -> tuple[File, tuple[File, ...]]:
    """The locustfile, and whatever else the profile names, for workers that can't read them where they lie."""
    parts = config.load.profile.parts if config.load.profile is not None else ()
    named = [part.trace.file for part in parts if part.trace is not None]
    traces = [_file(name, Path(config.directory) / name) for name in dict.fromkeys(named)]
    path = Path(config.load.locustfile)
    return _file(path.name, path), tuple(traces)


def _file(name: str, path: Path) -> File:
    data = path.read_bytes()
    return File(name, data, hashlib.sha256(data).hexdigest())
