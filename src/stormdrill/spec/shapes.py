"""What the words for a demand's course mean: each becomes pieces, and stages where checks compare its stretches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from stormdrill.model.profile import Piece, Role, Stage
from stormdrill.spec.files_load import (
    BacklogFile,
    DayFile,
    EpisodesFile,
    FailoverFile,
    MonthEndFile,
    PieceFile,
    RampFile,
    SpikeFile,
    StepsFile,
)
from stormdrill.spec.scalars import seconds

DAY_PARTS = 96
"""A day's wave is drawn by its quarters of an hour."""
MOST_STEPS = 200
MOST_EPISODES = 64


class Unshaped(Exception):
    """A word whose numbers don't go together: which key, what is wrong with it, and what to write."""

    def __init__(self, key: str, what: str, fix: str) -> None:
        super().__init__(what)
        self.key, self.what, self.fix = key, what, fix


class Shaped(NamedTuple):
    """A course; times count from wherever the profile says that they do."""

    before: float
    """The factor until then."""
    pieces: tuple[Piece, ...]
    stages: tuple[Stage, ...] = ()


Course = (
    Sequence[PieceFile]
    | RampFile
    | SpikeFile
    | DayFile
    | MonthEndFile
    | FailoverFile
    | BacklogFile
    | StepsFile
    | EpisodesFile
)


def shaped(course: Course) -> Shaped:
    """The course that a word describes. Raises Unshaped."""
    if isinstance(course, RampFile):
        return _ramp(course)
    if isinstance(course, SpikeFile):
        return _spike(course)
    if isinstance(course, DayFile):
        return _day(course)
    if isinstance(course, MonthEndFile):
        return _month_end(course)
    if isinstance(course, FailoverFile):
        return _failover(course)
    if isinstance(course, BacklogFile):
        return _backlog(course)
    if isinstance(course, StepsFile):
        return _steps(course)
    if isinstance(course, EpisodesFile):
        return _episodes(course)
    return Shaped(1.0, tuple(Piece(seconds(piece.at), piece.factor) for piece in course))


def _ramp(ramp: RampFile) -> Shaped:
    at_s, over_s = seconds(ramp.at), _lasting("over", ramp.over)
    if ramp.from_ == ramp.to == 0:
        raise Unshaped("to", "a ramp without any arrivals", "write a factor above 0")
    return Shaped(ramp.from_, (Piece(0.0, ramp.from_), Piece(at_s, ramp.from_), Piece(at_s + over_s, ramp.to)))


def _spike(spike: SpikeFile) -> Shaped:
    at_s, for_s = seconds(spike.at), _lasting("for", spike.for_)
    rise_s, fall_s = seconds(spike.rise), seconds(spike.fall)
    if rise_s + fall_s > for_s:
        raise Unshaped("for", f"rise and fall take longer than the {for_s:g}s of the spike", "write a longer time")
    if spike.factor <= spike.base:
        raise Unshaped("factor", f"a spike that is no higher than its base, {spike.base:g}", "write a larger factor")
    ends_s = at_s + for_s
    corners = [(0.0, spike.base), (at_s, spike.base), (at_s + rise_s, spike.factor)]
    corners += [(ends_s - fall_s, spike.factor), (ends_s, spike.base)]
    return Shaped(spike.base, tuple(Piece(*corner) for corner in corners))


def _wave(peak: float) -> list[float]:
    """A day's course from its busiest moment on, whose mean is 1 and whose highest is `peak`."""
    power, mean = 1, 0.5
    while mean > 1 / peak:
        power += 1
        mean *= (2 * power - 1) / (2 * power)
    low = (1 - peak * mean) / (1 - mean)
    parts = (((1 + math.cos(math.tau * part / DAY_PARTS)) / 2) ** power for part in range(DAY_PARTS))
    return [low + (peak - low) * part for part in parts]


def _day(day: DayFile) -> Shaped:
    length_s, hour_s = _lasting("length", day.length), 3600.0
    for key, text in (("busiest", day.busiest), ("begin", day.begin)):
        if seconds(text) > 24 * hour_s:
            raise Unshaped(key, f"{text} is more than the 24 hours of a day", "write for instance 20h")
    wave = _wave(day.peak)
    shift = (seconds(day.begin) - seconds(day.busiest)) / (24 * hour_s) * DAY_PARTS
    factors = [_between(wave, part + shift) for part in range(DAY_PARTS * day.days + 1)]
    return Shaped(factors[0], tuple(Piece(length_s * n / DAY_PARTS, factor) for n, factor in enumerate(factors)))


def _between(wave: Sequence[float], at: float) -> float:
    below = math.floor(at)
    share = at - below
    return wave[below % len(wave)] * (1 - share) + wave[(below + 1) % len(wave)] * share


