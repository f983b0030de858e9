"""The run's one clock: UTC as anchored at the journal's first event, carried forward by the monotonic clock.

A wall clock that jumps in the middle of a run moves no row and no picture; `drift_ms` tells that it did.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from msgspec import Struct

from stormdrill.model.event import Recorded

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def utc_ms(at: str) -> float:
    """Milliseconds since 1970 of an ISO time with offset; 0 when it cannot be read."""
    try:
        found = datetime.fromisoformat(at)
    except ValueError:
        return 0.0
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    return (found - _EPOCH) / timedelta(milliseconds=1)


class Clock(Struct, frozen=True):
    mono_ms: float = 0.0
    utc_ms: float = 0.0

    def utc_ms_of(self, mono_ms: float) -> float:
        return self.utc_ms + (mono_ms - self.mono_ms)

    def moment(self, mono_ms: float) -> datetime:
        return _EPOCH + timedelta(milliseconds=round(self.utc_ms_of(mono_ms)))

    def time(self, mono_ms: float) -> str:
        """`20:14:28.610`, UTC."""
        return self.moment(mono_ms).strftime("%H:%M:%S.%f")[:-3]

    def date(self, mono_ms: float) -> str:
        return self.moment(mono_ms).strftime("%Y-%m-%d")

    def iso(self, mono_ms: float) -> str:
        return f"{self.date(mono_ms)}T{self.time(mono_ms)}Z"

    def clock_text(self, utc_ms: float, step_s: float) -> str:
        """A tick's label, as exact as its step needs."""
        moment = _EPOCH + timedelta(milliseconds=round(utc_ms))
        if step_s < 1:
            return moment.strftime("%M:%S.%f")[:-5]
        return moment.strftime("%H:%M:%S" if step_s < 60 else "%H:%M")


def anchored(events: Sequence[Recorded]) -> Clock:
    """The clock of a journal: its first written event says which UTC time belongs to which monotonic time."""
    if not events:
        return Clock()
    first = min(events, key=lambda recorded: recorded.seq)
    return Clock(first.mono_ms, utc_ms(first.at))


def drift_ms(events: Sequence[Recorded], clock: Clock) -> float:
    """How far the wall clock strayed from the monotonic one, at most; writing an event late counts a little."""
    return max((abs(utc_ms(item.at) - clock.utc_ms_of(item.mono_ms)) for item in events), default=0.0)
