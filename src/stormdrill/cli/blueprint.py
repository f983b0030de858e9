"""A plan at length, as `stormdrill plan` prints it, and the same as data."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Mapping, Sequence

from stormdrill.cli.checks import asked_text
from stormdrill.cli.outline import PLACES
from stormdrill.core.demand import Demand
from stormdrill.core.measure import numbers
from stormdrill.core.reach import touched
from stormdrill.model.experiment import PHASES
from stormdrill.model.expression import Expression
from stormdrill.model.plan import Injection, Plan
from stormdrill.model.system import ServiceInstance
from stormdrill.model.units import show_duration

LABEL = 14
"""Columns of the words on the left, their gap included."""
SPOKEN = {"warmup": "warm-up", "failback": "fail-back"}
IMAGE_SHOWN = 19
CONTINUED = "\\"
Row = tuple[str, str, str, str, str]
"""Mechanism, instance, when, undo, labels with where it is."""


def blueprint_lines(plan: Plan, asked: Sequence[str], width: int = 100) -> list[str]:
    """Who would be hit by what, how it is undone, the worst that can come of it, what it takes: in this order.

    `asked`: the experiment's path and the options by which this plan was asked for, without which a run is another.
    """
    lines = _headed(plan.experiment.title, width)
    of = f" of {_shared(plan)}" if _shared(plan) else ""
    said = f"{plan.system.name} on {PLACES.get(plan.target, plan.target)}{of} · seed {plan.seed}"
    lines += _headed(f"{said}{' · --fast' if plan.experiment.fast else ''}", width)
    lines += [line for at in plan.clusters for line in _headed(f"cluster {at}", width)] + [""]
    for number, use in enumerate(plan.experiment.faults):
        hits = [one for one in plan.injections if one.use == number]
        lines += [*_fault(use.word, hits, plan, width), ""]
    if not plan.injections:
        lines += ["  nothing is injected: the load is what harms", ""]
    for word, texts in _facts(plan):
        for text in texts:
            lines += _worded(word, text, width)
            word = ""
    lines += ["", *_worded("digest", f"{plan.digest}; this and nothing else is run by", width)]
    return [*lines, *_command(["stormdrill", "run", *asked, "--plan", plan.digest], width)]


def _command(words: Sequence[str], width: int) -> list[str]:
    """A command that can be copied as it stands, over several lines where one is too short."""
    lines, indent = [""], " " * (LABEL + 2)
    for word in map(shlex.quote, words):
        if lines[-1] and len(indent) + len(lines[-1]) + len(word) + len(f" {CONTINUED}") > width:
            lines[-1] += CONTINUED
            lines.append("  ")
        lines[-1] += f"{word} "
    return [f"{indent}{line}".rstrip() for line in lines]


def _wrapped(text: str, width: int, *, initial_indent: str, subsequent_indent: str) -> list[str]:
    """Names of instances and numbers with their units stay whole."""
    whole = re.sub(r"(?<=\d) (?=(ms|s|min|of|MB|KB|B)\b)", "\N{NO-BREAK SPACE}", text)
    lines = textwrap.wrap(
        whole, width, initial_indent=initial_indent, subsequent_indent=subsequent_indent, break_on_hyphens=False
    )
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def _headed(text: str, width: int) -> list[str]:
    return _wrapped(text, width, initial_indent="  ", subsequent_indent="  ")


def _worded(word: str, text: str, width: int) -> list[str]:
    indent = " " * (LABEL + 2)
    return _wrapped(text, width, initial_indent=f"  {word:<{LABEL}}", subsequent_indent=indent)


def _fault(word: str, hits: Sequence[Injection], plan: Plan, width: int) -> list[str]:
    """A line for each instance that is hit, in columns; below them what the mechanism does in figures, where that
    differs from above."""
    count = len({name for one in hits for name in touched(one)})
    lines = [f"  {word}: {count} of {len(plan.system.instances)} instances"]
    known = {item.name: item for item in plan.system.instances}
    placed = not _shared(plan)
    rows = [[_row(one, name, known.get(name), placed) for name in _named(one, known)] for one in hits]
    sizes = [max((len(row[column]) for many in rows for row in many), default=0) for column in range(5)]
    before = ""
    for one, many in zip(hits, rows, strict=True):
        for row in many:
            lines += _columns(row, sizes, width)
        said = numbers(one, plan.target)
        if said and said != before:
            lines += _below(said, width)
        before = said
    return lines


def _named(one: Injection, known: Mapping[str, ServiceInstance]) -> list[str]:
    """Each instance that it hits, in the system's order."""
    hit = touched(one)
    return [name for name in known if name in hit] + sorted(hit - known.keys())


def _columns(row: Row, sizes: Sequence[int], width: int) -> list[str]:
    """As much of it on one line as fits; the rest below."""
    cells = [f"{text:<{size}}" for text, size in zip(row, sizes, strict=True)]
    for count in (5, 4, 3):
        line = f"    {'  '.join(cells[:count])}".rstrip()
        if len(line) <= width:
            return [line, *(said for text in row[count:] for said in _below(text, width))]
    return [said for text in ("  ".join(row[:3]), *row[3:]) for said in _below(text, width)]


def _below(text: str, width: int) -> list[str]:
    return _wrapped(text, width, initial_indent="      ", subsequent_indent="      ")


def _shared(plan: Plan) -> str:
    """What all instances are made of, where that is one thing: it needs to be said once."""
    places = {where(item) for item in plan.system.instances}
    return places.pop() if len(places) == 1 else ""


