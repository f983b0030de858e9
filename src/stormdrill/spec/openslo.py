"""OpenSLO v1 objects (https://github.com/OpenSLO/OpenSLO) to lines of system files and experiments.

What has a counterpart is translated: ratio and threshold metrics of Prometheus to `metrics` with `promql`, objectives
to expressions, the time window to `traffic`. For all else there is a note: nothing is dropped in silence, and nothing
is guessed. A query's range stays as it was written, since only its author knows which one was meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct

from stormdrill.errors import Problem, Refused
from stormdrill.spec.sources import TAKEN
from stormdrill.spec.yaml import Document, Listing, Node, Scalar, Table, ordered, parse, read_text

VERSIONS = ("openslo/v1", "openslo.com/v1")
KINDS = ("DataSource", "SLO", "SLI", "AlertPolicy", "AlertCondition", "AlertNotificationTarget", "Service")
OPS = {"lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
PROMETHEUS = ("prometheus", "thanos", "cortex", "mimir", "victoriametrics")
"""Kinds of sources that answer PromQL."""
_DAY_S = 86400
DURATIONS_S = {"m": 60, "h": 3600, "d": _DAY_S, "w": 7 * _DAY_S}
CALENDAR_D = {"M": 30, "Q": 91, "Y": 365}
"""Months, quarters and years in days: as near as a window of one length comes."""


class Metric(Struct, frozen=True):
    """An entry of a system file's `metrics`."""

    name: str
    promql: str
    unit: str = ""


class Line(Struct, frozen=True):
    """An objective of an experiment."""

    slo: str
    """Service and name, as the file has them."""
    expression: str
    target: float
    """Share of 1 that may be asked of the SLO's own window."""


class Note(Struct, frozen=True):
    """What has no counterpart, or only one that differs."""

    where: str
    line: int
    what: str


class Imported(Struct, frozen=True):
    """Everything that was found in the files, in their order."""

    metrics: tuple[Metric, ...]
    objectives: tuple[Line, ...]
    window: str
    """Of the error budget, of the first SLO that names one: `30d`; empty: none does."""
    server: str
    """Address of the Prometheus that the sources name; empty: none does."""
    notes: tuple[Note, ...]


class _Object(Struct, frozen=True):
    document: Document
    lines: int
    """Lines of the file before it."""
    kind: str
    name: str
    root: Table


def read_openslo(paths: Sequence[Path]) -> Imported:
    """Raises Refused with everything that can't be read, each with file, line and column."""
    problems: list[Problem] = []
    objects: list[_Object] = []
    for path in paths:
        try:
            text = read_text(path)
        except Refused as refused:
            problems += refused.problems
            continue
        for lines, part in _documents(text):
            document = parse(str(path), part)
            found = _object(document, lines) if not document.problems else None
            if found is not None:
                objects.append(found)
            problems += [item._replace(line=item.line + lines) for item in ordered(document.problems)]
    importer = _Importer(objects)
    if not problems:
        importer.run()
        problems = importer.problems
    if not problems and not any(one.kind == "SLO" for one in objects):
        problems.append(Problem(str(paths[0]), 0, 0, "no SLO", "name the files that hold kind: SLO"))
    if problems:
        raise Refused(problems)
    return importer.result()


def _documents(text: str) -> Iterator[tuple[int, str]]:
    """Each document of a file, and how many lines stand before it; those without a value are left out."""
    begin, lines = 0, text.split("\n")
    for index, line in enumerate([*lines, "---"]):
        if line.rstrip() == "---" or line.startswith("--- "):
            part = lines[begin:index]
            if any(item.strip() and not item.lstrip().startswith("#") for item in part):
                yield begin, "\n".join(part)
            begin = index + 1


