"""What runner and generator tell each other over the control socket: one line of JSON a message.

Generator to runner: Ready or Failed, then Progress four times a second, then Ended. Runner to generator: Begin, End.
End of file on either side means that the other is gone.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from stormdrill.model.profile import Profile

PROGRESS_EVERY_S = 0.25
GRACE_S = 0.25
"""How long beyond a request's deadline the client still waits, so that a late answer is seen to be late."""


class Generator(Struct, frozen=True):
    """All that one generator process needs to know; written as load/worker-N.json into the run directory."""

    control: str
    """Name of the abstract socket, without its leading zero byte."""
    run: str
    records: str
    """Path of the record file to write."""
    locustfile: str
    profile: Profile
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


class Ready(Struct, frozen=True, tag="ready"):
    pid: int
    max_in_flight: int
    """What the limit on open files leaves of the asked one."""


class Failed(Struct, frozen=True, tag="failed"):
    """The load can't go on, and why, for a person."""

    text: str
    input: bool = False
    """True when the user's own file is at fault."""


class Progress(Struct, frozen=True, tag="progress"):
    """Totals since the epoch; the lag is that of the last second."""

    mono_ms: float
    scheduled: int
    sent: int
    done: int
    dropped: int
    lag_p99_ms: float


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


class Begin(Struct, frozen=True, tag="begin"):
    epoch_mono_ms: float


class End(Struct, frozen=True, tag="end"):
    last_intended_mono_ms: float
    """No arrival after it."""
    timeout_s: float
    """How long what is in flight may still take, from then on."""


FromGenerator = Ready | Failed | Progress | Ended
FromRunner = Begin | End

_encoder = msgspec.json.Encoder()
_from_generator: msgspec.json.Decoder[FromGenerator] = msgspec.json.Decoder(FromGenerator)
_from_runner: msgspec.json.Decoder[FromRunner] = msgspec.json.Decoder(FromRunner)


def encode(message: FromGenerator | FromRunner) -> bytes:
    return _encoder.encode(message) + b"\n"


def decode_from_generator(line: bytes) -> FromGenerator:
    """Raises msgspec.MsgspecError for anything else."""
    return _from_generator.decode(line)


def decode_from_runner(line: bytes) -> FromRunner:
    """Raises msgspec.MsgspecError for anything else."""
    return _from_runner.decode(line)
