"""How far a worker's monotonic clock is from the master's, and how well that is known. Pure.

Cristian's algorithm (1989): a question at `sent`, answered at `there` on the other clock, back at `back`. Whenever in
between the other clock was read, the offset there - (sent + back)/2 is wrong by at most half of the way there and
back. The shortest way is the best known one. What two comparisons differ by is drift, and is added to the error.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from msgspec import Struct


class Look(NamedTuple):
    """One question and its answer; `sent_s` and `back_s` on the master's clock, `there_s` on the worker's."""

    sent_s: float
    there_s: float
    back_s: float


class Compared(Struct, frozen=True):
    """What is known of one worker's clock."""

    offset_ms: float
    """The worker's clock is so much ahead of the master's."""
    error_ms: float
    """By so much the offset may be wrong."""
    round_trip_ms: float
    """The shortest way there and back."""


def compare(looks: Iterable[Look]) -> Compared:
    """Raises ValueError without a look."""
    found = [look for look in looks if look.back_s >= look.sent_s]
    if not found:
        raise ValueError("nobody answered")
    best = min(found, key=lambda look: look.back_s - look.sent_s)
    trip_s = best.back_s - best.sent_s
    offset_s = best.there_s - (best.sent_s + best.back_s) / 2
    return Compared(offset_s * 1e3, trip_s * 1e3 / 2, trip_s * 1e3)


def drifted(before: Compared, after: Compared) -> Compared:
    """The second comparison, with all that the offset of the first one may have become wrong by since."""
    error_ms = max(before.error_ms, after.error_ms) + abs(after.offset_ms - before.offset_ms)
    return Compared(after.offset_ms, error_ms, after.round_trip_ms)
