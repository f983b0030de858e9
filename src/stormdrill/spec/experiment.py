"""Reads an experiment file: as authored, and with its `fast:` section in place, both checked every time."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from stormdrill.core.backpressure.needs import needless
from stormdrill.core.judge_metrics import JOBS
from stormdrill.model.experiment import Experiment, FaultUse, Objective, Phases, RunbookUse, Window
from stormdrill.model.experiment import Scalar as Value
from stormdrill.model.expression import AlertWithin, Comparison, Expression
from stormdrill.model.profile import Profile, Role
from stormdrill.model.system import System
from stormdrill.model.units import parse_duration
from stormdrill.spec.backpressure import EXAMPLE, CheckReading
from stormdrill.spec.demand import anchored
from stormdrill.spec.files import ExperimentFile, FaultTimes
from stormdrill.spec.kinds import NAME
from stormdrill.spec.load_use import Asked, LoadReading, take_observed
from stormdrill.spec.parameters import Filled, Filler, unfilled, written
from stormdrill.spec.scalars import instead, seconds, short, suggestion
from stormdrill.spec.walk import Walker, fields_of
from stormdrill.spec.words import Words
from stormdrill.spec.yaml import Document, Listing, Node, Place, Scalar, Table

WINDOWS = ("warmup", "baseline", "fault", "recovery", "failback", "whole run")
_WINDOW = re.compile(r"(?P<phase>whole run|[a-z]+)(?: after (?P<after>\S+))?")
_BLOCK = re.compile(r"^```[a-z-]+\s.*\bid=(?P<id>[a-z0-9-]+)", re.MULTILINE)


class Surroundings(Struct, frozen=True):
    """What an experiment's words are looked up in. None or empty text: it could not be read, so nothing is said."""

    faults: Mapping[str, type[Struct]]
    system: System | None
    profiles: Mapping[str, Profile | None]
    runbooks: Mapping[str, str | None]
    """Name → its text; None: there is no such file."""
    locustfiles: Mapping[str, Path | None] = {}
    """As named in `load:` → where it was found; None: there is no such file."""


class Resolved(Struct, frozen=True):
    """An experiment and the demand that it asks for, in the run's own time."""

    experiment: Experiment
    profile: Profile | None


def resolve_experiment(
    document: Document, values: Mapping[str, Filled], around: Surroundings, fast: bool
) -> Resolved | None:
    """The experiment, with its `fast:` section when `fast`; None when it can't be read. Look at the document's
    problems before using it."""
    if document.root is None:
        return None
    filled = Filler(document, values).tree(document.root, skip=unfilled(document.root, ExperimentFile))
    assert isinstance(filled, Table)
    document.root = filled
    if fast and not filled.get("fast"):
        document.problem(Place(1, 1), "this experiment has no fast: section", "add one, or run it without --fast")
    quickly = filled.get("fast")
    observed = {False: take_observed(document, filled)}
    own = isinstance(quickly, Table) and (take_observed(document, quickly) or quickly.get("load") is not None)
    observed[True] = isinstance(quickly, Table) and quickly.get("load") is None if own else observed[False]
    forms = {}
    for quick in (False, True):
        document.root = merged(filled) if quick else filled
        if observed[quick]:
            document.root.entries.pop("load", None)
        reading = _Reading(document, values, around, quick, observed[quick])
        experiment = reading.experiment()
        profile = reading.asked.profile
        usable = profile is not None and experiment.load is not None and not document.problems
        timed = _in_time(profile, experiment) if usable and profile else None
        if timed is not None:
            reading.check_stages(timed, experiment)
        forms[quick] = Resolved(experiment, timed)
    document.root = filled
    return forms[fast]


def _in_time(profile: Profile, experiment: Experiment) -> Profile:
    """The profile in the run's own time."""
    if all(part.since is None for part in profile.parts):
        return profile
    from stormdrill.core.sampling import begins_s

    return anchored(profile, partial(begins_s, experiment))


def merged(root: Table) -> Table:
    """The experiment's table with each key of `fast:` in place of the whole of the same key above it."""
    table = Table(root.place)
    table.broken = root.broken
    table.entries = dict(root.entries)
    fast = root.get("fast")
    if isinstance(fast, Table):
        table.entries.update({key: entry for key, entry in fast.entries.items() if key in _FAST})
    return table


PRESSING: tuple[Role, ...] = ("step", "trigger")
"""Stages by which a system is pressed."""
SHORTEST_S = 0.001

_FAST = ("load", "phases", "faults", "backpressure", "objectives", "guards", "runbook")


