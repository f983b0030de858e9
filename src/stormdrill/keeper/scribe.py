"""Writes the journal for the keeper, and knows what to do when it takes no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stormdrill.model.event import Event, KeeperStarted
from stormdrill.store.identity import own_identity
from stormdrill.store.journal import JournalUnwritable, JournalWriter


@dataclass(slots=True)
class Scribe:
    """`write` for what must be on the disk before going on, `note` for what must not hinder a revert."""

    journal: JournalWriter
    on_trouble: Callable[[str], None]
    """Told each time that something could not be written."""
    _introduced: bool = False

    def write(self, event: Event, mono_ms: float | None = None) -> int:
        """Raises JournalUnwritable. The run's own header stays the first line when it is the first to be written."""
        introduce = not self._introduced
        self._introduced = True
        if introduce and event.type != "run-started":
            self._introduce()
            introduce = False
        seq = self.journal.write(event, mono_ms)
        if introduce:
            self._introduce()
        return seq

    def note(self, event: Event) -> None:
        self._guarded(lambda: self.write(event))

    def sync_when_due(self) -> float | None:
        """Commit the group when its time has come; returns seconds until it will, None when all is on the disk."""
        if self.journal.sync_in_s == 0.0:
            self._guarded(self.journal.sync)
        return self.journal.sync_in_s

    def _introduce(self) -> None:
        me = own_identity()
        self.journal.write(KeeperStarted(me.pid, me.start_ticks))

    def _guarded(self, write: Callable[[], object]) -> None:
        try:
            write()
        except JournalUnwritable as error:
            self.on_trouble(str(error))
