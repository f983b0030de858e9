"""cheap-rejection: who can't be served is told so at once: p99 of 429 and 503 within a tenth of the deadline, and
hardly anybody waits in vain instead. Attempts are judged, each from the moment in which it was sent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stormdrill.core.backpressure.asked import CheapRejection
from stormdrill.core.backpressure.capacity import Overload, climbed, overloads
from stormdrill.core.backpressure.checking import check
from stormdrill.core.backpressure.figures import MOST_US, at_most, figure, percent, scaled, told
from stormdrill.core.backpressure.finding import Answer, conclude, unknown
from stormdrill.core.backpressure.pools import Pool, evened, merged, pooled, together
from stormdrill.core.backpressure.rejection_contract import turned_away
from stormdrill.core.case import Case
from stormdrill.core.evidence import Requests
from stormdrill.core.intervals import Interval, quantile_interval, share_interval
from stormdrill.core.sentences import quantity
from stormdrill.core.statistics import minimum_samples
from stormdrill.model.verdict import CheckVerdict, Word

WORD = "cheap-rejection"
QUANTILE = 0.99
UP_TO = 3.0
PARTS = 1_000_000
"""Of a deadline."""
MOST_NAMED = 3
"""Windows; of more it is said how many they are."""


def judge(case: Case, asked: CheapRejection) -> CheckVerdict:
    """All windows together: how rejections are made doesn't depend on how many there are. One that the staircase
    doesn't reach is no loss while the others turn enough away."""
    windows, missing = overloads(case, UP_TO)
    if not windows:
        return conclude(case, WORD, [unknown(missing)], ())
    spans, where = [window.span for window in windows], _where(windows)
    pools = pooled(case.attempts, spans)
    spans = [*climbed(case), *spans]
    most, timeouts = float(asked.most.rstrip("%")), float(asked.timeouts.rstrip("%"))
    quick, vain = percent(_took(case, pools)), percent(_in_vain(case, pools, most / 100))
    figures = [
        figure("p99 of rejections, of the deadline", quick, "%", most),
        figure("waited in vain", vain, "%", timeouts),
    ]
    if not vain.n:
        nothing = f"nothing was turned away {where}: there was no overload to see it by"
        return conclude(case, WORD, [unknown(nothing)], spans, figures=figures)
    return conclude(case, WORD, [_quick(quick, most, where), _vain(vain, timeouts)], spans, figures=figures)


def _where(windows: Sequence[Overload]) -> str:
    if len(windows) > MOST_NAMED:
        return f"in {len(windows)} surges"
    return " and ".join(window.text for window in windows)


def _took(case: Case, pools: Sequence[Pool]) -> Interval:
    """In deadlines, from being sent to being rejected."""
    masks = [pool.requests.rejected for pool in pools]
    block = np.concatenate([pool.block[mask] for pool, mask in zip(pools, masks, strict=True)])
    parts = []
    for pool, mask in zip(pools, masks, strict=True):
        parts.append(np.minimum(_deadlines(pool.requests.where(mask)) * PARTS, MOST_US).astype(np.uint32))
    even = evened(together(pools, masks))
    interval = quantile_interval(np.concatenate(parts), even[block], int(even[-1]) + 1, QUANTILE, case.seed)
    return scaled(interval, 1 / PARTS)


def _in_vain(case: Case, pools: Sequence[Pool], quick: float) -> Interval:
    """Of all that were not served: those who gave up, and those to whom something else than a rejection came so late
    as none may come, an error for instance."""
    unserved = [pool.requests.timed_out | turned_away(pool.requests) for pool in pools]
    in_vain = [
        mask & ~pool.requests.rejected & (pool.requests.timed_out | (_deadlines(pool.requests) > quick))
        for mask, pool in zip(unserved, pools, strict=True)
    ]
    waited, total = together(pools, in_vain), together(pools, unserved)
    even = evened(total)
    return share_interval(merged(waited, even), merged(total, even), case.seed)


def _deadlines(requests: Requests) -> NDArray[np.float64]:
    """From being sent to being over, in deadlines."""
    took_us = np.maximum(requests.latency_us.astype(np.float64) - requests.sent_us, 0.0)
    found: NDArray[np.float64] = took_us / np.maximum(requests.deadline_us, 1.0)
    return found


def _quick(quick: Interval, most: float, where: str) -> Answer:
    if not quick.n:
        return unknown(f"nothing was rejected {where}")
    word = at_most(quick, most)
    text = f"99% of {quick.n:,} rejections {where} took at most {told(quick, '%')} of the deadline"
    return Answer(word, f"{text}; at most {quantity(most, '%')} was asked{_few(word, quick.n, QUANTILE)}")


def _vain(vain: Interval, timeouts: float) -> Answer:
    word = at_most(vain, timeouts)
    text = f"{told(vain, '%')} of {vain.n:,} that were not served waited in vain instead of being turned away"
    return Answer(word, f"{text}; at most {quantity(timeouts, '%')} was asked{_few(word, vain.n, 1 - timeouts / 100)}")


def _few(word: Word, n: int, share: float) -> str:
    fewest = minimum_samples(share) if 0 <= share < 1 else 0
    return f"; {fewest} are the fewest that can show it" if word == "INCONCLUSIVE" and n < fewest else ""


CHECK = check(WORD, judge)
