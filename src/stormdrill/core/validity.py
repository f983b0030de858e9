"""Whether the evidence may be believed, decided before anything is read from it, source by source.

- The **records** taint what rests on them as a whole: a lost worker, a file that is incomplete, changed, or of another
  boot, arrivals that were never sent, users that stopped by themselves.
- The **generator** taints the windows in which it dropped arrivals or was late with them.
- Somebody's **hands** taint every window that goes on after they took a fault away before its time, or the system.
- The **host** taints the windows in which strangers starved the system, and those in which nobody watched for that.
  What the fault itself starves does not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from stormdrill.core.evidence import DROPPED, RecordFile, Requests
from stormdrill.core.judge_hands import deletion, hands_of, taking
from stormdrill.core.judge_metrics import QUANTILE, quantile_of
from stormdrill.core.sentences import number
from stormdrill.core.windows import Span, all_of
from stormdrill.model import event as ev
from stormdrill.model.expression import Comparison
from stormdrill.model.plan import Plan

LEAST_SENT = 0.995
"""Of what was scheduled."""
LAG_SHARE = 0.1
"""Of the tightest latency that is asked for: the lag that 99% of the requests must stay within."""
FOREIGN_CORES = 0.5
"""The share that strangers take of the cores that the run may use. Four hogs on two cores take 0.8 to 0.9, a quiet
machine's background 0.05."""
RUN_DELAY = 0.5
"""Share of the time in which a thread could have run that it waited for a core instead. Measured with the platform on
two cores: 0.2 to 0.35 without strangers, 0.6 to 0.8 with four hogs; at higher rates 0.24 to 0.29 and 0.75."""
STARVED_SHARE = 0.1
"""Of a window's time. A single busy second of twenty is no reason, two are."""
LEAST_WATCHED = 0.8
"""Of a window's time that samples of the host must speak of. Without them nobody knows whether it was starved."""
CLOCK_ERROR_MS = 50.0
"""The most by which the times of a worker on another machine may be off, where it may not lag by even less."""
SLACK_MS = 2000.0
"""The most by which the first and the last sample of a window speak beyond their own interval."""


DISTRUST = "not to be believed: "
"""How such a sentence begins; what is INVALID by what was found out begins otherwise."""


class Taint(Struct, frozen=True):
    """One reason not to believe, and what it speaks of."""

    source: str
    """records, generator, hands or host"""
    reason: str
    events: tuple[int, ...] = ()


def distrusted(taint: Taint, sentence: str) -> str:
    """A sentence about evidence that is not to be believed, the reason in front."""
    return f"{DISTRUST}{taint.reason}. {sentence}"


