"""What runner and generator tell each other over the control socket: one line of JSON a message.

Generator to runner: Ready or Failed, then Progress four times a second, then Ended. Runner to generator: Begin, End.
With several workers the runner speaks to their master: Secret and then the same; the master says Listening first, and
names the worker that a message is about. To each worker of this machine it says Secret, and nothing else.
Once the load has begun both sides show that they live: the runner with Alive, so that nobody loads for a frozen one.
End of file on either side means that the other is gone.
In a cluster the socket is the standard input and output of a program in a pod. Its first line is Boot, as nothing else
brings it its configuration; Ask compares its clock, and the records come home as Records and Whole.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from stormdrill.model.profile import Profile

STANDARD = "-"
"""As the name of a control socket: standard input and output."""
PROGRESS_EVERY_S = 0.25
RUNNER_SILENT_AFTER_S = 5.0
"""Longer than any runner is busy or held up by strangers: it is frozen, and can neither judge the load nor end it."""
GRACE_S = 0.25
"""How long beyond a request's deadline the client still waits, so that a late answer is seen to be late."""


class Generator(Struct, frozen=True, tag="generator"):
    """All that one generator process needs to know; written as load/worker-N.json into the run directory."""

    control: str
    """Name of the abstract socket, without its leading zero byte."""
    run: str
    records: str
    """Path of the record file to write."""
    locustfile: str
    profile: Profile | None
    """None: a closed loop."""
    rate_per_s: float
    seed: int
    entries: tuple[str, ...]
    """Base URLs; requests take turns over them."""
    boot_id: str = ""
    worker: int = 0
    workers: int = 1
    """This worker takes the arrivals whose number is `worker` modulo `workers`."""
    max_in_flight: int = 2000
    """Beyond it an arrival is recorded as dropped."""
    users: int = 0
    """Of a locustfile of the user's own, closed loop: of all workers together."""
    spawn_per_s: float = 0.0
    deadline_s: float = 0.0
    """Closed loop: after which an answer is no success."""


class Master(Struct, frozen=True, tag="master"):
    """All that the master of several workers needs to know; written as load/master.json into the run directory."""

    control: str
    directory: str
    """The run's."""
    host: str
    """Where it listens for workers."""
    port: int
    """0: any that is free."""
    names: tuple[str, ...]
    """Of all workers, in the order of their numbers."""
    local: int
    """So many of them, the first ones, are started on this machine."""
    load: Generator
    """What each of them is told, but for its own number."""
    sends_records: bool = False
    """The runner is on another machine: records go to it over the control line, and into no file."""


class Worker(Struct, frozen=True, tag="worker"):
    """What a worker needs to know to find its master."""

    name: str
    host: str
    port: int
    control: str = ""
    """Of the runner on the same machine; empty on another."""
    wait_s: float = 20.0
    """How long it looks for its master."""


class File(Struct, frozen=True):
    name: str
    data: bytes
    sha256: str


class Boot(Struct, frozen=True, tag="boot"):
    """What a process in a pod is told first. Paths in the configuration are those of the files, by their names."""

    version: str
    """Of the runner's stormdrill: both ends must be the same."""
    config: Master | Worker
    files: tuple[File, ...] = ()


class Ready(Struct, frozen=True, tag="ready"):
    pid: int
    max_in_flight: int
    """What the limit on open files leaves of the asked one."""
    worker: str = ""
    """Here and below: whom it is about, where there are several."""


class Failed(Struct, frozen=True, tag="failed"):
    """The load can't go on, and why, for a person."""

    text: str
    input: bool = False
    """True when the user's own file is at fault."""
    worker: str = ""


class Progress(Struct, frozen=True, tag="progress"):
    """Totals since the epoch; the lag is that of the last second."""

    mono_ms: float
    scheduled: int
    sent: int
    done: int
    dropped: int
    lag_p99_ms: float
    worker: str = ""


