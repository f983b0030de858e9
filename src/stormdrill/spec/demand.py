"""What an experiment asks of its profiles together: a sum of them, in the run's own time.

peak + 0.5 x spike
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from stormdrill.model.experiment import Phase
from stormdrill.model.profile import Piece, Profile
from stormdrill.spec.kinds import NAME
from stormdrill.spec.scalars import short, suggestion

MOST_PARTS = 8
MOST_WEIGHT = 1000.0
_TERM = re.compile(rf"(?:(?P<weight>\d+(?:\.\d+)?)\s*(?P<times>[x×*])\s*)?(?P<name>{NAME})")
_SWAPPED = re.compile(rf"(?P<name>{NAME})\s*[x×*]\s*(?P<weight>\d+(?:\.\d+)?)")


class Term(NamedTuple):
    """One profile of a sum."""

    name: str
    weight: float
    offset: int
    """Of the name in the text."""


class SumError(ValueError):
    """What is wrong with a sum of profiles, and at which letter."""

    def __init__(self, what: str, fix: str, offset: int) -> None:
        super().__init__(what)
        self.what, self.fix, self.offset = what, fix, offset


def parse_sum(text: str) -> tuple[Term, ...]:
    """The profiles of `peak + 0.5 x spike`. Raises SumError for the first thing that can't be read."""
    terms: list[Term] = []
    begin = 0
    for piece in text.split("+"):
        lead = begin + len(piece) - len(piece.lstrip())
        terms.append(_term(piece.strip(), lead, len(terms)))
        begin += len(piece) + 1
    if len(terms) > MOST_PARTS:
        raise SumError(f"{len(terms)} profiles in one sum", f"write {MOST_PARTS} or fewer", terms[MOST_PARTS].offset)
    return tuple(terms)


def _term(text: str, offset: int, before: int) -> Term:
    if not text:
        what = "a profile is missing after +" if before else "a profile is missing"
        raise SumError(what, "write a name, for instance peak + spike", max(offset - 1, 0))
    match = _TERM.fullmatch(text)
    if match is None:
        swapped = _SWAPPED.fullmatch(text)
        if swapped:
            fix = f"write {swapped['weight']} x {swapped['name']}"
            raise SumError(f"a weight after its profile, {short(text)}", fix, offset)
        number = re.match(r"\d+(?:\.\d+)?\s*", text)
        if number and number.end() == len(text):
            raise SumError(f"a weight without a profile, {short(text)}", f"write {text} x peak", offset)
        near = suggestion("word", text) if not number and " " not in text else None
        raise SumError(f"{short(text)} is no profile with its weight", f"write {near or '0.5 x spike'}", offset)
    weight = float(match["weight"]) if match["weight"] else 1.0
    if not 0 < weight <= MOST_WEIGHT:
        raise SumError(f"a weight of {weight:g}", f"write more than 0 and at most {MOST_WEIGHT:g}", offset)
    return Term(match["name"], weight, offset + match.start("name"))


def composed(terms: Sequence[Term], profiles: Mapping[str, Profile]) -> Profile:
    """One profile that holds each of the sum's as a part."""
    parts = [replace(profiles[term.name], weight=term.weight) for term in terms]
    return replace(parts[0], also=tuple(parts[1:]))


def as_recorded(profile: Profile) -> tuple[Profile, float] | None:
    """The same demand at the rate of its recordings, where each part replays one: profile and rate; None otherwise."""
    means = [part.trace.mean_per_s * part.weight for part in profile.parts if part.trace is not None]
    if len(means) < len(profile.parts):
        return None
    rate_per_s = sum(means)
    parts = [replace(part, weight=mean / rate_per_s) for part, mean in zip(profile.parts, means, strict=True)]
    return replace(parts[0], also=tuple(parts[1:])), rate_per_s


def anchored(profile: Profile, begins_s: Callable[[Phase], float]) -> Profile:
    """The profile with all its times since the load's epoch, as a plan holds it. `begins_s`: when a phase begins."""
    parts = [_anchored(replace(part, also=()), begins_s) for part in profile.parts]
    return replace(parts[0], also=tuple(parts[1:]))


def _anchored(part: Profile, begins_s: Callable[[Phase], float]) -> Profile:
    if part.since is None:
        return part
    shift_s = begins_s(part.since)
    shape = tuple(Piece(piece.at_s + shift_s, piece.factor) for piece in part.shape)
    if shape and shift_s:
        shape = (Piece(0.0, part.shape[0].factor), *shape)
    stages = (replace(stage, start_s=stage.start_s + shift_s, end_s=stage.end_s + shift_s) for stage in part.stages)
    trace = replace(part.trace, start_s=part.trace.start_s + shift_s) if part.trace else None
    return replace(part, since=None, shape=shape, stages=tuple(stages), trace=trace)
