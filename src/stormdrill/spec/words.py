"""Looks the words of an expression up: metrics, labels and their values, alerts."""

from __future__ import annotations

import re

from stormdrill.core.judge_metrics import COMPLETION, JOBS, RESIDENCY
from stormdrill.model.expression import AlertWithin, Comparison, Expression
from stormdrill.model.profile import Profile
from stormdrill.model.system import AlertSource, Indicators, MetricSource, System
from stormdrill.spec.expression import LOAD_METRICS, ExpressionError, Measure, measure_of, parse_expression
from stormdrill.spec.scalars import instead
from stormdrill.spec.yaml import Document, Place, Scalar

OF_UNIT: dict[str, Measure] = {"s": "time", "ms": "time", "bytes": "size", "ratio": "share"}
OF_ALERTS = ("severity", "owner", "runbook")
"""Labels that may be asked of any alert: what a person needs who is called."""


OF_USERS = {"name", "method", "tier", "kind"}
"""Labels that requests of a locustfile may have; which values, nobody knows before the run."""


class Words:
    """What expressions may say in one experiment. Without a system, which could not be read, nothing is looked up."""

    def __init__(
        self,
        document: Document,
        system: System | None,
        profile: Profile | None,
        load: bool,
        *,
        observed: bool = False,
        users: bool = False,
    ) -> None:
        """`users`: of a locustfile, who name their requests while the run goes on."""
        self.document = document
        self.system = system
        self.profile = profile
        self.load = load
        self.observed = observed
        self.users = users
        self.metrics = self.known_metrics()

    def known_metrics(self) -> dict[str, Measure] | None:
        """Every metric that can be read here; None when the system could not be read, so that any name is let pass."""
        system = self.system
        if system is None:
            return None
        known: dict[str, Measure] = dict(LOAD_METRICS)
        for metric in system.metrics:
            known[metric.name] = OF_UNIT[metric.unit] if metric.unit else measure_of(metric.prometheus)
        return known

    def expression(self, *path: str | int) -> tuple[Expression, Scalar] | None:
        node = self.document.node(*path)
        if not isinstance(node, Scalar) or node.broken:
            return None
        try:
            found = parse_expression(node.text, self.metrics)
        except ExpressionError as error:
            self.document.problem(node.at(error.offset), error.what, error.fix)
            return None
        self.check_words(node, found)
        return found, node

    def check_words(self, node: Scalar, found: Expression) -> None:
        system = self.system
        if system is None:
            return
        name = found.alert if isinstance(found, AlertWithin) else found.metric
        at = _at(node, re.escape(name))
        if isinstance(found, AlertWithin):
            source = next((alert for alert in system.alerts if alert.name == name), None)
            if source is None:
                known = [alert.name for alert in system.alerts]
                self.document.problem(at, f"unknown alert {name}", instead(name, known, "alerts"))
            elif self.check_labels(node, found, _labels_of_alert(system, source)) and not source.server:
                self.check_carried(node, found, {*source.labels, *OF_ALERTS})
        elif name in LOAD_METRICS:
            self.check_load_words(node, at, found)
        else:
            metric = next((one for one in system.metrics if one.name == name), None)
            self.check_metric_labels(node, found, metric)

    def check_metric_labels(self, node: Scalar, found: Expression, metric: MetricSource | None) -> None:
        assert self.system is not None
        fixed = metric.constants if metric else {}
        # what is asked once comes from no instance, and has no labels but its own
        of_instances = self.system.labels if metric is None or metric.service else ()
        if not self.check_labels(node, found, {*of_instances, *(metric.labels if metric else ()), *fixed}):
            return
        self.check_carried(node, found, {*(metric.labels if metric else ()), *fixed})
        for label, value in found.labels.items():
            if label in fixed and fixed[label] != value:
                assert metric is not None
                place = _at(node, rf"(?<==)\"?{re.escape(value)}\b")
                what = f"every sample of {metric.name} has {label}={fixed[label]}"
                self.document.problem(place, what, f"write {fixed[label]}, or leave it out")

    def check_carried(self, node: Scalar, found: Expression, own: set[str]) -> None:
        """A label of the instances must have a value that one of them carries: nothing else could ever be seen.
        `own`: labels that samples may bring along, of whose values nobody knows beforehand."""
        assert self.system is not None
        if self.system.target == "kubernetes" or (self.system.docker and self.system.docker.attach):
            return  # containers and pods that run already bring labels of their own
        for label, value in found.labels.items():
            carried = {one.labels[label] for one in self.system.instances if label in one.labels}
            if label in own or value in carried or not carried:
                continue
            place = _at(node, rf"(?<==)\s*\"?{re.escape(value)}\b")
            self.document.problem(place, f"no instance has {label}={value}", instead(value, carried, "values"))

    def check_observed_words(self, node: Scalar, at: Place, found: Comparison) -> None:
        """Nobody sends requests: what is asked of them must be counted by the system itself."""
        system = self.system
        assert system is not None
        if found.metric in JOBS or COMPLETION.fullmatch(found.metric):
            what = f"{found.metric} follows the jobs of a load of our own, and the load is observed"
            self.document.problem(at, what, "remove it, or ask for one of the system's metrics")
        elif lacking := _not_counted(found.metric, system.indicators):
            what = f"with load: observed, {found.metric} needs what counts it"
            written = lacking if system.indicators else f"indicators: {{from: SERVICE, {lacking}}}"
            where = "indicators in " if system.indicators else ""
            self.document.problem(at, what, f"add {written} to {where}the file of the system {system.name}")
        else:
            own = {*(system.indicators.labels if system.indicators else ())}
            if self.check_labels(node, found, {*system.labels, *own}):
                self.check_carried(node, found, own)

    def check_load_words(self, node: Scalar, at: Place, found: Comparison) -> None:
        document, system, profile = self.document, self.system, self.profile
        if self.observed:
            self.check_observed_words(node, at, found)
            return
        if not self.load:
            document.problem(at, f"{found.metric} needs load", "add load: {profile: steady, rate: 20/s}")
        if found.metric in JOBS and system and not system.jobs:
            what = f"the system {system.name} has no ledger of jobs to count {found.metric} in"
            document.problem(at, what, "add jobs: {from: SERVICE, path: /…} to its file")
        if profile is None:
            return
        if self.users:
            self.check_labels(node, found, OF_USERS)
            return
        labels = {label for stream in profile.streams for label in stream.labels}
        if not self.check_labels(node, found, labels):
            return
        if found.metric == "jobs_strayed" and RESIDENCY not in labels:
            what = f"no request of the profile {profile.name} says where its job must stay"
            document.problem(at, what, f"give a stream the label {RESIDENCY}: the name of a region")
        wanted = found.labels.items()
        if not any(wanted <= stream.labels.items() for stream in profile.streams):
            label, value = next(
                (pair for pair in wanted if not any(pair in stream.labels.items() for stream in profile.streams)),
                next(iter(wanted)),
            )
            values = {stream.labels[label] for stream in profile.streams if label in stream.labels}
            place = _at(node, rf"(?<==)\"?{re.escape(value)}\b")
            what = f"no request of the profile {profile.name} has {', '.join(f'{k}={v}' for k, v in wanted)}"
            fix = instead(value, values, "values") if value not in values else "no stream carries all of them: drop one"
            document.problem(place, what, fix)

    def check_labels(self, node: Scalar, found: Expression, known: set[str]) -> bool:
        for label in found.labels:
            if label not in known:
                place = _at(node, rf"\b{re.escape(label)}(?=\s*=)")
                self.document.problem(place, f"unknown label {label}", instead(label, known, "labels"))
                return False
        return True


def _labels_of_alert(system: System, source: AlertSource) -> set[str]:
    """A server's alert comes from no instance of ours, but rules commonly keep the labels of what they speak of."""
    return {*system.labels, *source.labels, *OF_ALERTS}


def _not_counted(metric: str, known: Indicators | None) -> str:
    """What `indicators` lacks for this metric; empty when nothing."""
    if metric == "success":
        return "" if known and known.good and known.total else "good: COUNTER, total: COUNTER"
    if metric == "goodput":
        return "" if known and known.good else "good: COUNTER, total: COUNTER"
    if metric == "throughput":
        return "" if known and (known.total or known.histogram) else "total: COUNTER"
    return "" if known and known.histogram else "histogram: NAME"


def _at(node: Scalar, pattern: str) -> Place:
    """The place of the first match in the expression, else its beginning."""
    match = re.search(pattern, node.text)
    return node.at(match.start() if match else 0)