def _month_end(month: MonthEndFile) -> Shaped:
    length_s = _lasting("length", month.length)
    if month.last >= month.days:
        raise Unshaped("last", f"{month.last} busy days of {month.days}: no plain one is left", "write fewer")
    plain = month.days - month.last
    levels = [1.0] * plain + [month.factor ** (nth / month.last) for nth in range(1, month.last + 1)]
    mean = sum(levels) / month.days
    wave = _wave(month.peak)
    parts, noon = 24, DAY_PARTS // 2
    pieces = []
    for day, level in enumerate(levels):
        for part in range(parts):
            at_s = length_s * (day + part / parts) / month.days
            pieces.append(Piece(at_s, level / mean * wave[(noon + part * DAY_PARTS // parts) % DAY_PARTS]))
        pieces.append(Piece(length_s * (day + 1) / month.days, level / mean * wave[noon]))
    return Shaped(wave[noon] / mean, (*pieces, Piece(length_s, wave[noon] / mean)))


def _failover(failover: FailoverFile) -> Shaped:
    if failover.lost >= failover.of:
        raise Unshaped("lost", f"{failover.lost} of {failover.of} lost: nobody survives", "write fewer")
    at_s, factor = seconds(failover.at), failover.of / (failover.of - failover.lost)
    pieces = [Piece(0.0, 1.0), Piece(at_s, 1.0), Piece(at_s, factor)]
    if failover.for_ is not None:
        ends_s = at_s + _lasting("for", failover.for_)
        pieces += [Piece(ends_s, factor), Piece(ends_s, 1.0)]
    return Shaped(1.0, tuple(pieces))


def _backlog(backlog: BacklogFile) -> Shaped:
    of_s, over_s, at_s = _lasting("of", backlog.of), _lasting("over", backlog.over), seconds(backlog.at)
    factor = 1 + of_s / over_s
    corners = [(0.0, 1.0), (at_s, 1.0), (at_s, factor), (at_s + over_s, factor), (at_s + over_s, 1.0)]
    return Shaped(1.0, tuple(Piece(*corner) for corner in corners))


def _steps(steps: StepsFile) -> Shaped:
    each_s, factors = _lasting("each", steps.each), _staircase(steps)
    at_s = seconds(steps.at)
    found = [Stage("step", at_s + n * each_s, at_s + (n + 1) * each_s, factor) for n, factor in enumerate(factors)]
    return Shaped(1.0, _of_stages(found, 1.0), tuple(found))


def _staircase(steps: StepsFile) -> list[float]:
    if steps.factors:
        if steps.from_ is not None or steps.to is not None or steps.ratio is not None:
            raise Unshaped("factors", "factors, and from, to or ratio besides", "write the factors, or from, to, ratio")
        if len(steps.factors) > MOST_STEPS:
            raise Unshaped("factors", f"more than {MOST_STEPS} steps", "write fewer")
        return list(steps.factors)
    if steps.from_ is None or steps.to is None or steps.ratio is None:
        raise Unshaped("", "a staircase without its steps", "write factors: [1, 2, 3], or from: 0.5, to: 3, ratio: 1.5")
    if steps.to <= steps.from_:
        raise Unshaped("to", f"the staircase doesn't rise from {steps.from_:g} to {steps.to:g}", "write a higher one")
    count = math.ceil(math.log(steps.to / steps.from_) / math.log(steps.ratio) - 1e-9)
    if count >= MOST_STEPS:
        raise Unshaped("ratio", f"more than {MOST_STEPS} steps", "write a larger ratio")
    return [round(steps.from_ * steps.ratio**n, 6) for n in range(count)] + [steps.to]


def _episodes(asked: EpisodesFile) -> Shaped:
    base_s, hold_s, rest_s = _lasting("base", asked.base), _lasting("hold", asked.hold), seconds(asked.rest)
    for index, text in enumerate(asked.durations):
        _lasting(f"durations.{index}", text)
    _check_levels(asked)
    combinations = [
        (load, trigger, seconds(text)) for load in asked.loads for trigger in asked.triggers for text in asked.durations
    ]
    if len(combinations) > MOST_EPISODES:
        what = f"{len(combinations)} episodes: each load with each trigger of each duration"
        raise Unshaped("", what, f"write fewer of them: {MOST_EPISODES} is the most")
    found: list[Stage] = []
    at_s = seconds(asked.at)
    for number, (load, trigger, lasts_s) in enumerate(combinations, 1):
        stretches: list[tuple[Role, float, float]] = [("base", base_s, load), ("trigger", lasts_s, trigger)]
        stretches += [("after", hold_s, load)]
        if asked.down is not None:
            stretches += [("down", _lasting("down.each", asked.down.each), factor) for factor in _down(asked, load)]
        if rest_s:
            stretches += [("rest", rest_s, asked.idle)]
        for role, length_s, factor in stretches:
            found.append(Stage(role, at_s, at_s + length_s, factor, number))
            at_s += length_s
    return Shaped(1.0, _of_stages(found, 1.0), tuple(found))


def _check_levels(asked: EpisodesFile) -> None:
    for key, values in (("loads", asked.loads), ("triggers", asked.triggers), ("durations", asked.durations)):
        if len(set(values)) < len(values):
            raise Unshaped(key, "one of them stands twice", "remove it")
    if min(asked.triggers) <= max(asked.loads):
        what = f"a trigger of {min(asked.triggers):g} does not rise above the load {max(asked.loads):g}"
        raise Unshaped("triggers", what, "both are multiples of the asked rate: write a higher trigger")
    if asked.down is not None and asked.down.to >= min(asked.loads):
        what = f"a way down to {asked.down.to:g} that ends no lower than the load {min(asked.loads):g}"
        raise Unshaped("down.to", what, "write a lower one")
    if asked.idle >= min(asked.loads):
        raise Unshaped("idle", f"a rest of {asked.idle:g} that asks no less than the load", "write for instance 0.05")


def _down(asked: EpisodesFile, load: float) -> list[float]:
    assert asked.down is not None
    step = (load - asked.down.to) / asked.down.steps
    return [round(load - step * nth, 6) for nth in range(1, asked.down.steps)] + [asked.down.to]


def _of_stages(stages: Sequence[Stage], around: float) -> tuple[Piece, ...]:
    """Level stretches, and what is asked before and after them."""
    pieces = [Piece(0.0, around), Piece(stages[0].start_s, around)]
    for stage in stages:
        pieces += [Piece(stage.start_s, stage.factor), Piece(stage.end_s, stage.factor)]
    return (*pieces, Piece(stages[-1].end_s, around))


def _lasting(key: str, text: str) -> float:
    length_s = seconds(text)
    if length_s == 0:
        raise Unshaped(key, "a time of 0s", "write for instance 10s")
    return length_s
