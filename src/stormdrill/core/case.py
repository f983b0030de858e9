"""One run laid out for judging: evidence, phases, validity, and what every judge of one objective hands back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cached_property

from msgspec import Struct

from stormdrill.core.evidence import RecordFile, Requests, requests_of
from stormdrill.core.intervals import Interval
from stormdrill.core.jobs import Jobs, jobs_of
from stormdrill.core.judge_hands import hands_of
from stormdrill.core.judge_metrics import RESIDENCY
from stormdrill.core.reach import TAKING, who
from stormdrill.core.telling import Ending, Endings
from stormdrill.core.validity import Validity, clock_errors_ms
from stormdrill.core.windows import Span, all_of, call_of, first_call, first_inject, in_force_since, phases
from stormdrill.model import event as ev
from stormdrill.model.mechanism import Sever
from stormdrill.model.plan import Injection, Plan
from stormdrill.ports import LedgerRow


class Measured(Struct, frozen=True):
    """What was measured for one objective, in base units: seconds, shares of 1, per second, plain."""

    interval: Interval
    exact: bool = False
    """Counted or read, not estimated: without an interval, and what is seen broken stays broken."""
    text: str = ""
    """How the sentence speaks of it; `{value}` and `{n}` are filled in."""
    needs: int = 0
    """The fewest samples that could have passed."""
    doubt: str = ""
    """Why it can't PASS, although nothing seen speaks against it."""
    events: tuple[int, ...] = ()
    half_open: bool = False
    """Known between bounds: above the low end, and at most at the high one. A limit that is a bound is met exactly."""


SILENCES = ("freeze", "crash")
"""Mechanisms under which an instance answers nobody. What our proxies do to hops doesn't keep it from telling a probe,
which asks it directly; being cut from everybody does."""
LEDGER = "ledger"
"""The reading that says whether an instance told of its jobs: 1, or no value and why."""
NOTHING = Measured(Interval(math.nan, -math.inf, math.inf, 0))


class Case:
    """Built once a verdict; the tables that several objectives share are made when first asked for."""

    def __init__(
        self,
        plan: Plan,
        events: Sequence[ev.Recorded],
        records: Sequence[RecordFile],
        ledger: Sequence[LedgerRow] | None,
        *,
        live: bool = False,
    ) -> None:
        self.plan = plan
        self.events = events
        self.attempts: Requests = requests_of(records)
        self.requests: Requests = self.attempts.logical
        self.spans: dict[str, Span] = phases(plan, events)
        self.unsure_ms = max(clock_errors_ms(events, records).values(), default=0.0)
        """By how much a request's time may be off on the journal's clock."""
        self.inject = first_inject(plan, events)
        """The first fault in force: what answers it counts from there."""
        self.called = first_call(plan, events)
        """The first inject call: what was before it, was before all of it."""
        self.hands = hands_of(plan, events)
        """What somebody else did to faults in force."""
        self.validity = Validity(plan, events, records, self.requests, live=live)
        self.seed = plan.seed
        self._ledger = ledger

    @cached_property
    def jobs(self) -> Jobs | None:
        """None when nobody wrote down what the system says of its jobs."""
        if self._ledger is None:
            return None
        closed = [
            recorded.mono_ms
            for recorded, event in all_of(self.events, ev.RecordClosed)
            if event.file.endswith("jobs.ndjson")
        ]
        ends = [recorded.mono_ms for recorded, event in all_of(self.events, ev.PhaseEntered) if event.phase == "end"]
        # each instance told what it knew when it was asked: later deadlines than the first's are not known to be missed
        asked = (
            [recorded.mono_ms for recorded, _ in self.ledgers.values()]
            if self.ledgers
            else [max(closed + ends, default=math.inf)]
        )
        return jobs_of(
            self.requests,
            self._ledger,
            min(asked),
            finished=bool(ends),
            silent=bool(self.silent_ledgers),
            residencies=self.residencies,
        )

    @cached_property
    def residencies(self) -> tuple[str, ...]:
        """For each kind of request the region where its jobs must stay; empty where it names none of the system's."""
        known = {item.labels["region"] for item in self.plan.system.instances if "region" in item.labels}
        named = [kind.labels.get(RESIDENCY, "") for kind in self.requests.kinds]
        return tuple(region if region in known or not known else "" for region in named)

    @cached_property
    def ledgers(self) -> dict[str, tuple[ev.Recorded, ev.Reading]]:
        """The last answer of each instance that was asked for its jobs; empty where nobody wrote that down."""
        looks = [item for item in all_of(self.events, ev.Reading) if item[1].metric == LEDGER]
        looks.sort(key=lambda item: (item[0].mono_ms, item[0].seq))
        return {reading.instance: (recorded, reading) for recorded, reading in looks}

    @property
    def silent_ledgers(self) -> tuple[ev.Reading, ...]:
        """Those that did not tell, in the order of their names: what they alone know, nobody knows."""
        return tuple(reading for _, (_, reading) in sorted(self.ledgers.items()) if reading.value is None)

    @cached_property
    def endings(self) -> tuple[tuple[ev.Recorded, Ending], ...]:
        """What befell instances that stormdrill did not do."""
        fold = Endings(self.plan.system)
        seen = [(recorded, fold.see(recorded)) for recorded in self.events]
        return tuple((recorded, ending) for recorded, ending in seen if ending is not None)

    def since(self, injection: Injection) -> ev.Recorded | None:
        """From when one is in force; None: it wasn't injected."""
        return in_force_since(injection, self.events)

    def in_force(self, injections: Iterable[Injection]) -> list[tuple[float, float]]:
        """From each one's inject call, after which it may be in force at any moment, to when it was last seen to be
        gone."""
        found = []
        for injection in injections:
            call = call_of(injection, self.events)
            ends = [
                r.mono_ms for r, e in all_of(self.events, ev.RevertVerified) if e.injection == injection.id and e.gone
            ]
            if call is not None:
                found.append((call.mono_ms, max(ends, default=math.inf)))
        return found

    def halted(self, instance: str) -> list[tuple[float, float]]:
        """When a fault was in force on an instance by which it answers nobody: it cannot tell then."""
        return self.in_force(item for item in self.plan.injections if instance in who(item) and _silent(item))


def _silent(injection: Injection) -> bool:
    how = injection.how
    severed = isinstance(how, Sever) and (how.users or not how.peers) and how.direction == "both"
    return injection.mechanism in SILENCES or severed or isinstance(how, TAKING)
