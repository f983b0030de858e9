"""What a region counts, under the names that /metrics shows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Tally:
    tries_total: int = 0
    """Jobs admitted, and each lease after a job's first one, but for those that go on with what gave way to more urgent
    work: that is no second try."""
    jobs_done_total: int = 0
    jobs_fenced_total: int = 0
    jobs_requeued_total: int = 0
    jobs_superseded_total: int = 0
    jobs_preempted_total: int = 0
    jobs_restarted_total: int = 0
    """Leased again from before a checkpoint that was due: progress that should have been kept."""
    rejoins_total: int = 0
    work_lost_seconds_total: float = 0.0
    """Steps that were done, and were covered by no checkpoint when their lease ended."""
    residency_broken_total: int = 0
    """Done here, although they had to stay elsewhere."""
    unmarked_stale_total: int = 0
    """Reports from old data that didn't say so."""

    def shown(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in self.__slots__}