class Validity:
    """Asked for each window; several objectives share one."""

    def __init__(
        self,
        plan: Plan,
        events: Sequence[ev.Recorded],
        records: Sequence[RecordFile],
        requests: Requests,
        *,
        live: bool,
    ) -> None:
        self.requests = requests
        self.lag_limit_ms = _lag_limit_ms(plan, requests)
        self.records = (
            ()
            if plan.experiment.load is None
            else tuple(_record_taints(events, records, requests, live, self.lag_limit_ms))
        )
        self._samples = all_of(events, ev.HostSampled)
        self._hands, self._deletion = hands_of(plan, events), deletion(events)
        self._generator: dict[tuple[float, float], tuple[Taint, ...]] = {}
        self._cores = next((event.cores for _, event in all_of(events, ev.RunStarted)), 1)

    def generator(self, span: Span) -> tuple[Taint, ...]:
        """Drops and lag of all requests intended in the window, whatever their labels: one generator makes them all."""
        key = (span.start_ms, span.end_ms)
        if key not in self._generator:
            self._generator[key] = self._look(span)
        return self._generator[key]

    def _look(self, span: Span) -> tuple[Taint, ...]:
        requests = self.requests.between(span.start_ms, span.end_ms)
        taints = []
        dropped = int(np.count_nonzero(requests.outcome == DROPPED))
        if dropped:
            taints.append(Taint("generator", f"the generator dropped {dropped:,} of {len(requests):,} arrivals"))
        lag_ms = lag_p99_ms(requests)
        if lag_ms > self.lag_limit_ms:
            why = f"the generator was late: lag p99 {lag_ms:.1f} ms, {self.lag_limit_ms:.1f} ms is the most"
            taints.append(Taint("generator", why))
        return tuple(taints)

    def late(self, span: Span, limit_ms: float) -> tuple[Taint, ...]:
        """Lag against a latency limit that is known only when it is judged: one relative to the baseline."""
        lag_ms = lag_p99_ms(self.requests.between(span.start_ms, span.end_ms))
        if not lag_ms > LAG_SHARE * limit_ms:
            return ()
        why = f"the generator was late in the {span.name}: lag p99 {lag_ms:.1f} ms, and the limit is {limit_ms:.0f} ms"
        return (Taint("generator", why),)

    def host(self, span: Span) -> tuple[Taint, ...]:
        """Starved by strangers: much CPU used by others while the system's runnable threads waited for a core."""
        seen_ms = starved_ms = 0.0
        worst: tuple[float, float, int, int] | None = None
        for recorded, event in self._samples:
            start_ms = max(span.start_ms, recorded.mono_ms - event.interval_ms)
            overlap_ms = min(span.end_ms, recorded.mono_ms) - start_ms
            if overlap_ms <= 0:
                continue
            seen_ms += overlap_ms
            waited = waiting_share(event)
            # a kernel that doesn't tell run delay leaves the strangers' CPU alone to judge by
            cores = event.cores or self._cores
            if event.foreign_cpu >= FOREIGN_CORES * cores and (waited >= RUN_DELAY or not event.schedstat):
                starved_ms += overlap_ms
                worst = max(worst or (0.0, 0.0, 0, 0), (event.foreign_cpu, waited, recorded.seq, cores))
        if worst is None or starved_ms <= STARVED_SHARE * seen_ms:
            return self._unwatched(span)
        why = (
            f"other programs starved this machine for {number(starved_ms / 1000)} of {number(seen_ms / 1000)} s "
            f"(up to {worst[0]:.1f} of {worst[3]} cores theirs; ours waited {worst[1]:.0%} of the time for one)"
        )
        return (Taint("host", why, (worst[2],)),)

    def _unwatched(self, span: Span) -> tuple[Taint, ...]:
        """Too few samples to say that nobody starved the system. What was cut short can't pass anyhow."""
        length_ms = span.end_ms - span.start_ms
        if length_ms <= 0 or not span.complete:
            return ()
        blind_ms = length_ms - watched_ms(self._samples, span)
        if blind_ms <= (1 - LEAST_WATCHED) * length_ms:
            return ()
        why = f"nobody watched the host for {number(blind_ms / 1000)} of {number(length_ms / 1000)} s"
        return (Taint("host", why, span.events),)

    def of(self, span: Span, *, from_records: bool) -> tuple[Taint, ...]:
        """All that taints one window. What an alert did doesn't rest on how many requests were sent."""
        if not from_records:
            return (*self.hands(span), *self.host(span))
        return (*self.records, *self.generator(span), *self.hands(span), *self.host(span))

    def hands(self, span: Span) -> tuple[Taint, ...]:
        """What is seen after a fault was taken away says nothing of how the system bears it, nor gets over it; and once
        the system is deleted nothing is seen of it at all."""
        found = tuple(Taint("hands", hand.sentence, (hand.seq,)) for hand in taking(self._hands, span))
        if self._deletion is None or self._deletion[0] >= span.end_ms:
            return found
        return (Taint("hands", self._deletion[2], (self._deletion[1].seq,)), *found)


