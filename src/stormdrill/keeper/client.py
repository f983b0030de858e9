"""The runner's end of the socket: thread-safe, every call with a limit, KeeperGone when there is no answer."""

from __future__ import annotations

import contextlib
import json
import queue
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

from stormdrill.errors import KeeperGone, Refused, SystemNotReady
from stormdrill.keeper import wire
from stormdrill.keeper.claims import LIMIT_S as REMOVAL_LIMIT_S
from stormdrill.keeper.outcome import Outcome
from stormdrill.keeper.undo import limit_s as undo_limit_s
from stormdrill.model.event import Event, ResourcesClaimed, Spawned, event_to_json
from stormdrill.model.undo import Undo, undo_to_json
from stormdrill.store.holds import Hold
from stormdrill.store.identity import Identity, boot_id
from stormdrill.store.journal import JournalUnwritable

OnPush = Callable[[str, Mapping[str, object]], None]
"""Called with what the keeper tells unasked, in a thread of its own (it may call the keeper):

`process-exited` {instance, pid, code, signal, expected}; `reverted` {injection, cause, outcome, detail} for what it
reverted on its own; `abort` {by, reason, limit_s}: end the run within limit_s or the keeper does;
`journal-failed` {text, limit_s}: the same, and everything armed is being reverted;
`keeper-gone` {}: it ended or its socket broke before `close`.
"""
START_LIMIT_S = 15.0
CALL_LIMIT_S = 10.0


class _Call:
    __slots__ = ("answered", "reply")

    def __init__(self) -> None:
        self.answered = threading.Event()
        self.reply: Mapping[str, object] | None = None


