"""rejection-contract: what is turned away is told so in words that a client can act on: 429 or 503, with a Retry-After
that can be read; coming back then helps; and not everybody is told to come back in the same second."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stormdrill.core.backpressure.asked import RejectionContract
from stormdrill.core.backpressure.capacity import share_asked
from stormdrill.core.backpressure.checking import check
from stormdrill.core.backpressure.figures import at_least, at_most, figure, percent, told
from stormdrill.core.backpressure.finding import Answer, conclude, unknown
from stormdrill.core.backpressure.pools import Pool, evened, merged, pooled, together
from stormdrill.core.backpressure.stages import Stretch, pressed, served_share, stages_of
from stormdrill.core.case import Case
from stormdrill.core.evidence import ANSWERED, DROPPED, GARBLED, REFUSED, RETRY_AFTER, Requests
from stormdrill.core.intervals import Interval, share_interval
from stormdrill.core.sentences import quantity
from stormdrill.core.statistics import clopper_pearson, minimum_samples
from stormdrill.model.verdict import CheckVerdict, Word

WORD = "rejection-contract"
TOO_MANY, UNAVAILABLE, SERVER_ERROR = 429, 503, 500
EARLY_US = 50_000.0
"""By which a client may come back early and still have obeyed: its clock and its sleep are not exact."""
SECOND_MS = 1000.0
LONGEST_TOLD_S = 255
"""What a record can hold of a Retry-After: longer ones are cut."""
CROWD = 1.25
"""By which a second may have more than is usual where there is room: arrivals are not even."""
Mask = NDArray[np.bool_]


def judge(case: Case, asked: RejectionContract) -> CheckVerdict:
    spans = pressed(case)
    if not spans:
        return conclude(case, WORD, [unknown("the run never came to any load that is judged")], ())
    pools = pooled(case.attempts, spans)
    away = [turned_away(pool.requests) for pool in pools]
    kept = [mask & _proper(pool.requests) for pool, mask in zip(pools, away, strict=True)]
    good, total = together(pools, kept), together(pools, away)
    even = evened(total)
    share = percent(share_interval(merged(good, even), merged(total, even), case.seed))
    least = float(asked.least.rstrip("%"))
    figures = [figure("rejected as agreed", share, "%", least)]
    if not share.n:
        nothing = "nothing was turned away: how it would have been isn't known"
        return conclude(case, WORD, [unknown(nothing)], spans, figures=figures)
    parts = [_agreed(share, least, pools, away, kept)]
    same, parted = _spread(pools, kept, float(asked.same.rstrip("%")))
    back, obeyed = _obeyed(case, float(asked.obeyed.rstrip("%")))
    figures.append(figure("told to come at one time", same, "%", float(asked.same.rstrip("%"))))
    figures.append(figure("served on their return", back, "%", float(asked.obeyed.rstrip("%"))))
    return conclude(case, WORD, [*parts, parted, obeyed], spans, figures=figures)


def turned_away(requests: Requests) -> Mask:
    """Rejections, and what a system does instead of one: failing, or not even accepting the connection."""
    failed = (requests.outcome == ANSWERED) & (requests.status >= SERVER_ERROR)
    found: Mask = requests.rejected | failed | (requests.outcome == REFUSED)
    return found


def _proper(requests: Requests) -> Mask:
    readable = ((requests.flags & RETRY_AFTER) != 0) & ((requests.flags & GARBLED) == 0)
    found: Mask = requests.rejected & readable
    return found


def _agreed(share: Interval, least: float, pools: Sequence[Pool], away: Sequence[Mask], kept: Sequence[Mask]) -> Answer:
    word = at_least(share, least)
    text = f"{told(share, '%')} of {share.n:,} that were turned away got 429 or 503 and a Retry-After that can be read"
    text += f"; {quantity(least, '%')} was asked"
    broken = _broken(pools, away, kept)
    fewest = minimum_samples(least / 100) if least < 100 else 0
    if word == "INCONCLUSIVE" and share.n < fewest:
        text += f"; {fewest} are the fewest that can show it"
    return Answer(word, text + (f" ({broken})" if broken else ""))


def _broken(pools: Sequence[Pool], away: Sequence[Mask], kept: Sequence[Mask]) -> str:
    """What the others got: `12 without Retry-After, 3 x 500`."""
    bare = garbled = refused = 0
    others: dict[int, int] = {}
    for pool, mask, good in zip(pools, away, kept, strict=True):
        bad = pool.requests.where(mask & ~good)
        unread = (bad.flags & GARBLED) != 0
        rejected = bad.rejected
        garbled += int(np.count_nonzero(rejected & unread))
        bare += int(np.count_nonzero(rejected & ~unread))
        refused += int(np.count_nonzero(bad.outcome == REFUSED))
        for status in bad.status[~rejected & (bad.outcome != REFUSED)].tolist():
            others[status] = others.get(status, 0) + 1
    said = [f"{bare:,} without Retry-After"] if bare else []
    said += [f"{garbled:,} with one that can't be read"] if garbled else []
    said += [f"{refused:,} refused or cut connections"] if refused else []
    return ", ".join(said + [f"{count:,} x {status}" for status, count in sorted(others.items())])


def _spread(pools: Sequence[Pool], kept: Sequence[Mask], most: float) -> tuple[Interval, Answer]:
    """What share the commonest value has. It is the values that are looked at, not when they came: no blocks."""
    values = np.concatenate([pool.requests.retry_after_s[mask] for pool, mask in zip(pools, kept, strict=True)])
    if not len(values):
        return Interval(np.nan, 0.0, 1.0, 0), Answer("PASS", "")  # what is missing has been said
    counts = np.bincount(values, minlength=1)
    common, n = int(counts.argmax()), len(values)
    low, high = clopper_pearson(int(counts[common]), n)
    share = percent(Interval(int(counts[common]) / n, low, high, n))
    text = f"{told(share, '%')} of them were told to come back in {common} s"
    word = at_most(share, most)
    if common >= LONGEST_TOLD_S and word != "PASS":
        many = f"{told(share, '%')} of them were told to come back in {LONGEST_TOLD_S} s or later"
        return share, unknown(f"{many}, and nothing longer is recorded: whether those times differ isn't known")
    if word == "PASS" and (second := _one_second(pools, kept, most)):
        return share, Answer("FAIL", f"{second}; at most {quantity(most, '%')} was asked")
    if word == "PASS":
        return share, Answer(word, f"they were spread: {text}")
    crowd = f"{text}, all in one crowd" if word == "FAIL" else text
    return share, Answer(word, f"{crowd}; at most {quantity(most, '%')} was asked")


def _one_second(pools: Sequence[Pool], kept: Sequence[Mask], most: float) -> str:
    """Told in seconds that differ, and all meaning the same moment, as a date does: how many, in words. Waits are
    rounded up to seconds, so that two that follow each other are one. Empty where the rejections themselves came in
    such a crowd."""
    for pool, mask in zip(pools, kept, strict=True):
        found = pool.requests.where(mask)
        if not len(found):
            continue
        done_s = (found.at_ms + found.latency_us / 1000) / 1000
        back, came = _crowd(done_s + found.retry_after_s), _crowd(done_s)
        if back.low * 100 > most and came.value * 100 < most:
            who = f"{told(percent(back), '%')} of {len(found):,}"
            return f"{who} were told to come back at the same moment, all in one crowd"
    return ""


def _crowd(at_s: NDArray[np.float64]) -> Interval:
    """The largest share in two seconds that follow each other."""
    counts = np.bincount((np.floor(at_s) - np.floor(at_s.min())).astype(np.int64))
    both = counts + np.append(counts[1:], 0)
    most, n = int(both.max()), len(at_s)
    low, high = clopper_pearson(most, n)
    return Interval(most / n, low, high, n)


def _obeyed(case: Case, least: float) -> tuple[Interval, Answer]:
    """Those who came back no earlier than they were told to, and found no overload. What a client is promised while the
    overload lasts, nobody can keep. Too few of them count neither for nor against."""
    again, served = _came_back(case)
    n, good = int(np.count_nonzero(again)), int(np.count_nonzero(again & served))
    if not n:
        return Interval(np.nan, 0.0, 1.0, 0), Answer("PASS", "nobody came back as told once there was room")
    low, high = clopper_pearson(good, n)
    share = percent(Interval(good / n, low, high, n))
    text = f"{told(share, '%')} of {n:,} who came back as told, once there was room, were served"
    word: Word = "FAIL" if share.high < least else "PASS"
    if word == "FAIL":
        return share, Answer(word, f"{text}; {quantity(least, '%')} was asked")
    return share, Answer(word, text if share.low >= least else f"{text}, too few to be sure")


def _came_back(case: Case) -> tuple[Mask, Mask]:
    """Of all attempts: whether it is a return as told, to a system with room; and whether it was served."""
    attempts = case.attempts
    nothing = np.zeros(0, dtype=np.bool_)
    if not len(attempts) or not int(attempts.attempt.max()):
        return nothing, nothing
    relevant = attempts.where((attempts.attempt > 0) | ((attempts.flags & RETRY_AFTER) != 0))
    order = np.lexsort((relevant.attempt, relevant.job))
    job, number = relevant.job[order], relevant.attempt[order].astype(np.int64)
    done_us, after_s = relevant.latency_us[order].astype(np.float64), relevant.retry_after_s[order].astype(np.float64)
    sent_us, flags = relevant.sent_us[order].astype(np.float64), relevant.flags[order]
    follows = np.zeros(len(job), dtype=np.bool_)
    follows[1:] = (job[1:] == job[:-1]) & (number[1:] == number[:-1] + 1) & ((flags[:-1] & RETRY_AFTER) != 0)
    waited = np.zeros(len(job))
    waited[1:] = sent_us[1:] - done_us[:-1] - after_s[:-1] * 1e6
    again = follows & (waited >= -EARLY_US) & _room(case, relevant.at_ms[order] + sent_us / 1000)
    return again, relevant.acknowledged[order]


def _room(case: Case, at_ms: NDArray[np.float64]) -> Mask:
    """Whether everybody could have been served at each moment: so little was asked for, about that time nobody who came
    for the first time was turned away, and in that second came no more, again or for the first time, than are served
    where there is room. Where all come again, they are an overload of their own."""
    stages = stages_of(case)
    roomy = [stage for stage in stages if _has_room(case, stage)]
    spans = [stage.settled for stage in roomy]
    if not stages:
        spans = [case.spans[name] for name in ("recovery", "failback") if name in case.spans]
    found = np.zeros(len(at_ms), dtype=np.bool_)
    for span in spans:
        found |= (at_ms >= span.start_ms) & (at_ms < span.end_ms)
    if not found.any():
        return found
    sent = case.attempts.where(case.attempts.outcome != DROPPED)
    second = np.floor((sent.at_ms + sent.sent_us / 1000) / SECOND_MS)
    new, then = sent.attempt == 0, np.floor(at_ms / SECOND_MS)
    full = np.unique(second[new & turned_away(sent)])
    found &= np.isin(then, second[new]) & ~np.isin(then, np.concatenate([full - 1, full, full + 1]))
    if roomy:
        seconds, count = np.unique(second, return_counts=True)
        most = CROWD * max(stage.offered_per_s for stage in roomy) * SECOND_MS / 1000
        found &= ~np.isin(then, seconds[count > most])
    return found


def _has_room(case: Case, stage: Stretch) -> bool:
    """Nothing speaks against that everybody was served then. Where a system doesn't recover, there is no room."""
    return bool(stage.n) and served_share(case, stage.settled).high >= share_asked(case)


CHECK = check(WORD, judge)