def watched_ms(samples: Sequence[tuple[ev.Recorded, ev.HostSampled]], span: Span) -> float:
    """How much of a window the samples speak of: each of the interval before it.

    The window's edges fall anywhere between two samples, and one of 2 s may hold a single one: the first sample speaks
    of one interval more before it, the last of one more after it. Between two samples nothing is forgiven.
    """
    pieces = []
    for recorded, event in samples:
        slack_ms = min(event.interval_ms, SLACK_MS)
        start_ms, end_ms = recorded.mono_ms - event.interval_ms, recorded.mono_ms
        if end_ms + slack_ms > span.start_ms and start_ms - slack_ms < span.end_ms:
            pieces.append((start_ms, end_ms, slack_ms))
    if not pieces:
        return 0.0
    pieces.sort()
    first, last = pieces[0], max(pieces, key=lambda piece: piece[1])
    reached_ms, seen_ms = max(span.start_ms, first[0] - first[2]), 0.0
    for start_ms, end_ms, _ in [(reached_ms, first[0], 0.0), *pieces, (last[1], last[1] + last[2], 0.0)]:
        end_ms = min(end_ms, span.end_ms)
        seen_ms += max(0.0, end_ms - max(start_ms, reached_ms))
        reached_ms = max(reached_ms, end_ms)
    return seen_ms


def waiting_share(event: ev.HostSampled) -> float:
    """The worse of what the system and the generator waited of the time in which they could have run."""
    return max(event.platform_run_delay, event.generator_run_delay)