class Ended(Struct, frozen=True, tag="ended"):
    scheduled: int
    sent: int
    done: int
    dropped: int
    unfinished: int
    failovers: int
    """Requests that one entry refused and the next one was asked for."""
    errors: int
    """How often the locustfile's `serve` raised or sent nothing."""
    first_error: str
    cpu_s: float
    """CPU time that this process used from begin to end."""
    worker: str = ""
    users: int = 0
    """Closed loop: of this worker, as many as were asked for until the end."""
    fewest_users: int = 0
    """Of them that were alive. None is started again, so that these are those of the end."""


class Listening(Struct, frozen=True, tag="listening"):
    """The master waits for its workers there."""

    host: str
    port: int


class Clock(Struct, frozen=True, tag="clock"):
    """A worker's clock was compared with the journal's."""

    worker: str
    boot_id: str
    offset_ms: float
    error_ms: float
    round_trip_ms: float
    when: str
    """before or after the load."""


class Lost(Struct, frozen=True, tag="lost"):
    """A worker fell silent or broke its word; the others were told to stop."""

    worker: str
    why: str


class Now(Struct, frozen=True, tag="now"):
    """Answers Ask."""

    number: int
    mono_s: float


class Records(Struct, frozen=True, tag="records"):
    """Of a worker in the cluster: the head of its file, whenever it has changed, and what is new behind it."""

    worker: str
    head: bytes
    rows: bytes


class Whole(Struct, frozen=True, tag="whole"):
    """Of a worker in the cluster: what its record file has come to, as it says itself."""

    worker: str
    size: int
    sha256: str


class Alive(Struct, frozen=True, tag="alive"):
    """The master, or the runner, has nothing else to say."""


class Secret(Struct, frozen=True, tag="secret"):
    """What master and workers know one another by. Over the socket alone: no file and no process list has it."""

    token: str


class Ask(Struct, frozen=True, tag="ask"):
    """What is the time there? For a master on another machine."""

    number: int


class Begin(Struct, frozen=True, tag="begin"):
    epoch_mono_ms: float
    """On the runner's clock, as all times that it says."""
    ahead_ms: float = 0.0
    """Of a master on another machine: so much its clock is ahead of the runner's."""
    error_ms: float = 0.0
    """And by so much that may be wrong."""


class End(Struct, frozen=True, tag="end"):
    last_intended_mono_ms: float
    """No arrival after it."""
    timeout_s: float
    """How long what is in flight may still take, from then on."""
    retries: bool = True
    """False: nothing is tried again either, because the run was aborted or a worker lost."""


FromGenerator = Ready | Failed | Progress | Ended | Listening | Clock | Lost | Alive | Now | Records | Whole
FromRunner = Begin | End | Secret | Lost | Alive | Ask
Config = Generator | Master | Worker


def frozen(silent_s: float) -> str:
    """Why a load ends whose runner says nothing any more, for a person."""
    return f"nothing was heard of the run for {silent_s:.1f} s: it was frozen, and nobody loads without it"


_encoder = msgspec.json.Encoder()
_from_generator: msgspec.json.Decoder[FromGenerator] = msgspec.json.Decoder(FromGenerator)
_from_runner: msgspec.json.Decoder[FromRunner] = msgspec.json.Decoder(FromRunner)
_boot: msgspec.json.Decoder[Boot] = msgspec.json.Decoder(Boot)


def encode(message: FromGenerator | FromRunner | Boot) -> bytes:
    return _encoder.encode(message) + b"\n"


def decode_from_generator(line: bytes) -> FromGenerator:
    """Raises msgspec.MsgspecError for anything else."""
    return _from_generator.decode(line)


def decode_from_runner(line: bytes) -> FromRunner:
    """Raises msgspec.MsgspecError for anything else."""
    return _from_runner.decode(line)


def decode_boot(line: bytes) -> Boot:
    """Raises msgspec.MsgspecError for anything else."""
    return _boot.decode(line)
