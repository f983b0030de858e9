"""What master and workers tell each other over Locust's connection, sealed (`load.sealed`), as MessagePack.

Worker: Hello → Prepared or Failed → Report four times a second, with the records since the last one → Done.
Master: Welcome or Refusal → Job → Begin → End → Quit; Ping and Alive in between. 1.5 s of silence on either side is
the end of the other.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from stormdrill.load.messages import Ended, File, Generator, Progress

KIND = "stormdrill"
"""The type under which Locust hands our messages on."""
REFUSED = "stormdrill-refused"
"""An answer to somebody who doesn't know the token; its data is a text, and not sealed."""
ALIVE_EVERY_S = 0.25


class Hello(Struct, frozen=True, tag="hello"):
    name: str
    nonce: bytes
    version: str
    """Of stormdrill: both ends must be the same."""
    boot_id: str


class Pong(Struct, frozen=True, tag="pong"):
    number: int
    mono_s: float


class Prepared(Struct, frozen=True, tag="prepared"):
    max_in_flight: int


class Failed(Struct, frozen=True, tag="failed"):
    text: str
    input: bool = False


class Report(Struct, frozen=True, tag="report"):
    """Says that the worker lives; and how far it is, once it began."""

    progress: Progress | None = None
    head: bytes = b""
    """Of the record file, of a worker that has a directory of its own, whenever it has changed."""
    records: bytes = b""
    """What was written behind the head since the last report."""


class Done(Struct, frozen=True, tag="done"):
    ended: Ended
    size: int
    """Of the whole record file."""
    sha256: str


class Welcome(Struct, frozen=True, tag="welcome"):
    nonce: bytes
    echo: bytes
    """The worker's own: whoever gives it back has read this Hello and knows the token."""


class Job(Struct, frozen=True, tag="job"):
    config: Generator
    """Paths in it are those of the master's machine."""
    locustfile: File | None = None
    """None: a worker of this machine, which reads it where it lies."""
    files: tuple[File, ...] = ()
    """What the profile names: a recorded trace."""


class Ping(Struct, frozen=True, tag="ping"):
    number: int


class Begin(Struct, frozen=True, tag="begin"):
    epoch_s: float
    """On the worker's own clock."""
    epoch_mono_ns: int
    """On the journal's."""
    epoch_at: str
    clock_error_ms: float


class End(Struct, frozen=True, tag="end"):
    last_intended_s: float
    """On the worker's own clock."""
    timeout_s: float
    retries: bool = True


class Alive(Struct, frozen=True, tag="alive"):
    pass


class Quit(Struct, frozen=True, tag="quit"):
    pass


FromWorker = Hello | Pong | Prepared | Failed | Report | Done
FromMaster = Welcome | Job | Ping | Begin | End | Alive | Quit

_encoder = msgspec.msgpack.Encoder()
_from_worker: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)
_from_master: msgspec.msgpack.Decoder[FromMaster] = msgspec.msgpack.Decoder(FromMaster)


def pack(message: FromWorker | FromMaster) -> bytes:
    return _encoder.encode(message)


def unpack_from_worker(body: bytes) -> FromWorker:
    """Raises msgspec.MsgspecError for anything else."""
    return _from_worker.decode(body)


def unpack_from_master(body: bytes) -> FromMaster:
    """Raises msgspec.MsgspecError for anything else."""
    return _from_master.decode(body)