class KeeperClient:
    """Satisfies `ports.Keeper`. After KeeperGone only `takeover.take_over` helps."""

    def __init__(self, process: subprocess.Popen[bytes], sock: socket.socket, on_push: OnPush | None, grace_s: float):
        self.on_push = on_push
        self.identity = Identity(process.pid, 0, boot_id())
        """The keeper process."""
        self._process = process
        self._sock = sock
        self._grace_s = grace_s
        self._sending = threading.Lock()
        self._calls: dict[int, _Call] = {}
        self._next_id = 0
        self._gone = ""
        self._closing = False
        self._undo_s: dict[str, float] = {}
        self._removal_s = 0.0
        self._started = threading.Event()
        self._refused = ""
        self._pushes: queue.SimpleQueue[tuple[str, Mapping[str, object]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, name="keeper-answers", daemon=True).start()
        threading.Thread(target=self._hand_out, name="keeper-pushes", daemon=True).start()

    @classmethod
    def start(
        cls,
        run_dir: Path,
        *,
        run: str,
        system: str,
        target: str,
        hold: Hold | None = None,
        on_push: OnPush | None = None,
        grace_s: float = 3.0,
        wait: bool = True,
    ) -> KeeperClient:
        """Start the keeper of a new run. `grace_s`: between SIGTERM and SIGKILL when tearing down.

        `wait`: until it is there; otherwise call `await_started` before anything else, and do other things meanwhile.
        Raises Refused when the journal cannot be written, KeeperGone when the keeper doesn't start.
        """
        ours, theirs = socket.socketpair()
        settings = {
            "run_dir": str(run_dir.resolve()),
            "fd": theirs.fileno(),
            "system": system,
            "target": target,
            "held": hold is not None,
            "grace_s": grace_s,
        }
        (run_dir / "logs").mkdir(exist_ok=True)
        with theirs, (run_dir / "logs" / "keeper.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "stormdrill.keeper", run, json.dumps(settings)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=run_dir,
                start_new_session=True,
                pass_fds=(theirs.fileno(),),
            )
        client = cls(process, ours, on_push, grace_s)
        if wait:
            client.await_started()
        return client

    def await_started(self) -> None:
        """Raises Refused when the journal cannot be written, KeeperGone when the keeper doesn't start."""
        self._started.wait(START_LIMIT_S)
        if self._refused:
            raise Refused(self._refused)
        if self._gone or not self._started.is_set():
            self._process.kill()
            raise KeeperGone("the keeper did not start; logs/keeper.log in the run directory says why")

    # --- ports.Keeper ---

    def record(self, event: Event, mono_ms: float | None = None) -> int:
        """Raises JournalUnwritable when it could not be written: end the run."""
        if isinstance(event, ResourcesClaimed):
            self._removal_s = REMOVAL_LIMIT_S
        reply = self._ask("record", {"type": event.type, "fields": event_to_json(event), "mono_ms": mono_ms})
        return cast("int", reply["seq"])

    def spawn(
        self,
        instance: str,
        *,
        service: str,
        role: str,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: str,
        address: str,
        labels: Mapping[str, str],
    ) -> Spawned:
        """Raises SystemNotReady when the command cannot be started."""
        spec = {
            "instance": instance,
            "service": service,
            "role": role,
            "argv": list(argv),
            "env": dict(env),
            "cwd": cwd,
            "address": address,
            "labels": dict(labels),
        }
        reply = self._ask("spawn", {"spec": spec})
        return Spawned(cast("int", reply["pid"]), cast("int", reply["start_ticks"]))

    def arm(
        self, injection: str, *, fault: str, instance: str, mechanism: str, undo: Sequence[Undo], expires_in_s: float
    ) -> None:
        """Raises ValueError when it is armed already, JournalUnwritable when the undo could not be written down."""
        self._undo_s[injection] = sum(undo_limit_s(item) for item in undo)
        self._ask(
            "arm",
            {
                "injection": injection,
                "fault": fault,
                "instance": instance,
                "mechanism": mechanism,
                "undo": [undo_to_json(item) for item in undo],
                "expires_in_s": expires_in_s,
            },
        )

    def revert(self, injection: str, cause: str) -> str:
        limit_s = CALL_LIMIT_S + self._undo_s.get(injection, 0.0)
        return str(self._ask("revert", {"injection": injection, "cause": cause}, limit_s)["outcome"])

    def disarm(self, injection: str) -> None:
        self._ask("disarm", {"injection": injection})

    def stop(self, instance: str, timeout_s: float) -> None:
        self._ask("stop", {"instance": instance, "timeout_s": timeout_s}, CALL_LIMIT_S + timeout_s)

    def teardown(self) -> list[str]:
        return list(cast("list[str]", self._ask("teardown", {}, self._end_limit_s())["left"]))

    def close(self, status: str, reason: str) -> str:
        self._closing = True
        head = str(self._ask("close", {"status": status, "reason": reason}, self._end_limit_s())["head"])
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(CALL_LIMIT_S)
        self._drop()
        return head

    # --- beyond the port ---

    def secret(self, name: str, value: str) -> None:
        """From now on `${secret:NAME}` in a process's env is this value, which is removed from all that is recorded.

        Raises ValueError when it is too short to be removed. It is held in memory and never written.
        """
        self._ask("secret", {"name": name, "value": value})

    def begin_revert(self, injection: str, cause: str) -> str:
        """This process is about to carry an undo out itself. Empty: do it, and tell with `tell_reverted`; else the
        outcome that it has had."""
        limit_s = CALL_LIMIT_S + self._undo_s.get(injection, 0.0)  # somebody may be at it
        return str(self._ask("revert-begin", {"injection": injection, "cause": cause}, limit_s)["outcome"])

    def revert_part(self, injection: str, index: int) -> Outcome:
        """Have the keeper carry out one of its words, which is not in a cluster."""
        limit_s = CALL_LIMIT_S + self._undo_s.get(injection, 0.0)
        told = self._ask("revert-part", {"injection": injection, "index": index}, limit_s)["outcome"]
        return Outcome(*cast("list[str]", told))

    def tell_reverted(self, injection: str, outcomes: Sequence[Outcome]) -> str:
        """What became of each of its words; returns done, failed or superseded."""
        told = [list(one) for one in outcomes]
        return str(self._ask("reverted", {"injection": injection, "outcomes": told})["outcome"])

    def open_in_clusters(self) -> list[str]:
        """What is held and not undone, in clusters at least in part, in the order of arming."""
        return list(cast("list[str]", self._ask("in-clusters", {})["open"]))

    def _end_limit_s(self) -> float:
        undo_s = 2 * sum(self._undo_s.values())  # what may come through late is undone twice
        return 2 * CALL_LIMIT_S + self._grace_s + self._removal_s + undo_s

    def _ask(self, op: str, fields: Mapping[str, object], limit_s: float = CALL_LIMIT_S) -> Mapping[str, object]:
        call = _Call()
        until = time.monotonic() + limit_s
        with self._sending:
            self._next_id += 1
            number = self._next_id
            data = wire.encode({"id": number, "op": op, **fields})
            self._calls[number] = call
            self._send(data, until)
        if self._gone or not call.answered.wait(max(0.0, until - time.monotonic())):
            self._calls.pop(number, None)
            if not call.answered.is_set():
                raise KeeperGone(self._gone or f"the keeper did not answer {op} within {limit_s:g} s")
        if call.reply is None:
            raise KeeperGone(self._gone)
        if "error" in call.reply:
            raise _error_of(str(call.reply["error"]), str(call.reply["text"]))
        return call.reply

    def _send(self, data: bytes, until: float) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self._sock.send(view, socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                poll = select.poll()
                poll.register(self._sock, select.POLLOUT)
                if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
                    self._give_up("the keeper reads nothing")
                    raise KeeperGone(self._gone) from None
            except OSError as error:
                self._give_up("the keeper is gone")
                raise KeeperGone(self._gone) from error

    def _read(self) -> None:
        lines = wire.Lines()
        while True:
            try:
                data = self._sock.recv(1 << 20)
            except OSError:
                data = b""
            if not data:
                break
            for message in lines.feed(data):
                self._take(message)
        self._give_up("the keeper is gone")
        if not self._closing:
            self._pushes.put(("keeper-gone", {}))
        self._pushes.put(None)
        self._started.set()

    def _take(self, message: Mapping[str, object]) -> None:
        kind = str(message.get("push", ""))
        data = cast("Mapping[str, object]", message.get("data", {}))
        if kind == "started":
            self.identity = Identity(cast("int", data["pid"]), cast("int", data["start_ticks"]), boot_id())
            self._started.set()
        elif kind == "refused":
            self._refused = str(data["text"])
            self._started.set()
        elif kind:
            self._pushes.put((kind, data))
        elif call := self._calls.pop(cast("int", message["id"]), None):
            call.reply = message
            call.answered.set()

    def _give_up(self, reason: str) -> None:
        self._gone = self._gone or reason
        for number in list(self._calls):
            if call := self._calls.pop(number, None):
                call.answered.set()

    def _hand_out(self) -> None:
        while (push := self._pushes.get()) is not None:
            if self.on_push is not None:
                self.on_push(*push)

    def _drop(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()


def _error_of(kind: str, text: str) -> Exception:
    known: dict[str, type[Exception]] = {
        "ValueError": ValueError,
        "SystemNotReady": SystemNotReady,
        "JournalUnwritable": JournalUnwritable,
        "Refused": Refused,
    }
    return known.get(kind, RuntimeError)(text)