def _row(one: Injection, name: str, known: ServiceInstance | None, placed: bool) -> Row:
    when = f"at {show_duration(one.start_s)} for {show_duration(one.for_s)}" if one.start_s else ""
    when = when or f"for {show_duration(one.for_s)}"
    labels = " ".join(f"{key}={value}" for key, value in sorted(known.labels.items())) if known else ""
    place = where(known) if placed else ""
    return one.mechanism, name, when, f"undo: {one.undo}", f"{labels}{f'  {place}' if place else ''}".strip()


def where(known: ServiceInstance | None) -> str:
    """The image or the selector by which a container is known, or the pod that it is; empty for a process."""
    if known is None:
        return ""
    if known.image.startswith("pod:"):
        return f"pod {known.image.split('/')[2]}"
    if known.select:
        return "container with " + " ".join(f"{key}={value}" for key, value in sorted(known.select.items()))
    return f"image {known.image[:IMAGE_SHOWN]}" if known.image else ""


def _facts(plan: Plan) -> list[tuple[str, list[str]]]:
    lasting = ", ".join(
        f"{SPOKEN.get(phase, phase)} {show_duration(plan.length_s(phase))}" for phase in PHASES if plan.length_s(phase)
    )
    start, stop = show_duration(plan.system.ready_timeout_s), show_duration(plan.system.stop_timeout_s)
    held = plan.target == "kubernetes" or (
        plan.system.docker is not None and plan.target == "docker" and plan.system.docker.attach
    )
    around = "" if held else f", and the system's start (at most {start}) and stop (about {stop})"
    return [
        ("worst case", [plan.worst_case] if plan.worst_case else []),
        ("not undone", list(plan.irreversible) or ["nothing: every injection has an undo that brings all back"]),
        ("mind", list(plan.notes)),
        ("needs", list(plan.permissions)),
        ("takes", [f"{show_duration(plan.duration_s)}: {lasting}{around}"]),
        ("load", [_load(plan)]),
        ("judges", [_judged(plan)]),
        ("checks", [asked_text(plan.experiment.backpressure)] if plan.experiment.backpressure else []),
        ("guards", [one.text for one in plan.experiment.guards] or ["none: nothing ends the run early but a person"]),
        ("runbook", [_runbook(plan)]),
    ]


def _load(plan: Plan) -> str:
    use, profile = plan.experiment.load, plan.profile
    if use is None or profile is None:
        return "none: the system's own traffic is observed" if plan.experiment.observed else "none"
    if use.closed_loop:
        return f"{use.users} users of {use.locustfile}, closed loop, into {plan.system.entry}"
    peak_per_s = Demand(profile, use.rate_per_s).peak_rate()
    most = f", {peak_per_s:.4g}/s at its peak" if peak_per_s > use.rate_per_s else ""
    return f"{use.profile}: {use.rate_per_s:.4g}/s{most}, into {plan.system.entry}"


def _judged(plan: Plan) -> str:
    count = len(plan.experiment.objectives)
    phases = dict.fromkeys(one.window.phase for one in plan.experiment.objectives)
    words = ", ".join(SPOKEN.get(phase, phase) for phase in phases)
    return f"{count} objective{'s' if count != 1 else ''}, in {words}" if count else "nothing"


def _runbook(plan: Plan) -> str:
    use = plan.experiment.runbook
    if use is None:
        return "none"
    approved = f"; approved beforehand: {', '.join(use.approve)}" if use.approve else ""
    late = f"at the latest {show_duration(use.else_after_s)} into the fault"
    return f"{use.run}, on {_text(use.start)}, {late}{approved}"


def _text(expression: Expression) -> str:
    return expression.text


def blueprint_object(plan: Plan) -> dict[str, object]:
    """What `blueprint_lines` says, for a program; durations in seconds."""
    import msgspec

    known = {item.name: item for item in plan.system.instances}
    use, runbook = plan.experiment.load, plan.experiment.runbook
    return {
        "digest": plan.digest,
        "experiment": plan.experiment.name,
        "title": plan.experiment.title,
        "system": plan.system.name,
        "target": plan.target,
        "clusters": [msgspec.to_builtins(at) for at in plan.clusters],
        "fast": plan.experiment.fast,
        "seed": plan.seed,
        "instances": len(plan.system.instances),
        "injections": [
            {
                "id": one.id,
                "fault": one.fault,
                "instance": one.instance,
                "labels": known[one.instance].labels if one.instance in known else {},
                "where": where(known.get(one.instance)),
                "mechanism": one.mechanism,
                "numbers": numbers(one, plan.target),
                "how": msgspec.to_builtins(one.how),
                "start_s": one.start_s,
                "for_s": one.for_s,
                "undo": one.undo,
                "hits": _named(one, known),
                "loses": one.loses,
                "leaves": one.leaves,
            }
            for one in plan.injections
        ],
        "worst_case": plan.worst_case,
        "irreversible": list(plan.irreversible),
        "notes": list(plan.notes),
        "permissions": list(plan.permissions),
        "duration_s": plan.duration_s,
        "phases": {phase: plan.length_s(phase) for phase in PHASES},
        "load": None if use is None else {"profile": use.profile, "rate_per_s": use.rate_per_s, "says": _load(plan)},
        "objectives": [f"{one.expression.text} ({one.window.text})" for one in plan.experiment.objectives],
        "backpressure": [{"name": one.word, **one.parameters} for one in plan.experiment.backpressure],
        "guards": [one.text for one in plan.experiment.guards],
        "runbook": None if runbook is None else {"name": runbook.run, "says": _runbook(plan)},
    }
