"""What happens, told from the run's events alone: one line a fact, and the state of the moment for the live view.

Pure: events and figures in, lines out. The same lines tell a run that goes on and one that was read back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import singledispatchmethod
from typing import NamedTuple

from stormdrill.cli import figures
from stormdrill.core import telling
from stormdrill.core.demand import Demand
from stormdrill.core.judge_metrics import RATES, quantile_of
from stormdrill.model import event as e
from stormdrill.model.expression import Comparison
from stormdrill.model.mechanism import BLOCKED
from stormdrill.model.plan import Plan
from stormdrill.ports import LiveLoad
from stormdrill.spec.expression import UNITS

STEP_MARKS = {"ok": "✓", "failed": "✗", "timed-out": "✗ timed out", "skipped": "–"}
NAMES_SHOWN = 4
LOOKS_BACK_MS = 1000.0
"""A live figure covers the last second: only after that much of a phase does it speak of the phase alone."""


class Line(NamedTuple):
    """One fact: whose, its state in a word, what there is to say, and how long it took."""

    label: str
    state: str
    text: str = ""
    took: str = ""


class Moment(NamedTuple):
    """What goes on right now."""

    label: str
    text: str
    share_done: float | None
    """0 to 1 where the length is known."""
    remaining_s: float | None


class Scene:
    """A fold over events. `tell` returns the lines that an event completes; `moment` says what goes on."""

    def __init__(self, plan: Plan | None = None, sent_per_s: Mapping[str, float] | None = None) -> None:
        """`sent_per_s`: what was sent in each phase, of a run that is read back: then nobody tells of every second."""
        self._sent_per_s = sent_per_s or {}
        load = plan.experiment.load if plan else None
        self._demand = (
            Demand(plan.profile, load.rate_per_s) if plan and plan.profile and load and not load.closed_loop else None
        )
        self._epoch_ms: float | None = None
        self._units = _units(plan) if plan else {}
        self._target = plan.target if plan else "process"
        self._many = len({item.use for item in plan.injections}) > 1 if plan else False
        self._endings = telling.Endings(plan.system if plan else None)
        self._doing = "planning"
        self._healthy: e.BaselineJudged | None = None
        self._spawned: set[str] = set()
        self._proxied = False
        self._ready: set[str] = set()
        self._places: set[str] = set()
        self._phase = ""
        self._phase_from_ms = 0.0
        self._phase_planned_s = 0.0
        self._fault_from_ms: float | None = None
        self._aborting = False
        self._armed: dict[str, e.Armed] = {}
        self._bit: dict[str, e.EffectObserved] = {}
        """Injection → what its first witness saw."""
        self._through: set[str] = set()
        """Whoever was seen to reach what policy forbids."""
        self._gone: dict[str, e.RevertVerified] = {}
        self._last_gone_ms = 0.0
        self._told: tuple[set[str], set[str]] = (set(), set())
        """The injections of whose bite, and of whose end, a line has spoken."""
        self._in_vain: Counter[tuple[str, str]] = Counter()
        """How often an injection's undo came to nothing, by its outcome."""
        self._runbook: e.RunbookStarted | None = None
        self._steps: list[str] = []
        self._step = ""
        self._live: LiveLoad | None = None
        self._sent: list[int] = []
        self._gauges: dict[str, float] = {}

    def tell(self, recorded: e.Recorded) -> list[Line]:
        ending = self._endings.see(recorded)
        told = [Line("system", "ended" if ending.ended else "!", ending.sentence)] if ending else []
        return told + self._tell(recorded.event, recorded.mono_ms)

    def figures_are(self, live: LiveLoad | None, gauges: Mapping[str, float], now_ms: float) -> None:
        """The generator's last second and the live gauges, keyed as objectives write them."""
        if live is not None:
            self._live = live
            spent_ms = now_ms - self._phase_from_ms
            # what follows the planned end of the last phase is waiting for those in flight: nothing is sent then
            if self._phase and LOOKS_BACK_MS <= spent_ms <= self._phase_planned_s * 1000:
                self._sent.append(live.sent)
        self._gauges = dict(gauges)

    def moment(self, now_ms: float) -> Moment:
        if not self._phase:
            waiting = f"{self._doing}: {len(self._ready)} of {len(self._spawned)} answer"
            return Moment("system", waiting if self._doing == "starting" else self._doing, None, None)
        spent_s = max(0.0, (now_ms - self._phase_from_ms) / 1000)
        done = min(1.0, spent_s / self._phase_planned_s) if self._phase_planned_s else None
        texts = [self._rates(), *self._gauge_texts()]
        if self._step:
            texts.append(f"runbook at {self._step}")
        left_s = max(0.0, self._phase_planned_s - spent_s)
        return Moment(telling.phase(self._phase), " · ".join(text for text in texts if text), done, left_s)

    # --- the figures -----------------------------------------------------------------------------------------

    def _rates(self) -> str:
        if self._live is None:
            return ""
        text = f"{self._live.sent}/s sent, {self._live.done}/s done"
        return f"{text}, {figures.count(self._live.dropped)} dropped" if self._live.dropped else text

    def _gauge_texts(self) -> list[str]:
        return [f"{name} {gauge(name, value, self._units)}" for name, value in self._gauges.items()]

    def _phase_text(self) -> str:
        texts = []
        mean = sum(self._sent) / len(self._sent) if self._sent else self._sent_per_s.get(self._phase)
        if mean is not None:
            asked = self._asked_per_s()
            texts.append(f"{'' if asked is None else f'{figures.rate(asked)} asked, '}{figures.rate(mean)} sent")
            if self._live is not None and self._phase == "warmup":
                texts.append(f"lag p99 {figures.milliseconds(self._live.lag_p99_ms)}")
        gauges = self._gauge_texts()  # of the last seconds only, and of what has ended: not yet the phase's own figures
        return " · ".join(texts + (["lately " + ", ".join(gauges)] if gauges else []))

    def _asked_per_s(self) -> float | None:
        """The mean of λ(t) over the phase as planned; None of users that wait for answers."""
        if self._demand is None or self._epoch_ms is None or not self._phase_planned_s:
            return None
        begin_s = max(0.0, (self._phase_from_ms - self._epoch_ms) / 1000)
        return self._demand.between(begin_s, begin_s + self._phase_planned_s) / self._phase_planned_s

    def _since_fault(self, at_ms: float) -> str:
        return "" if self._fault_from_ms is None else f" after {figures.milliseconds(at_ms - self._fault_from_ms)}"

    # --- one method a kind of fact ---------------------------------------------------------------------------

    @singledispatchmethod
    def _tell(self, event: e.Event, at_ms: float) -> list[Line]:
        return []

    @_tell.register
    def _(self, event: e.ProcessSpawned, at_ms: float) -> list[Line]:
        self._proxied |= event.role == "proxy"
        if event.role == "system" and not self._phase:
            self._doing = "starting"
            self._spawned.add(event.instance)
            self._places |= set(event.labels)
        return []

    @_tell.register
    def _(self, event: e.InstanceReady, at_ms: float) -> list[Line]:
        self._ready.add(event.instance)
        return []

    @_tell.register
    def _(self, event: e.ResourcesClaimed, at_ms: float) -> list[Line]:
        self._doing = "making containers"
        return []

    @_tell.register
    def _(self, event: e.ContainerStarted, at_ms: float) -> list[Line]:
        self._proxied |= event.role == "proxy"
        if event.role == "system" and not self._phase:
            self._doing = "starting"
            self._spawned.add(event.instance)
            self._places |= set(event.labels)
        return []

    @_tell.register
    def _(self, event: e.SystemReady, at_ms: float) -> list[Line]:
        self._doing = "ready, waiting for the load"
        count = telling.system_text(event.instances, self._target, self._proxied)
        return [Line("system", "ready", count, figures.seconds(event.after_ms / 1000))]

    @_tell.register
    def _(self, event: e.PhaseEntered, at_ms: float) -> list[Line]:
        lines = []
        if self._phase and self._phase != "fault":
            took = figures.seconds((at_ms - self._phase_from_ms) / 1000)
            lines.append(Line(telling.phase(self._phase), self._phase_state(), self._phase_text(), took))
        elif self._phase:
            took = figures.seconds((at_ms - self._phase_from_ms) / 1000)
            lines.append(Line("", "over", self._phase_text(), took))
        if event.phase == "fault":
            self._fault_from_ms = at_ms
        self._sent.clear()
        self._phase = "" if event.phase == "end" else event.phase
        self._doing = "ending" if event.phase == "end" else self._doing
        self._phase_from_ms, self._phase_planned_s = at_ms, event.planned_s
        return lines

    def _phase_state(self) -> str:
        if self._phase == "baseline" and self._healthy is not None:
            return "healthy" if self._healthy.healthy else "NOT healthy"
        return "stopped" if self._aborting else "done"

    @_tell.register
    def _(self, event: e.BaselineJudged, at_ms: float) -> list[Line]:
        self._healthy = event
        return [] if event.healthy else [Line("baseline", "NOT healthy", f"{event.detail}; nothing is injected")]

    @_tell.register
    def _(self, event: e.ConditionHeld, at_ms: float) -> list[Line]:
        return [Line("", "condition", f"{event.condition}{self._since_fault(at_ms)}")]

    @_tell.register
    def _(self, event: e.Armed, at_ms: float) -> list[Line]:
        if event.fault != "runbook":
            self._armed[event.injection] = event
        return []

    @_tell.register
    def _(self, event: e.Reading, at_ms: float) -> list[Line]:
        """Of metrics only that a connection came through which policy forbids: nothing else says so."""
        if event.metric != BLOCKED or event.value != 0 or event.instance in self._through:
            return []
        self._through.add(event.instance)
        return [Line("fault", "NOT blocked", f"{event.instance} reached {event.labels.get('to', 'what is forbidden')}")]

    @_tell.register
    def _(self, event: e.Injected, at_ms: float) -> list[Line]:
        return [] if event.outcome == "done" else [Line("fault", event.outcome, f"{event.injection}: {event.detail}")]

    @_tell.register
    def _(self, event: e.EffectObserved, at_ms: float) -> list[Line]:
        if not event.bit:
            return [Line("fault", "no bite", f"{event.injection}, says {event.witness}: {event.detail}")]
        if event.injection not in self._armed or event.injection in self._bit:
            return []
        self._bit[event.injection] = event
        return self._bites(event.injection)

    def _bites(self, injection: str, *, partly: bool = False) -> list[Line]:
        fresh = self._fresh(injection, self._told[0], self._bit, partly)
        if not fresh:
            return []
        armed, seen = self._armed[injection], [self._bit[name] for name in self._bit if name in fresh]
        slowest = figures.milliseconds(max(one.after_ms for one in seen))
        names = _names(list(dict.fromkeys(one.instance for one in self._armed.values() if one.injection in fresh)))
        whose = f"{armed.fault}: " if self._many else ""
        by = " and ".join(dict.fromkeys(one.witness for one in seen))
        return [Line("fault", telling.done(armed.mechanism), f"{whose}{names} · bit after {slowest}, seen by {by}")]

    def _ends(self, injection: str, *, partly: bool = False) -> list[Line]:
        fresh = self._fresh(injection, self._told[1], self._gone, partly)
        if not fresh:
            return []
        armed, seen = self._armed[injection], [self._gone[name] for name in self._gone if name in fresh]
        times = [one.after_ms for one in seen if one.after_ms is not None]
        after = f" after {figures.milliseconds(max(times))}" if times else ""
        if clock := next((one.clock for one in seen if one.clock), ""):
            since = self._since_fault(self._last_gone_ms)
            after = f"{f'{since} of the fault' if since else ''}, by the {clock}'s clock"
        whose = f"{armed.fault}: " if self._many else ""
        by = " and ".join(dict.fromkeys(one.witness for one in seen))
        came = dict.fromkeys(one.came_to for one in seen if one.came_to)
        gone = Line("", telling.undone(armed.mechanism), f"{whose}gone{after}, seen by {by}")
        return [gone, *(Line("", "", text) for text in came)]

    def _fresh(self, injection: str, told: set[str], seen: Mapping[str, object], partly: bool) -> set[str]:
        """The injections of one fault by one mechanism that can be told of in one line; empty while one is missing,
        unless a part of them is to be told."""
        mine = self._armed[injection]
        alike = {n for n, one in self._armed.items() if (one.fault, one.mechanism) == (mine.fault, mine.mechanism)}
        fresh = alike - told
        if not partly and not fresh <= set(seen):
            return set()
        fresh &= set(seen)
        told |= fresh
        return fresh

    @_tell.register
    def _(self, event: e.RevertStarted, at_ms: float) -> list[Line]:
        """Who of them bit is told now, though others never did."""
        return self._bites(event.injection, partly=True) if event.injection in self._bit else []

    @_tell.register
    def _(self, event: e.Reverted, at_ms: float) -> list[Line]:
        """An undo that is tried again and again in vain is told once, and how often at the end."""
        if event.outcome == "done":
            return []
        again = (event.injection, event.outcome)
        self._in_vain[again] += 1
        said = [Line("", event.outcome, f"{event.injection}: {event.detail}")]
        return said if self._in_vain[again] == 1 else []

    @_tell.register
    def _(self, event: e.CauseChanged, at_ms: float) -> list[Line]:
        what = "EDITED" if event.edited else "GONE" if event.gone else "CHANGED"
        said = f"{event.injection}, and not by its revert: {event.detail}"
        return [Line("fault", what, said, figures.seconds(event.after_ms / 1000))]

    @_tell.register
    def _(self, event: e.RevertVerified, at_ms: float) -> list[Line]:
        if event.injection not in self._armed:
            return []
        if not event.gone:
            return [Line("", "NOT GONE", f"{event.injection}, says {event.witness}: {event.detail}")]
        self._gone[event.injection] = event
        self._last_gone_ms = max(self._last_gone_ms, at_ms)
        return self._ends(event.injection)

    @_tell.register
    def _(self, event: e.Restored, at_ms: float) -> list[Line]:
        ends = [line for name in self._gone for line in self._ends(name, partly=True)]  # others were never injected
        return [*ends, Line("", "restored" if event.ok else "NOT restored", event.detail)]

    @_tell.register
    def _(self, event: e.AlertChanged, at_ms: float) -> list[Line]:
        state = "alert" if event.firing else "alert over"
        where = " ".join(f"{name}={value}" for name, value in sorted(event.labels.items()) if name in self._places)
        return [Line("", state, f"{event.alert}{f' {where}' if where else ''}{self._since_fault(at_ms)}")]

    @_tell.register
    def _(self, event: e.GuardTripped, at_ms: float) -> list[Line]:
        return [Line("guard", "tripped", f"{event.guard} · {event.detail}")]

    @_tell.register
    def _(self, event: e.AbortRequested, at_ms: float) -> list[Line]:
        self._aborting = True
        return [Line("abort", "", f"{event.reason} (by {event.by}); everything is being reverted")]

    @_tell.register
    def _(self, event: e.RunbookStarted, at_ms: float) -> list[Line]:
        self._runbook, self._steps = event, []
        return []

    @_tell.register
    def _(self, event: e.StepStarted, at_ms: float) -> list[Line]:
        self._step = event.step
        return []

    @_tell.register
    def _(self, event: e.StepFinished, at_ms: float) -> list[Line]:
        self._step = ""
        mark = f"→ {event.goes_to}" if event.goes_to else STEP_MARKS.get(event.outcome, event.outcome)
        named = "" if self._steps and self._steps[-1].endswith(f"→ {event.step}") else f"{event.step} "
        self._steps.append(f"{named}{mark}")
        return []

    @_tell.register
    def _(self, event: e.RunbookFinished, at_ms: float) -> list[Line]:
        self._step = ""
        steps = f"{event.runbook}: {' '.join(self._steps)}" if self._steps else event.runbook
        end = "" if event.outcome == "done" else f" · {event.outcome.replace('-', ' ')}: {event.detail}"
        text = f"{steps}{end}"
        return [Line("", "runbook", text, figures.seconds(event.took_ms / 1000))]

    @_tell.register
    def _(self, event: e.LoadEnded, at_ms: float) -> list[Line]:
        if not (event.dropped or event.lost_workers):
            return []
        return [Line("load", "short", f"{figures.count(event.dropped)} of {figures.count(event.scheduled)} never sent")]

    @_tell.register
    def _(self, event: e.JournalTakenOver, at_ms: float) -> list[Line]:
        return [Line("record", "taken over", f"by {event.by}; {event.cut_bytes} bytes of a torn line were cut")]

    @_tell.register
    def _(self, event: e.TornDown, at_ms: float) -> list[Line]:
        self._doing = "judging"
        again = [
            Line("", outcome, f"{name}: {count} times in all, the same or much the same each time")
            for (name, outcome), count in self._in_vain.items()
            if count > 1
        ]
        return again + self._ended(event)

    def _ended(self, event: e.TornDown) -> list[Line]:
        if self._target == "kubernetes" and not event.ended:
            lines = [Line("system", "runs on", "nothing of it was started or ended")]
        else:
            count = telling.ended_text(event.ended, self._target, self._proxied)
            lines = [Line("system", "ended", count, figures.seconds(event.took_ms / 1000))]
        return [*lines, Line("system", "LEFT", _names(event.left))] if event.left else lines

    @_tell.register
    def _(self, event: e.LoadStarted, at_ms: float) -> list[Line]:
        self._epoch_ms = event.epoch_mono_ms
        return []

    @_tell.register
    def _(self, event: e.ClusterHeld, at_ms: float) -> list[Line]:
        self._doing = "waiting for the system"
        where = f"{event.cluster} · " if event.cluster else ""
        return [Line("cluster", "held", f"{where}{event.suite}/{event.ledger} · watchdog after {event.lease_s:g} s")]

    @_tell.register
    def _(self, event: e.ClusterLost, at_ms: float) -> list[Line]:
        return [Line("cluster", "LOST", f"{f'{event.cluster} · ' if event.cluster else ''}{event.detail}")]

    @_tell.register
    def _(self, event: e.ClusterBack, at_ms: float) -> list[Line]:
        said = f"{f'{event.cluster} · ' if event.cluster else ''}{event.detail}"
        return [Line("cluster", "back", said, figures.seconds(event.away_ms / 1000))]

    @_tell.register
    def _(self, event: e.Warned, at_ms: float) -> list[Line]:
        return [Line("warning", "", event.text)]


def gauge(name: str, value: float, units: Mapping[str, str] | None = None) -> str:
    """A gauge's value with the unit that its metric has. `units`: those in which objectives and guards speak of the
    system's own metrics. Shares come in percent, times in seconds, sizes in bytes."""
    metric = name.split("{", 1)[0].strip()
    unit = (units or {}).get(metric, "")
    if metric == "success" or unit == "%":
        return figures.share(value)
    if metric in RATES:
        return figures.rate(value)
    if quantile_of(metric) is not None or unit in ("ms", "s", "m", "h"):
        return figures.milliseconds(value * 1000)
    if unit in UNITS["size"]:
        return f"{figures.measured(value / UNITS['size'][unit], '')} {unit}"
    return figures.measured(value, "")


def _units(plan: Plan) -> dict[str, str]:
    asked = [one.expression for one in plan.experiment.objectives] + list(plan.experiment.guards)
    return {one.metric: one.unit for one in asked if isinstance(one, Comparison) and one.unit}


def _names(names: list[str]) -> str:
    if len(names) <= NAMES_SHOWN:
        return ", ".join(names)
    return f"{', '.join(names[:NAMES_SHOWN])} and {len(names) - NAMES_SHOWN} more"