def lag_p99_ms(requests: Requests) -> float:
    """Of all that were sent; 0 without requests."""
    lags = requests.lag_us[requests.outcome != DROPPED]
    if not len(lags):
        return 0.0
    rank = max(0, -(-99 * len(lags) // 100) - 1)
    return float(np.partition(lags, rank)[rank]) / 1000


def _lag_limit_ms(plan: Plan, requests: Requests) -> float:
    limits_s = []
    for objective in plan.experiment.objectives:
        expression = objective.expression
        if isinstance(expression, Comparison) and QUANTILE.fullmatch(expression.metric) and not expression.relative:
            assert quantile_of(expression.metric) is not None
            limits_s.append(expression.limit)
    # a success is an answer within its deadline, so that each deadline is a latency that is asked for
    limits_s += [kind.deadline_ms / 1000 for kind in requests.kinds]
    if not requests.kinds and plan.profile is not None:
        limits_s += [stream.deadline_s for stream in plan.profile.every_stream]
    return LAG_SHARE * min(limits_s, default=1.0) * 1000


def _record_taints(
    events: Sequence[ev.Recorded],
    records: Sequence[RecordFile],
    requests: Requests,
    live: bool,
    lag_limit_ms: float,
) -> list[Taint]:
    boots = {event.boot_id for _, event in all_of(events, ev.RunStarted)}
    compared = {event.file for _, event in all_of(events, ev.LoadClockCompared)}
    strangers = [record.file for record in records if record.boot_id not in boots and record.file not in compared]
    taints = [_lost(recorded, event) for recorded, event in all_of(events, ev.LoadWorkerLost)]
    taints += [_led(recorded, event) for recorded, event in all_of(events, ev.LoadStarted) if event.through]
    if not records:
        taints.append(Taint("records", "there are no request records"))
    if strangers:
        why = f"{', '.join(strangers)} is from another boot of the machine: its clock is not the journal's"
        taints.append(Taint("records", why))
    taints += _clock_taints(events, records, lag_limit_ms)
    if live:
        return taints
    return taints + _file_taints(events, records) + _count_taints(events, requests)


def _lost(recorded: ev.Recorded, event: ev.LoadWorkerLost) -> Taint:
    who = f"load worker {event.worker} was" if event.file else f"{event.worker} and with it every load worker were"
    return Taint("records", f"{who} lost: {event.detail}", (recorded.seq,))


def _led(recorded: ev.Recorded, event: ev.LoadStarted) -> Taint:
    why = f"the load was sent through {event.through}, for looking only: what was measured is that way too"
    return Taint("records", why, (recorded.seq,))


def clock_errors_ms(events: Sequence[ev.Recorded], records: Sequence[RecordFile]) -> dict[str, float]:
    """By how much the times of each file may be off on the journal's clock, where they may: the worst that is known."""
    found = {record.file: record.clock_error_ms for record in records if record.clock_error_ms > 0}
    for _, event in all_of(events, ev.LoadClockCompared):
        found[event.file] = max(found.get(event.file, 0.0), event.error_ms)
    return found


def _clock_taints(events: Sequence[ev.Recorded], records: Sequence[RecordFile], lag_limit_ms: float) -> list[Taint]:
    """Latency is measured on one clock; but a clock that is known too badly moves requests into another phase."""
    limit_ms = min(CLOCK_ERROR_MS, lag_limit_ms)
    names = {event.file: (recorded.seq, event.worker) for recorded, event in all_of(events, ev.LoadClockCompared)}
    taints = []
    for file, error_ms in sorted(clock_errors_ms(events, records).items()):
        if error_ms > limit_ms:
            seq, worker = names.get(file, (0, file))
            why = f"the clock of load worker {worker} is known to {error_ms:.1f} ms only, {limit_ms:.1f} ms is the most"
            taints.append(Taint("records", why, (seq,) if seq else ()))
    return taints


def _file_taints(events: Sequence[ev.Recorded], records: Sequence[RecordFile]) -> list[Taint]:
    closed = {event.file: (recorded.seq, event) for recorded, event in all_of(events, ev.RecordClosed)}
    taints = []
    for record in records:
        seq, event = closed.get(record.file, (0, None))
        if event is None or not event.complete or record.torn:
            seqs = (seq,) if event else ()
            taints.append(Taint("records", f"{record.file} is incomplete: its writer died before closing it", seqs))
        elif not record.intact:
            taints.append(Taint("records", f"{record.file} was changed after it was closed", (seq,)))
    read = {record.file for record in records}
    for file, (seq, event) in sorted(closed.items()):
        if event is not None and file.endswith(".records") and file not in read:
            taints.append(Taint("records", f"{file} is missing or cannot be read", (seq,)))
    return taints


def _count_taints(events: Sequence[ev.Recorded], requests: Requests) -> list[Taint]:
    ended = all_of(events, ev.LoadEnded)
    if not ended:
        return [Taint("records", "the generator never said how much it had sent: it was lost")]
    recorded, event = ended[-1]
    seqs = (recorded.seq,)
    taints = []
    if event.lost_workers and not all_of(events, ev.LoadWorkerLost):  # which names them
        taints.append(Taint("records", f"{event.lost_workers} of the generator's workers were lost", seqs))
    if event.fewest_users < event.users:
        why = f"only {event.fewest_users} of {event.users} users were alive: the others stopped by themselves"
        taints.append(Taint("records", why, seqs))
    if len(requests) < event.scheduled:
        why = f"{event.scheduled - len(requests):,} of {event.scheduled:,} scheduled requests have no record"
        taints.append(Taint("records", why, seqs))
    elif len(requests) > event.scheduled:
        why = f"{len(requests):,} requests are recorded and {event.scheduled:,} were scheduled: some stand there twice"
        taints.append(Taint("records", why, seqs))
    seen = int(np.count_nonzero(requests.outcome == DROPPED))
    if event.dropped > seen:
        taints.append(Taint("records", f"the generator dropped {event.dropped:,} arrivals and recorded {seen:,}", seqs))
    if event.scheduled and event.sent < LEAST_SENT * event.scheduled:
        taints.append(
            Taint("records", f"only {event.sent:,} of {event.scheduled:,} scheduled requests were sent", seqs)
        )
    return taints
