"""A plan in a few lines that a person can agree to, or not."""

from __future__ import annotations

import textwrap
from itertools import groupby

from stormdrill.core.reach import touched
from stormdrill.model.plan import Injection, Plan
from stormdrill.model.units import show_duration

PLACES = {"process": "processes", "docker": "containers", "kubernetes": "Kubernetes"}
DIGEST_SHOWN = 6
NAMES_SHOWN = 6


def plan_lines(plan: Plan, width: int = 100) -> list[str]:
    """What is asked, of what, what will be done to what, how it is undone, and the worst that can come of it."""
    where = f"{plan.system.name} on {PLACES.get(plan.target, plan.target)} · seed {plan.seed}"
    title = f"  {plan.experiment.title}"
    fits = len(title) + len(where) + 3 <= width
    lines = [f"{title}{where:>{width - len(title)}}"] if fits else _wrapped(f"{title.strip()} · {where}", width)
    everybody = [item.name for item in plan.system.instances]
    texts = [f"plan {plan.digest[:DIGEST_SHOWN]}", *(f"cluster {at}" for at in plan.clusters)]
    for _, group in groupby(plan.injections, key=lambda one: (one.use, one.mechanism, one.undo, one.for_s)):
        texts.append(_injections(tuple(group), everybody))
    if not plan.injections:
        texts.append("nothing is injected")
    if plan.worst_case:
        texts.append(f"worst case: {plan.worst_case}")
    texts += [f"cannot be undone: {text}" for text in plan.irreversible]
    texts += [f"needs: {text}" for text in plan.permissions]
    before = "what it takes to hold the cluster" if plan.target == "kubernetes" else "the system's start and stop"
    texts.append(f"takes {show_duration(plan.duration_s)} and {before}")
    first, *rest = texts
    for text in rest:
        lines += textwrap.wrap(text, width, initial_indent=f"  {first:<14} ", subsequent_indent=" " * 17)
        first = ""
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="  ")


def _injections(group: tuple[Injection, ...], everybody: list[str]) -> str:
    """An instance is counted once, however many of its devices are hit, and so are both ends of a cut line."""
    first, hit = group[0], {name for one in group for name in touched(one)}
    shown = [name for name in everybody if name in hit]
    names = ", ".join(shown[:NAMES_SHOWN])
    if len(shown) > NAMES_SHOWN:
        names += f" and {len(shown) - NAMES_SHOWN} more"
    start = f", {show_duration(first.start_s)} into the phase" if first.start_s else ""
    return (
        f"{first.mechanism} {len(shown)} of {len(everybody)} instances ({names}) "
        f"for {show_duration(first.for_s)}{start} · undo: {first.undo}"
    )