def _object(document: Document, lines: int) -> _Object | None:
    root = document.root
    if root is None:
        return None
    version, kind = _text(root.get("apiVersion")), _text(root.get("kind"))
    name = _text(document.node("metadata", "name"))
    if version not in VERSIONS:
        what = f"apiVersion {version} is not read here" if version else "apiVersion is missing"
        document.problem(document.place("apiVersion"), what, "write apiVersion: openslo/v1")
    elif kind not in KINDS:
        what = f"kind {kind} is not one of OpenSLO v1" if kind else "kind is missing"
        document.problem(document.place("kind"), what, f"one of {', '.join(KINDS)}")
    elif not name:
        document.problem(document.place("metadata"), "metadata.name is missing", "write metadata: {name: ...}")
    return None if document.problems else _Object(document, lines, kind, name, root)


def _text(node: Node | None) -> str:
    return node.text.strip() if isinstance(node, Scalar) else ""


class _Importer:
    def __init__(self, objects: Sequence[_Object]) -> None:
        self.objects = objects
        self.problems: list[Problem] = []
        self.notes: list[Note] = []
        self.metrics: dict[str, Metric] = {}
        self.lines: list[Line] = []
        self.window = ""
        self.server = ""

    def result(self) -> Imported:
        return Imported(tuple(self.metrics.values()), tuple(self.lines), self.window, self.server, tuple(self.notes))

    def run(self) -> None:
        for one in self.objects:
            if one.kind == "SLO":
                self.slo(one)
            elif one.kind == "DataSource":
                self.source(one)
            elif one.kind in ("AlertPolicy", "AlertCondition", "AlertNotificationTarget"):
                why = "name the alert that your rules make of it: alert(NAME) within 5m"
                self.note(one, one.root, f"{one.kind} {one.name} has no counterpart; {why}")

    def note(self, one: _Object, at: Node, what: str) -> None:
        self.notes.append(Note(one.document.name, at.line + one.lines, what))

    def problem(self, one: _Object, at: Node, what: str, fix: str) -> None:
        self.problems.append(Problem(one.document.name, at.line + one.lines, at.column, what, fix))

    def named(self, kind: str, name: str) -> _Object | None:
        return next((one for one in self.objects if one.kind == kind and one.name == name), None)

    # --- where metrics come from -----------------------------------------------------------------------------

    def source(self, one: _Object) -> None:
        kind = _text(one.document.node("spec", "type"))
        if kind.lower() not in PROMETHEUS:
            self.note(one, one.root, f"data source {one.name} is {kind or 'of no kind'}: only PromQL can be asked")
            return
        details = one.document.node("spec", "connectionDetails")
        url = _text(details.get("url")) if isinstance(details, Table) else ""
        if clear := re.fullmatch(r"(https?://)[^\s/@]*@([^\s?#]*)(?:[?#].*)?|(https?://[^\s?#]*)[?#].*", url):
            self.note(one, one.root, f"the address of {one.name} holds more than that: give it under servers, headers")
            url = f"{clear[1]}{clear[2]}" if clear[1] else clear[3]
        if url and self.server and url != self.server:
            self.note(one, one.root, f"a second server, {url}: a system has one under servers")
        self.server = self.server or url
        if isinstance(details, Table) and set(details.entries) - {"url"}:
            rest = ", ".join(sorted(set(details.entries) - {"url"}))
            self.note(one, details, f"{rest} of {one.name}: give it under servers, headers; secrets stay secrets")

    def query(self, one: _Object, metric: Node | None, what: str) -> str:
        """The PromQL of a metric source; empty where it has none, which is a note."""
        source = metric.get("metricSource") if isinstance(metric, Table) else None
        if not isinstance(source, Table):
            self.problem(one, metric or one.root, f"{what} has no metricSource", "write metricSource: {spec: ...}")
            return ""
        name = _text(source.get("metricSourceRef"))
        kind, known = _text(source.get("type")), self.named("DataSource", name)
        if not kind and known is not None:
            kind = _text(known.document.node("spec", "type"))
        if kind and kind.lower() not in PROMETHEUS:
            self.note(one, source, f"{what} comes from {kind}: only PromQL can be asked; read it with command or http")
            return ""
        spec = source.get("spec")
        query = ""
        for key in ("query", "promql", "expr"):
            query = query or (_text(spec.get(key)) if isinstance(spec, Table) else _text(spec))
        if not query:
            self.problem(one, spec or source, f"{what} has no query", "write spec: {query: ...}")
            return ""
        if not kind:
            self.note(one, source, f"{what} doesn't say what its source is: taken for PromQL")
        kept = [line for line in query.splitlines() if not line.lstrip().startswith("#")]
        return " ".join(" ".join(kept).split())

    # --- objectives ------------------------------------------------------------------------------------------

    def slo(self, one: _Object) -> None:
        spec = one.root.get("spec")
        if not isinstance(spec, Table):
            self.problem(one, one.root, f"SLO {one.name} has no spec", "write spec: ...")
            return
        self.time_window(one, spec)
        if spec.get("alertPolicies") is not None:
            self.note(one, spec.entries["alertPolicies"][0], f"alert policies of {one.name}: ask alert(NAME) within d")
        indicator = self.indicator(one, spec)
        objectives = spec.get("objectives")
        if not isinstance(objectives, Listing) or not objectives.items:
            self.problem(one, objectives or spec, f"SLO {one.name} has no objectives", "write objectives: [...]")
            return
        if indicator is None:
            return
        holder, sli = indicator
        method = _text(spec.get("budgetingMethod"))
        if method.lower() in ("timeslices", "ratiotimeslices"):
            at = spec.entries["budgetingMethod"][0]
            what = f"{one.name} counts {method}: a run counts requests and readings, not slices of minutes"
            self.note(one, at, what)
        if isinstance(sli.get("ratioMetric"), Table):
            self.ratio(one, holder, sli.get("ratioMetric"), objectives)
        elif isinstance(sli.get("thresholdMetric"), Table):
            self.threshold(one, holder, sli.get("thresholdMetric"), objectives)
        else:
            fix = "write one of them"
            self.problem(holder, sli, "neither ratioMetric nor thresholdMetric", fix)

    def indicator(self, one: _Object, spec: Table) -> tuple[_Object, Table] | None:
        inline, name = spec.get("indicator"), _text(spec.get("indicatorRef"))
        if isinstance(inline, Table):
            body = inline.get("spec")
            if isinstance(body, Table):
                return one, body
            self.problem(one, inline, "the indicator has no spec", "write spec: {ratioMetric: ...}")
            return None
        if not name:
            self.problem(one, spec, f"SLO {one.name} has no indicator", "write indicator or indicatorRef")
            return None
        found = self.named("SLI", name)
        body = found.root.get("spec") if found is not None else None
        if found is None or not isinstance(body, Table):
            at = spec.entries["indicatorRef"][1]
            self.problem(one, at, f"no SLI {name} in these files", "name the file that holds it too")
            return None
        return found, body

    def time_window(self, one: _Object, spec: Table) -> None:
        windows = spec.get("timeWindow")
        first = windows.items[0] if isinstance(windows, Listing) and windows.items else None
        if not isinstance(first, Table):
            return
        node = first.get("duration")
        length = window_of(_text(node))
        if not length:
            at = node or first
            self.problem(one, at, f"{_text(node) or 'nothing'} is no duration", "write for instance 28d, 4w or 1M")
            return
        if first.get("calendar") is not None or _text(first.get("isRolling")) == "false":
            what = f"{one.name} has a calendar window: the error budget here rolls over {length}"
            self.note(one, first, what)
        if self.window and self.window != length:
            self.note(one, first, f"{one.name} has a window of {length}: a system has one, {self.window}")
        self.window = self.window or length

    def ratio(self, one: _Object, holder: _Object, metric: Node | None, objectives: Listing) -> None:
        assert isinstance(metric, Table)
        query = self.ratio_query(one, holder, metric)
        if not query:
            return
        name = self.metric(f"{one.name}_good", query, "ratio")
        for at in objectives.items:
            target = self.target(one, at)
            if target is not None:
                self.line(one, f"{name} >= {number(100 * target)}%", target)

    def ratio_query(self, one: _Object, holder: _Object, metric: Table) -> str:
        if metric.get("raw") is not None:
            raw = self.query(holder, metric.get("raw"), "raw")
            failure = _text(metric.get("rawType")).lower() == "failure"
            return f"1 - ({raw})" if raw and failure else raw
        part = "good" if metric.get("good") is not None else "bad"
        if metric.get(part) is None or metric.get("total") is None:
            fix = "write good and total, bad and total, or raw"
            self.problem(holder, metric, "a ratioMetric without its parts", fix)
            return ""
        found, total = self.query(holder, metric.get(part), part), self.query(holder, metric.get("total"), "total")
        if not found or not total:
            return ""
        if _text(metric.get("counter")) == "true" and not re.search(r"\b(i?rate|increase|delta)\s*\(", found + total):
            what = f"{one.name} divides counters since their start: put rate(...[1m]) around each for what happens now"
            self.note(holder, metric, what)
        return f"({found}) / ({total})" if part == "good" else f"1 - ({found}) / ({total})"

    def threshold(self, one: _Object, holder: _Object, metric: Node | None, objectives: Listing) -> None:
        query = self.query(holder, metric, "thresholdMetric")
        if not query:
            return
        name = ""
        for at in objectives.items:
            target = self.target(one, at)
            sign = OPS.get(_text(at.get("op")) if isinstance(at, Table) else "")
            value = _float(at.get("value")) if isinstance(at, Table) else None
            if target is None:
                continue
            if sign is None:
                self.problem(one, at, "op is missing or unknown", "write op: lt, lte, gt or gte")
                continue
            if value is None or not 0 <= value < 1e12:
                self.problem(one, at, "value is missing, negative or no number", "write value: 0.3")
                continue
            name = name or self.metric(one.name, query, "")
            self.line(one, f"{name} {sign} {number(value)}", target)
            what = f"{one.name} asks it of {number(100 * target)}% of its window: here the worst reading must hold"
            self.note(one, at, f"{what}. Its unit is not told: add unit: to the metric and to the number")

    def target(self, one: _Object, at: Node) -> float | None:
        """As a share of 1."""
        if not isinstance(at, Table):
            self.problem(one, at, "an objective is a table", "write - target: 0.99")
            return None
        share, percent = _float(at.get("target")), _float(at.get("targetPercent"))
        found = share if share is not None else percent / 100 if percent is not None else None
        if found is None or not 0 <= found < 1:
            fix = "write target: 0.99 or targetPercent: 99"
            what = "an objective without a target" if found is None else f"a target of {number(100 * found)}%"
            self.problem(one, at, what, fix)
            return None
        return round(found, 12)

    def metric(self, name: str, query: str, unit: str) -> str:
        made = re.sub(r"[^a-z0-9_]+", "_", name.lower()).strip("_") or "slo"
        made = made if made[0].isalpha() else f"slo_{made}"
        made = f"slo_{made}" if made in TAKEN else made
        known, number_ = made, 1
        while known in self.metrics and self.metrics[known].promql != query:
            number_ += 1
            known = f"{made}_{number_}"
        self.metrics[known] = Metric(known, query, unit)
        return known

    def line(self, one: _Object, expression: str, target: float) -> None:
        service = _text(one.document.node("spec", "service"))
        slo = f"{service}/{one.name}" if service else one.name
        self.lines.append(Line(" ".join(slo.split()), expression, target))


def window_of(text: str) -> str:
    """OpenSLO's duration as one of ours; empty for what is none."""
    match = re.fullmatch(r"([1-9][0-9]*)([mhdwMQY])", text)
    if match is None:
        return ""
    count, postfix = int(match[1]), match[2]
    if postfix in CALENDAR_D:
        return f"{count * CALENDAR_D[postfix]}d"
    seconds = count * DURATIONS_S[postfix]
    return f"{seconds // _DAY_S}d" if seconds % _DAY_S == 0 else f"{seconds // 60}m"


def _float(node: Node | None) -> float | None:
    try:
        return float(_text(node))
    except ValueError:
        return None


def number(value: float) -> str:
    """Without an exponent, which expressions don't know."""
    text = f"{value:.9f}".rstrip("0").rstrip(".")
    return text or "0"