class _Reading:
    def __init__(
        self, document: Document, values: Mapping[str, Filled], around: Surroundings, fast: bool, observed: bool
    ) -> None:
        self.document = document
        self.values = values
        self.around = around
        self.fast = fast
        self.observed = observed
        assert document.root is not None
        self.file = Walker(document).table(document.root, ExperimentFile, "the experiment")
        phases = self.file.phases
        self.phases = Phases(
            warmup_s=seconds(phases.warmup),
            baseline_s=seconds(phases.baseline),
            fault_s=seconds(phases.fault),
            recovery_s=seconds(phases.recovery),
            failback_s=seconds(phases.failback),
        )
        load = self.file.load
        self.asked = LoadReading(document, load, around.profiles, around.locustfiles).asked() if load else Asked()
        asks = self.asked.profile
        whole = replace(asks, name=load.profile or asks.name, streams=asks.every_stream) if load and asks else None
        asked = load is not None or document.node("load") is not None
        users = self.asked.use is not None and self.asked.use.closed_loop
        self.words = Words(document, around.system, whole, asked, observed=observed, users=users)

    def experiment(self) -> Experiment:
        file, document = self.file, self.document
        name = Path(document.name).stem
        if not re.fullmatch(NAME, name):
            near = suggestion("word", name) or "region-loss"
            document.problem(Place(1, 1), f"the file's name, {short(name)}, is not a name", f"call it {near}.yaml")
        self.check_phases()
        objectives = self.objectives()
        checks = CheckReading(
            document,
            load=document.node("load") is not None,
            closed=self.asked.use is not None and self.asked.use.closed_loop,
            faults=document.node("faults") is not None,
            profile=self.asked.profile,
            system=self.around.system,
        )
        experiment = Experiment(
            name=name,
            title=" ".join(file.title.split()),
            hypothesis=" ".join(file.hypothesis.split()),
            owner=" ".join(file.owner.split()),
            system=file.system,
            phases=self.phases,
            faults=tuple(self.faults()),
            objectives=objectives,
            backpressure=checks.checks(),
            parameters={key: value for key, value in written(self.values).items() if not isinstance(value, tuple)},
            load=self.asked.use,
            observed=self.observed,
            guards=tuple(self.guards()),
            runbook=self.runbook(),
            catches=tuple(file.catches),
            fast=self.fast,
        )
        self.check_learning(experiment)
        return experiment

    def check_learning(self, experiment: Experiment) -> None:
        """Without faults the load must be what harms, and something must look at it."""
        unread = self.document.problems or (experiment.load is not None and self.asked.profile is None)
        if unread or not needless(experiment, self.asked.profile):
            return
        assert self.document.root is not None
        what = "nothing can be learned: the experiment has neither faults nor backpressure checks, its load no stages"
        fix = f"add faults: with at least one, or backpressure: {EXAMPLE}"
        self.document.problem(self.document.root.place, what, fix)

    # Phases

    def check_phases(self) -> None:
        for phase in ("baseline", "fault"):
            if self.phases.of(phase) == 0:
                what = (
                    "harm without a baseline to compare with" if phase == "baseline" else "a fault that lasts no time"
                )
                self.document.problem(self.document.place("phases", phase), what, "write for instance 10s")

    def check_stages(self, timed: Profile, experiment: Experiment) -> None:
        """Under steps that go on after the fault phase, the recovery would be judged as if they were over."""
        pressing = [[stage for stage in part.stages if stage.role in PRESSING] for part in timed.parts]
        if not any(pressing):
            return
        from stormdrill.core.sampling import begins_s

        over_s = begins_s(experiment, "recovery")
        begun = [stages for stages in pressing if any(stage.start_s < over_s for stage in stages)]
        late_s = max((stage.end_s for stages in begun for stage in stages), default=over_s) - over_s
        if late_s > SHORTEST_S:
            what = f"the load's stages go on for {late_s:g}s after the fault phase ({self.phases.fault_s:g}s)"
            fix = f"write fault: {self.phases.fault_s + late_s:g}s, or take fewer or shorter stages"
            self.document.problem(self.document.place("phases", "fault"), what, fix)

    # Faults

    def faults(self) -> list[FaultUse]:
        node = self.document.node("faults")
        items = node.items if isinstance(node, Listing) else []
        return [use for use in (self.fault(item) for item in items) if use]

    def fault(self, item: Node) -> FaultUse | None:
        if item.broken:
            return None
        if not isinstance(item, Table) or len(item.entries) != 1:
            word = item.text if isinstance(item, Scalar) and item.text else "region-loss"
            what = (
                "several words in one fault"
                if isinstance(item, Table) and item.entries
                else "a fault without its table"
            )
            self.document.problem(item, what, f"write - {short(word)}: {{…}}, one for each")
            return None
        word, (key, node) = next(iter(item.entries.items()))
        model = self.around.faults.get(word)
        if model is None:
            self.document.problem(key, f"unknown fault {short(word)}", instead(word, self.around.faults, "faults"))
            return None
        common = frozenset(info.encode_name for info in fields_of(FaultTimes))
        own = frozenset(info.encode_name for info in fields_of(model))
        walker = Walker(self.document)
        parameters = walker.table(node, model, word, ignore=common)
        if not isinstance(node, Table):
            return None
        times = walker.table(node, FaultTimes, word, ignore=own)
        self.check_times(node, times)
        self.check_selected(node, parameters)
        return FaultUse(
            word=word,
            parameters={info.encode_name: _plain(parameters, info.name) for info in fields_of(model)},
            start_s=seconds(times.start),
            for_s=seconds(times.for_) if times.for_ else None,
        )

    def check_times(self, node: Table, times: FaultTimes) -> None:
        fault_s, start = self.phases.fault_s, seconds(times.start)
        begin, lasts = node.get("start"), node.get("for")
        if begin and start >= fault_s:
            self.document.problem(
                begin.place, f"it would start when the fault phase ({fault_s:g}s) is over", "start it earlier"
            )
        elif lasts and start + seconds(times.for_) > fault_s:
            fix = f"write at most {fault_s - start:g}s, or make the phase longer"
            self.document.problem(lasts.place, f"it would outlast the fault phase ({fault_s:g}s)", fix)
        if lasts and seconds(times.for_) == 0:
            self.document.problem(lasts.place, "a fault that lasts no time", "write for instance 10s")

    def check_selected(self, node: Table, parameters: Struct) -> None:
        """A fault's parameter that is named like a label selects instances: its value must be one that they carry.
        So do `instance` and `service`."""
        system = self.around.system
        for info in fields_of(type(parameters)):
            name = info.encode_name
            value, at = getattr(parameters, info.name), node.get(name)
            if not system or name not in (*system.labels, "instance", "service") or not at or not value or at.broken:
                continue
            if system.target == "kubernetes" and name != "service":
                continue  # what pods and nodes carry, and how many pods there are, the cluster knows
            known = [{**one.labels, "instance": one.name, "service": one.service} for one in system.instances]
            carried = {one[name] for one in known if name in one}
            if value not in carried:
                what = f"no instance has {name}={short(str(value))}"
                self.document.problem(at.place, what, instead(str(value), carried, "values"))

    # Objectives

    def objectives(self) -> tuple[Objective, ...]:
        table = self.document.node("objectives")
        found: list[Objective] = []
        if not isinstance(table, Table):
            return ()
        for key, (at, node) in table.entries.items():
            windows = self.windows(key, at)
            for index in range(len(node.items) if isinstance(node, Listing) else 0):
                read = self.words.expression("objectives", key, index)
                if read:
                    for window in windows:
                        self.check_objective(read[1], window, read[0])
                        self.add(found, Objective(window, read[0]), read[1])
        self.check_baseline(table, found)
        return tuple(found)

    def add(self, found: list[Objective], objective: Objective, node: Scalar) -> None:
        if objective in found:
            what = f"{short(objective.expression.text)} stands twice for {objective.window.text}"
            self.document.problem(node.place, what, "remove one")
        found.append(objective)

    def check_baseline(self, table: Table, found: list[Objective]) -> None:
        if self.document.problems or any(objective.window.phase == "baseline" for objective in found):
            return
        what = "no objective is judged in the baseline: nothing may be harmed that isn't known to be healthy"
        self.document.problem(table.place, what, "add baseline: with at least one objective")

    def windows(self, key: str, at: Scalar) -> list[Window]:
        found: list[Window] = []
        offset = 0
        for part in key.split(","):
            text = " ".join(part.split())
            place = at.at(offset + len(part) - len(part.lstrip()))
            offset += len(part) + 1
            window = self.window(text, place)
            if window:
                found.append(window)
        return found

    def window(self, text: str, place: Place) -> Window | None:
        match = _WINDOW.fullmatch(text)
        if match is None or match["phase"] not in WINDOWS:
            word = text.split(" after ")[0]
            fix = instead(word, WINDOWS) if word else "write a phase"
            if re.match(r"(whole )?[a-z]+ after\b", text) and word in WINDOWS:
                fix = f"write {word} after 10s"
            self.document.problem(place, f"unknown phase {short(text) or '(nothing)'}", fix)
            return None
        after_s = 0.0
        if match["after"]:
            try:
                after_s = parse_duration(match["after"])
            except ValueError:
                number = re.match(r"\d+(\.\d+)?", match["after"])
                meant = suggestion("duration", match["after"]) or (f"{number.group()}s" if number else "10s")
                what = f"{short(match['after'])} is not a duration"
                self.document.problem(place, what, f"write {match['phase']} after {meant}")
                return None
        length = self.length(match["phase"])
        if length == 0 and match["phase"] in ("baseline", "fault"):
            pass  # said of the phase itself
        elif length == 0:
            self.document.problem(place, f"the phase {match['phase']} lasts no time", "give it a duration under phases")
        elif after_s >= length:
            what = f"{match['phase']} lasts {length:g}s: nothing is left after {match['after']}"
            self.document.problem(place, what, "write a shorter time, or make the phase longer")
        return Window(match["phase"], after_s)  # type: ignore[arg-type]

    def length(self, phase: str) -> float:
        return self.phases.total_s if phase == "whole run" else self.phases.of(phase)  # type: ignore[arg-type]

    def check_objective(self, node: Scalar, window: Window, found: Expression) -> None:
        document = self.document
        left = self.length(window.phase) - window.after_s
        if window.phase == "whole run":
            left = self.phases.fault_s + self.phases.recovery_s + self.phases.failback_s
        if found.within_s is not None:
            self.check_within(node, window, found, found.within_s)
        if not isinstance(found, Comparison):
            if window.phase in ("baseline", "warmup"):
                document.problem(
                    node.place, f"an alert that must fire in the {window.phase}", "move it to fault or whole run"
                )
            return
        if found.for_s is not None:
            document.problem(node.place, "for in an objective: it is judged over its whole phase", "remove for")
        if found.after_s is not None and found.after_s >= left:
            document.problem(node.place, f"nothing is left of {window.text} after {found.after_s:g}s", "write less")
        if found.relative and window.phase in ("baseline", "warmup", "whole run"):
            document.problem(node.place, f"the {window.phase} is not compared with the baseline", "write the limit out")

    def check_within(self, node: Scalar, window: Window, found: Expression, within_s: float) -> None:
        """`within` counts from the first fault in force, else from the phase's beginning, whatever `after` leaves
        out."""
        anchor_s, lasts_s = 0.0, self.length(window.phase)
        if window.phase == "whole run":
            anchor_s = self.phases.baseline_s
            lasts_s = self.phases.fault_s + self.phases.recovery_s + self.phases.failback_s
        if window.after_s and anchor_s + within_s <= window.after_s:
            what = f"within {within_s:g}s is over when {window.text} begins"
            self.document.problem(node.place, what, "leave after or within out")
        elif within_s > lasts_s:
            what = f"within {within_s:g}s is longer than what is left of {window.phase} ({lasts_s:g}s)"
            self.document.problem(node.place, what, f"write within {lasts_s:g}s or less")
        elif within_s == lasts_s and isinstance(found, Comparison):
            what = f"within {within_s:g}s leaves nothing of {window.phase} in which it could be seen to hold"
            self.document.problem(node.place, what, "write a shorter time")

    # Guards and runbook

    def guards(self) -> list[Expression]:
        found = []
        for index in range(len(self.file.guards)):
            read = self.words.expression("guards", index)
            if read:
                self.check_guard(read[1].place, read[0])
                found.append(read[0])
        return found

    def check_guard(self, place: Place, found: Expression) -> None:
        if isinstance(found, AlertWithin):
            self.document.problem(place, "an alert as a guard", "write a metric beyond a limit: success < 50% for 10s")
        elif found.relative:
            self.document.problem(place, "a guard can't be compared with the baseline", "write the limit out")
        elif found.metric in JOBS or found.metric.startswith("completion_"):
            self.document.problem(place, f"{found.metric} is known after the run only", "make it an objective")
        elif found.for_s is None:
            self.document.problem(place, "a guard without a time: one odd reading would stop the run", "add for 10s")

    def runbook(self) -> RunbookUse | None:
        use, document = self.file.runbook, self.document
        if use is None:
            return None
        text = self.around.runbooks.get(use.run) if use.run else ""
        steps = _BLOCK.findall(text or "")
        for index, step in enumerate(use.approve):
            if step and steps and step not in steps:
                place = document.place("runbook", "approve", index)
                document.problem(place, f"the runbook {use.run} has no step {step}", instead(step, steps))
        after_s = seconds(use.else_after)
        if after_s >= self.phases.fault_s > 0:
            what = f"the fault phase ({self.phases.fault_s:g}s) is over by then"
            document.problem(document.place("runbook", "else_after"), what, "write a shorter time")
        read = self.words.expression("runbook", "start")
        if read is None:
            return None
        if read[0].within_s is not None or (isinstance(read[0], Comparison) and read[0].after_s is not None):
            document.problem(read[1].place, "a start that waits", "leave within and after out: else_after is the limit")
        if isinstance(read[0], Comparison) and read[0].relative:
            document.problem(read[1].place, "a start can't be compared with the baseline", "write the limit out")
        return RunbookUse(use.run, read[0], after_s, tuple(use.approve))


def _plain(parameters: Struct, name: str) -> Value:
    """A fault's parameter as the plan carries it: as written."""
    value = getattr(parameters, name)
    return value if isinstance(value, str | int | float | bool) else None
