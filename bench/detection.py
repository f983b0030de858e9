"""What detection is made of, without running anything: pairs, what a run showed, what is left, what it adds up to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from msgspec import Struct

from stormdrill.model.verdict import Verdict

SOUND = "none"
TRIES = 4
"""Runs of one pair that may come out undecided for each that is asked for, before it is given up as not judged."""
GUESS_S = 30.0
"""A `--fast` run, before any was measured."""

Word = Literal["FAIL", "PASS", "INVALID", "INCONCLUSIVE", "REFUSED", "BROKEN"]
DECIDED: tuple[Word, ...] = ("FAIL", "PASS")
NAMED: Mapping[str, str] = {
    "goodput-collapse": "goodput-plateau",
    "buffer-bloat": "admitted-latency",
    "slow-rejection": "cheap-rejection",
    "no-retry-after": "rejection-contract",
    "retry-in-step": "rejection-contract",
    "unbounded-backlog": "bounded-queue",
    "priority-inversion": "priority",
    "shed-retried": "retry-amplification",
    "retry-storm": "retry-amplification",
    "slow-drain": "drain",
    "metastable": "recovery",
    "stuck-breaker": "breaker",
}
"""Bug → the backpressure check that names it: where that one is asked, no other may FAIL."""
CHECK = "check "
UNDECIDED: tuple[Word, ...] = ("INVALID", "INCONCLUSIVE")


class Pair(Struct, frozen=True):
    bug: str
    """SOUND: the platform as it should be."""
    experiment: str

    @property
    def text(self) -> str:
        return f"{'sound' if self.bug == SOUND else self.bug} x {self.experiment}"


class Seen(Struct, frozen=True):
    """One run of a pair."""

    bug: str
    experiment: str
    word: Word
    by: tuple[str, ...] = ()
    """What failed: objectives with their window, the runbook, a guard."""
    why: str = ""
    took_s: float = 0.0

    @property
    def pair(self) -> Pair:
        return Pair(self.bug, self.experiment)


class Asked(Struct, frozen=True):
    """What a whole detection runs: each pair, and how often it has to be decided."""

    bugs: tuple[str, ...]
    catches: Mapping[str, tuple[str, ...]]
    """Experiment → the bugs that it names; of the experiments that are looked at."""
    sound_runs: int
    bug_runs: int = 1
    alone: tuple[str, ...] = ()
    """Experiments whose load is the trigger: two of them beside each other would starve."""

    def wanted(self) -> dict[Pair, int]:
        """The pairs with bugs first: they are few, and say most."""
        named = {
            Pair(bug, name): self.bug_runs for bug in self.bugs for name, bugs in self.catches.items() if bug in bugs
        }
        return {**named, **{Pair(SOUND, name): self.sound_runs for name in self.catches if self.sound_runs}}

    def unnamed(self) -> tuple[str, ...]:
        """Bugs that no experiment claims to catch."""
        return tuple(bug for bug in self.bugs if not any(bug in bugs for bugs in self.catches.values()))


class Cell(Struct, frozen=True):
    """All runs of one pair."""

    pair: Pair
    wanted: int
    words: Mapping[str, int]
    by: tuple[str, ...]
    """What failed in any of them, most often first."""
    why: str

    @property
    def decided(self) -> int:
        return sum(self.words.get(word, 0) for word in DECIDED)

    @property
    def failed(self) -> int:
        return self.words.get("FAIL", 0)

    @property
    def undecided(self) -> int:
        return sum(self.words.get(word, 0) for word in UNDECIDED)

    @property
    def refused(self) -> bool:
        return "REFUSED" in self.words

    @property
    def broken(self) -> int:
        return self.words.get("BROKEN", 0)

    @property
    def open(self) -> int:
        """Runs that are still to be decided, and that may be tried: no more of them once it is settled or given up."""
        if self.refused or self.broken or self.undecided >= self.wanted + TRIES:
            return 0
        return max(0, self.wanted - self.decided)

    @property
    def missing(self) -> int:
        return 0 if self.refused else max(0, self.wanted - self.decided)


def said_by(verdict: Verdict) -> tuple[str, ...]:
    """What made a run FAIL, in words that are the same from run to run."""
    found = [f"{one.name}, {one.phase}" for one in verdict.objectives if one.verdict == "FAIL"]
    found += [f"{CHECK}{one.name}" for one in verdict.backpressure if one.verdict == "FAIL"]
    if verdict.runbook is not None and verdict.runbook.verdict == "FAIL":
        found.append(f"runbook {verdict.runbook.name}")
    if any(reason.startswith("a guard tripped") for reason in (verdict.sentence, *verdict.reasons)):
        found.append("a guard tripped")
    return tuple(found)


def cells(asked: Asked, seen: Iterable[Seen]) -> dict[Pair, Cell]:
    runs: dict[Pair, list[Seen]] = {pair: [] for pair in asked.wanted()}
    for one in seen:
        if one.pair in runs:
            runs[one.pair].append(one)
    return {
        pair: Cell(
            pair=pair,
            wanted=wanted,
            words=Counter(one.word for one in runs[pair]),
            by=tuple(name for name, _ in Counter(by for one in runs[pair] for by in one.by).most_common()),
            why=next((one.why for one in reversed(runs[pair]) if one.word not in DECIDED), ""),
        )
        for pair, wanted in asked.wanted().items()
    }


def following(asked: Asked, seen: Sequence[Seen]) -> Pair | None:
    """The next to run: bugs before the sound platform, and of these the one with the fewest runs, so that whatever is
    cut short has looked at all of them."""
    open_now = [cell for cell in cells(asked, seen).values() if cell.open]
    bugs = [cell for cell in open_now if cell.pair.bug != SOUND]
    least = min(bugs or open_now, key=lambda cell: cell.decided + cell.undecided, default=None)
    return least.pair if least else None


def seconds_left(asked: Asked, seen: Sequence[Seen]) -> float:
    """By what runs of the same experiment took, else all runs."""
    took: dict[str, list[float]] = {}
    for one in seen:
        if one.word != "REFUSED":
            took.setdefault(one.experiment, []).append(one.took_s)
    every = [s for several in took.values() for s in several] or [GUESS_S]
    means = {name: sum(several) / len(several) for name, several in took.items()}
    usual = sum(every) / len(every)
    return sum(cell.open * means.get(cell.pair.experiment, usual) for cell in cells(asked, seen).values())


class Sum(Struct, frozen=True):
    """What it all adds up to."""

    bugs: int
    caught: tuple[str, ...]
    missed: tuple[str, ...]
    """Judged by every experiment that names it and FAILed by none, or named by none."""
    open: tuple[str, ...]
    """Neither caught nor known to be missed."""
    silent: tuple[Pair, ...]
    """Pairs that passed although the experiment names the bug, also of bugs that another one caught."""
    besides: tuple[Pair, ...]
    """Pairs of a bug that a check names, in which another check failed."""
    sound_runs: int
    """Decided ones."""
    sound_failed: tuple[Pair, ...]
    sound_failures: int
    undecided: int
    missing: int
    """Runs that were asked for and are not decided."""
    broken: tuple[Pair, ...]

    @property
    def exit_code(self) -> int:
        if self.missed or self.sound_failed or self.broken:
            return 1
        return 3 if self.open or self.missing else 0

    def line(self) -> str:
        parts = [
            f"{len(self.caught)} of {self.bugs} bugs caught",
            f"{len(self.silent)} pairs passed that should not" if self.silent else "",
            f"{len(self.besides)} pairs failed another check too" if self.besides else "",
            f"sound platform failed {self.sound_failures} of {self.sound_runs} runs",
            f"{self.undecided} runs INVALID or INCONCLUSIVE" if self.undecided else "",
            f"{self.missing} runs missing" if self.missing else "",
            f"{len(self.broken)} broke off" if self.broken else "",
            f"exit code {self.exit_code}",
        ]
        return "; ".join(part for part in parts if part)


def added_up(asked: Asked, seen: Iterable[Seen]) -> Sum:
    by_pair = cells(asked, seen)
    bugged = [cell for cell in by_pair.values() if cell.pair.bug != SOUND]
    sound = [cell for cell in by_pair.values() if cell.pair.bug == SOUND]
    caught = tuple(bug for bug in asked.bugs if any(cell.failed for cell in bugged if cell.pair.bug == bug))
    unsettled = {cell.pair.bug for cell in bugged if cell.missing}
    rest = [bug for bug in asked.bugs if bug not in caught]
    return Sum(
        bugs=len(asked.bugs),
        caught=caught,
        missed=tuple(bug for bug in rest if bug not in unsettled),
        open=tuple(bug for bug in rest if bug in unsettled),
        silent=tuple(cell.pair for cell in bugged if cell.decided > cell.failed),
        besides=tuple(cell.pair for cell in bugged if _besides(cell)),
        sound_runs=sum(cell.decided for cell in sound),
        sound_failed=tuple(cell.pair for cell in sound if cell.failed),
        sound_failures=sum(cell.failed for cell in sound),
        undecided=sum(cell.undecided for cell in by_pair.values()),
        missing=sum(cell.missing for cell in by_pair.values()),
        broken=tuple(cell.pair for cell in by_pair.values() if cell.broken),
    )


def _besides(cell: Cell) -> bool:
    named = NAMED.get(cell.pair.bug)
    checks = {by.removeprefix(CHECK) for by in cell.by if by.startswith(CHECK)}
    return named is not None and named in checks and checks != {named}


def rows(asked: Asked, seen: Iterable[Seen]) -> list[tuple[str, str, str, str]]:
    """Bug, experiment, what came out, by which objective. The sound platform stands last."""
    found = [(bug, "none names it", "NOT CAUGHT", "") for bug in asked.unnamed()]
    for cell in cells(asked, seen).values():
        sound = cell.pair.bug == SOUND
        found.append((cell.pair.bug if not sound else "sound", cell.pair.experiment, _came_out(cell), _by(cell)))
    return found


def _came_out(cell: Cell) -> str:
    if cell.refused:
        return "refused"
    good = "PASS" if cell.pair.bug == SOUND else "FAIL"
    parts = [f"{good} {cell.words.get(good, 0)}/{cell.decided}"] if cell.decided else ["not judged"]
    if cell.undecided:
        parts.append(f"{cell.undecided} undecided")
    if cell.broken:
        parts.append(f"{cell.broken} broke off")
    return ", ".join(parts)


def _by(cell: Cell) -> str:
    if cell.by:
        return "; ".join(cell.by)
    return cell.why if cell.refused or cell.broken or not cell.decided else ""
