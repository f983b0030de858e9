"""One of the load's programs in a pod: started by exec, spoken to over its standard input and output.

It ends when that stream does, so that nobody loads for a runner that is gone. The token that master and workers know
one another by is told there too, and stands in no object of the cluster.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from stormdrill import __version__
from stormdrill.cluster.api import Lost
from stormdrill.cluster.exec import STATUS, STDERR, STDOUT, Exec, exit_code
from stormdrill.cluster.websocket import Refusal, Stream
from stormdrill.errors import SystemNotReady
from stormdrill.load.in_cluster_pods import CONTAINER, Pods
from stormdrill.load.messages import (
    STANDARD,
    Boot,
    Config,
    File,
    FromGenerator,
    FromRunner,
    Master,
    Worker,
    decode_from_generator,
    encode,
)
from stormdrill.load.process import STOP_LIMIT_S, Spawner, last_lines

ARGV = ("python3", "-P", "-m", "stormdrill.load.locust", "--boot")
OPEN_LIMIT_S = 10.0
SEND_LIMIT_S = 2.0
BOOT_LIMIT_S = 20.0
LARGEST_LINE = 16_000_000
KEPT_LOG = 1_000_000
"""Bytes."""
_PIECE = 32_768
_TICK_S = 0.5


class PodProgram:
    """From its configuration, which is sent to it, to its end. `files` go with a master's."""

    control = STANDARD

    def __init__(self, instance: str, directory: Path, pods: Pods, files: tuple[File, ...] = ()) -> None:
        self.instance = instance
        self._log = directory / "logs" / f"{instance}.log"
        self._pods = pods
        self._files = files
        self._stream: Stream | None = None
        self._sending = threading.Lock()
        self._thread: threading.Thread | None = None
        self._end = ""
        """How it ended, as far as it is known."""
        self._stopping = False

    def start(self, keeper: Spawner, config: Config, file: str) -> None:
        """Raises SystemNotReady when it can't be started."""
        assert isinstance(config, Master | Worker)
        pod = self._pods.pod_of(self.instance)
        try:
            exec_ = Exec(self._pods.api)
            self._stream = exec_.open(self._pods.namespace, pod.name, CONTAINER, ARGV, limit_s=OPEN_LIMIT_S)
            self._send(encode(Boot(__version__, config, self._files)), BOOT_LIMIT_S)
        except (Refusal, Lost) as error:
            raise SystemNotReady(f"{self.instance} can't be started in pod {pod.name}: {error}") from error

    def meet(self, until_s: float, heard: Callable[[FromGenerator], None], gone: Callable[[], None]) -> bool:
        """It is there from its start on."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._log.write_bytes(b"")
        self._thread = threading.Thread(
            target=self._listen, args=(heard, gone), name=f"load-{self.instance}", daemon=True
        )
        self._thread.start()
        return True

    def send(self, message: FromRunner) -> bool:
        """False when it is gone, or can't be told in time."""
        try:
            self._send(encode(message), SEND_LIMIT_S)
        except Lost:
            return False
        return True

    def stop(self, limit_s: float = STOP_LIMIT_S) -> None:
        """The end of its input is its own."""
        stream, self._stopping = self._stream, True
        if stream is None:
            return
        if not stream.ended:
            try:
                stream.finish()
            except Lost:
                limit_s = 0.0
            if self._thread is not None and self._thread is not threading.current_thread():
                self._thread.join(limit_s)
        stream.close()

    def last_lines(self) -> str:
        return last_lines(self._log)

    def why_gone(self) -> str:
        """Its own end, or what became of its pod."""
        return self._pods.fate(self.instance) or self._end or "its connection through the API server closed"

    def _send(self, data: bytes, limit_s: float) -> None:
        if self._stream is None:
            raise Lost(f"{self.instance} was not started", sent=False)
        until_s = time.monotonic() + limit_s
        with self._sending:
            for at in range(0, len(data), _PIECE):
                self._stream.send(data[at : at + _PIECE], limit_s=max(until_s - time.monotonic(), 0.05))

    def _listen(self, heard: Callable[[FromGenerator], None], gone: Callable[[], None]) -> None:
        assert self._stream is not None
        stream, begun, kept = self._stream, bytearray(), 0
        try:
            with self._log.open("ab", buffering=0) as log:
                while not stream.ended:
                    message = stream.receive(_TICK_S)
                    if message is None:
                        continue
                    channel, data = message
                    if channel == STDOUT:
                        begun = _lines(begun, data, heard)
                    elif channel == STDERR:
                        log.write(data[: KEPT_LOG - kept])
                        kept += len(data)
                    elif channel == STATUS:
                        self._end = f"it ended with exit code {exit_code(data)}"
                        break
        except Refusal as refusal:
            self._end = f"it was not started: {refusal}"
        except Lost as lost:
            self._end = f"its connection through the API server broke: {lost}"
        except (msgspec.MsgspecError, OSError) as error:
            self._end = f"what it said can't be read: {error}"
        if not self._stopping:
            stream.close()
        gone()


def _lines(begun: bytearray, data: bytes, heard: Callable[[FromGenerator], None]) -> bytearray:
    """Hand over the whole lines; what has begun is returned. Raises MsgspecError for what is no message."""
    begun += data
    if b"\n" not in data:
        if len(begun) > LARGEST_LINE:
            raise msgspec.DecodeError(f"a line of more than {LARGEST_LINE:,} bytes")
        return begun
    *whole, rest = bytes(begun).split(b"\n")
    for line in whole:
        heard(decode_from_generator(line))
    return bytearray(rest)
