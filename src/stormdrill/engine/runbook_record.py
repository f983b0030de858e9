"""The record of a runbook that a person runs alone: one journal, written in this process.

There is no keeper process here, on purpose: what a runbook changes by hand is a mitigation, and it must not be undone
because a laptop died. Undos are journalled before the harm all the same, so that a person can have them executed.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from stormdrill.keeper.undo import combine, perform
from stormdrill.model.event import Armed, Event, Reverted, RevertStarted, RunEnded
from stormdrill.model.undo import Undo, undo_from_json, undo_to_json
from stormdrill.ports import Spawned
from stormdrill.redact import Redactor
from stormdrill.store.journal import NAME, JournalUnwritable, JournalWriter

STAYS = "meant to stay: a mitigation, done by hand"


class RunbookRecord:
    """`ports.Keeper` for a runbook alone. Raises JournalUnwritable where the keeper would be gone."""

    def __init__(self, writer: JournalWriter, undos: Mapping[str, Sequence[dict[str, object]]] | None = None) -> None:
        self._writer = writer
        self._lock = threading.RLock()
        self._undos: dict[str, tuple[Undo, ...]] = {
            name: tuple(undo_from_json(one) for one in undo) for name, undo in (undos or {}).items()
        }

    @classmethod
    def create(cls, run_dir: Path, redactor: Redactor) -> RunbookRecord:
        """Raises Refused."""
        return cls(JournalWriter.create(run_dir / NAME, redactor))

    @classmethod
    def resume(
        cls, run_dir: Path, redactor: Redactor, undos: Mapping[str, Sequence[dict[str, object]]]
    ) -> RunbookRecord:
        """Raises Refused while another process writes it."""
        return cls(JournalWriter.resume(run_dir / NAME, "runner", redactor)[0], undos)

    @property
    def armed(self) -> tuple[str, ...]:
        return tuple(self._undos)

    def record(self, event: Event, mono_ms: float | None = None) -> int:
        with self._lock:
            return self._writer.write(event, mono_ms)

    def arm(
        self, injection: str, *, fault: str, instance: str, mechanism: str, undo: Sequence[Undo], expires_in_s: float
    ) -> None:
        """Journalled without an expiry: nobody but a person undoes it."""
        written = [undo_to_json(one) for one in undo]
        self.record(Armed(injection, fault, instance, mechanism, written, expires_mono_ms=0.0, expires_at=""))
        self._undos[injection] = tuple(undo)

    def revert(self, injection: str, cause: str) -> str:
        with self._lock:
            undo = self._undos.get(injection)
            if undo is None:
                return "superseded"
            with contextlib.suppress(JournalUnwritable):  # undoing never waits for a disk
                self.record(RevertStarted(injection, cause, "runner"))
            outcome = combine(perform(one) for one in undo)
            if outcome.word != "failed":
                del self._undos[injection]
            with contextlib.suppress(JournalUnwritable):
                self.record(Reverted(injection, outcome.word, outcome.detail, 0.0))
            return outcome.word

    def disarm(self, injection: str) -> None:
        with self._lock:
            if self._undos.pop(injection, None) is not None:
                self.record(Reverted(injection, "superseded", STAYS, 0.0))

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
        raise AssertionError("a runbook alone owns no system")

    def stop(self, instance: str, timeout_s: float) -> None:
        raise AssertionError("a runbook alone owns no system")

    def teardown(self) -> list[str]:
        return []

    def close(self, status: str, reason: str) -> str:
        """Write the end and give the journal free; returns its head."""
        with self._lock:
            try:
                with contextlib.suppress(JournalUnwritable):
                    self._writer.write(RunEnded(status, reason))
                return self._writer.head
            finally:
                self._writer.close()
