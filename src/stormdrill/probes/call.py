"""One HTTP request or one command, with one limit on everything."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import IO

from stormdrill.keeper.limited import BODY_LIMIT, CHUNK, Clock, OverLimitError, request
from stormdrill.ports import Ran, Reply

COMPLAINT_LIMIT = 4_000
KILL_AFTER_S = 0.5
DRAIN_S = 0.5
"""For what a program has said, when somebody whom it started goes on talking into its output."""


class Calls:
    """The `Caller` of `stormdrill.ports`: no state, any number of threads."""

    def __init__(self, *, body_limit: int = BODY_LIMIT, cwd: str | None = None) -> None:
        self._body_limit, self._cwd = body_limit, cwd

    def http(self, method: str, url: str, body: str, timeout_s: float) -> Reply:
        return http_call(method, url, body, timeout_s, body_limit=self._body_limit)

    def command(self, argv: Sequence[str], timeout_s: float) -> Ran:
        return run_command(argv, timeout_s, output_limit=self._body_limit, cwd=self._cwd)


def http_call(
    method: str,
    url: str,
    body: str,
    timeout_s: float,
    *,
    body_limit: int = BODY_LIMIT,
    more_headers: Mapping[str, str] | None = None,
) -> Reply:
    """One request. Never raises; `sent` says whether the other side may have acted where there is an error."""
    heard = request(method, url, body, timeout_s, body_limit=body_limit, more_headers=more_headers)
    text = heard.body.decode("utf-8", "replace")
    return Reply(status=heard.status, text=text, error=heard.error, sent=heard.sent, took_ms=heard.took_ms)


def run_command(
    argv: Sequence[str], timeout_s: float, *, output_limit: int = BODY_LIMIT, cwd: str | None = None
) -> Ran:
    """One program in a session of its own, never through a shell; its group is ended at the limit. Never raises."""
    clock = Clock(timeout_s)
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        name = argv[0] if argv else "no command"
        return Ran(error=f"{name} does not start: {why.lower()}", took_ms=clock.took_ms())
    wrong = ""
    streams = _Streams(process, output_limit)
    try:
        streams.read(clock)
        process.wait(clock.left())
    except (OverLimitError, subprocess.TimeoutExpired):
        wrong = f"{argv[0]} did not end within {timeout_s:g} s and was ended"
    except OSError as problem:
        wrong = f"{argv[0]}: {problem}"
    finally:
        _end(process)
        streams.close()
    if not wrong and streams.overflow:
        wrong = f"{argv[0]} wrote more than {output_limit} bytes"
    output, complaint = streams.texts()
    code = None if wrong else process.returncode
    return Ran(code=code, output=output, complaint=complaint, error=wrong, started=True, took_ms=clock.took_ms())


class _Streams:
    """Standard output up to a limit, and the end of standard error, read side by side."""

    def __init__(self, process: subprocess.Popen[bytes], limit: int) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self._process, self._limit = process, limit
        self._out, self._err = process.stdout, process.stderr
        self._output, self._complaint = bytearray(), bytearray()
        self.overflow = False

    def read(self, clock: Clock) -> None:
        """Until both are closed, or the process has ended and nothing of its own comes any more. Raises
        OverLimitError."""
        ended_s = 0.0
        with selectors.DefaultSelector() as selector:
            for stream in (self._out, self._err):
                os.set_blocking(stream.fileno(), False)
                selector.register(stream, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(min(clock.left(), 0.1))
                for key, _ in ready:
                    if not self._take(key.fileobj):  # type: ignore[arg-type]  # registered above
                        selector.unregister(key.fileobj)
                if self._process.poll() is not None:
                    ended_s = ended_s or time.monotonic()
                    if not ready or time.monotonic() - ended_s >= DRAIN_S:
                        return

    def _take(self, stream: IO[bytes]) -> bool:
        data = os.read(stream.fileno(), CHUNK)
        if stream is self._out:
            room = self._limit - len(self._output)
            self.overflow = self.overflow or len(data) > room
            self._output += data[: max(0, room)]
        else:
            self._complaint = (self._complaint + data)[-COMPLAINT_LIMIT:]
        return bool(data)

    def texts(self) -> tuple[str, str]:
        return self._output.decode("utf-8", "replace"), self._complaint.decode("utf-8", "replace")

    def close(self) -> None:
        self._out.close()
        self._err.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what is left of the process's group; afterwards the process itself is reaped."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(KILL_AFTER_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
