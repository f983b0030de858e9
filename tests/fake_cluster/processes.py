"""Containers as local processes. Each is a session of its own with a mark in its environment: whatever carries the mark
of a Pod is the Pod's, also what left the session, and ends with it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

MARK = "FAKE_CLUSTER_POD"
"""Environment variable: uid of the Pod that a process belongs to."""
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """In the child: the kernel kills it when the thread that started it ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def argv_for(words: Sequence[str]) -> list[str]:
    """`python` is the one that runs the tests."""
    argv = list(words)
    if argv and Path(argv[0]).name in ("python", "python3"):
        argv[0] = sys.executable
    elif argv and argv[0] == "stormdrill":
        argv[:1] = [sys.executable, "-m", "stormdrill"]
    return argv


def base_environment() -> dict[str, str]:
    """What every container has from its image."""
    kept = ("PATH", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
    found = {name: os.environ[name] for name in kept if name in os.environ}
    return found | {"HOME": tempfile.gettempdir(), "PYTHONUNBUFFERED": "1"}


class LocalProcess:
    """One run of a container."""

    def __init__(
        self, argv: Sequence[str], environment: Mapping[str, str], log: Path, ended: Callable[[], None], cwd: Path
    ) -> None:
        """Raises OSError where there is no such program. `ended` is told from a thread of its own."""
        self._ended = ended
        self._told = False
        if not argv:
            raise FileNotFoundError("no command specified")
        with log.open("ab") as into:
            self._process = subprocess.Popen(
                argv_for(argv), env=dict(environment), stdin=subprocess.DEVNULL, stdout=into, stderr=into,
                start_new_session=True, preexec_fn=die_with_parent, cwd=cwd,
            )  # fmt: skip
        self._watch = threading.Thread(target=self._wait, daemon=True)
        self._watch.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """As a container's: 128 + n after signal n. None while it runs."""
        code = self._process.returncode
        return None if code is None else (128 - code if code < 0 else code)

    def _wait(self) -> None:
        # the group is killed while its leader still holds the number
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        _kill_group(self.pid)
        self._process.wait()
        self._ended()

    def terminate(self, *, first: bool = False) -> None:
        """Once: a second SIGTERM would say more than a kubelet does. `first`: it is the first process of its namespace,
        for which the kernel drops what it doesn't catch (yet)."""
        if not self._told and self._process.returncode is None:
            self._told = True
            if first and not _catches(self.pid, signal.SIGTERM):
                return
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)  # Popen.terminate would take its exit status

    def kill(self) -> None:
        if self._process.returncode is None:
            _kill_group(self.pid)

    def join(self, limit_s: float) -> None:
        self._watch.join(limit_s)


def _catches(pid: int, number: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return False
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def marked(uids: Iterable[str]) -> list[int]:
    """The processes that carry the mark of one of these Pods."""
    wanted = {f"{MARK}={uid}".encode() for uid in uids}
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue
        if not wanted.isdisjoint(environment.split(b"\0")):
            found.append(int(entry.name))
    return found


def kill_marked(uids: Iterable[str], limit_s: float = 5.0) -> None:
    """Until none is left: a process may have been forking, and dies a moment after the signal."""
    held, until = list(uids), time.monotonic() + limit_s
    while (left := marked(held)) and time.monotonic() < until:
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
