"""Reads `backpressure:` of an experiment: checks by their words, each with thresholds of its own where it has some."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from stormdrill.core.backpressure.asked import ASKED
from stormdrill.core.backpressure.needs import Missing, missing
from stormdrill.core.backpressure.registry import ORDER, SETS, known
from stormdrill.model.experiment import CheckUse
from stormdrill.model.experiment import Scalar as Value
from stormdrill.model.profile import Profile
from stormdrill.model.system import System
from stormdrill.spec.scalars import instead, short
from stormdrill.spec.walk import Walker, fields_of
from stormdrill.spec.yaml import Document, Listing, Node, Place, Scalar, Table

EXAMPLE = "[basic, {goodput-plateau: {least: 85%}}]"


class _Asked(NamedTuple):
    word: str
    set: str
    """By which it was asked for; empty: by its own word."""
    at: Scalar
    table: Node | None
    """Its thresholds."""


class CheckReading:
    """`load`: whether requests are sent and recorded; `closed`: whether by users who wait for answers; `faults`:
    whether anything is injected. What could not be read is None: nothing is said of it."""

    def __init__(
        self,
        document: Document,
        *,
        load: bool,
        closed: bool,
        faults: bool,
        profile: Profile | None,
        system: System | None,
    ) -> None:
        self.document = document
        self.load = load
        self.closed = closed
        self.faults = faults
        self.profile = profile
        self.system = system

    def checks(self) -> tuple[CheckUse, ...]:
        """Sets spelled out, in the registry's order. A check that is named besides a set that has it replaces that."""
        node = self.document.node("backpressure")
        items = node.items if isinstance(node, Listing) else []
        asked = [one for item in items for one in self._entry(item)]
        named: dict[str, _Asked] = {}
        for one in asked:
            if not one.set and one.word in named:
                self.document.problem(one.at, f"{one.word} stands twice", "remove one")
            if not one.set:
                named[one.word] = one
        for one in asked:
            named.setdefault(one.word, one)
        spelt = [named[word] for word in sorted(named, key=ORDER.index)]
        self._check_needs(spelt)
        return tuple(self._use(one) for one in spelt)

    def _entry(self, item: Node) -> Iterator[_Asked]:
        if item.broken:
            return
        if isinstance(item, Scalar) and item.text:
            yield from self._word(item, None)
        elif isinstance(item, Table) and len(item.entries) == 1:
            at, table = next(iter(item.entries.values()))
            yield from self._word(at, table)
        else:
            several = isinstance(item, Table) and item.entries
            what = "several checks in one entry" if several else "an entry without a check's word"
            self.document.problem(item, what, f"write for instance {EXAMPLE}")

    def _word(self, at: Scalar, table: Node | None) -> Iterator[_Asked]:
        if at.text in SETS:
            if table is not None:
                what = f"thresholds for the set {at.text}"
                self.document.problem(at, what, f"write {at.text} alone, and a check's thresholds beside it: {EXAMPLE}")
            yield from (_Asked(word, at.text, at, None) for word in SETS[at.text] if word in ASKED)
        elif at.text in ASKED:
            yield _Asked(at.text, "", at, table)
        else:
            what = f"unknown backpressure check {short(at.text)}"
            self.document.problem(at, what, instead(at.text, (*SETS, *known()), "checks"))

    def _check_needs(self, asked: Iterable[_Asked]) -> None:
        """What several checks of one set lack is said once. A set means all of its checks, whatever else stands in the
        files: what it can't ask is refused, and never left out unsaid."""
        lacking: dict[tuple[Missing, str, Place], list[str]] = {}
        for one in asked:
            for lacks in missing(
                one.word, self.load, self.profile, self.system, faults=self.faults, closed=self.closed
            ):
                lacking.setdefault((lacks, one.set, one.at.place), []).append(one.word)
        last = {by: index for index, (_, by, _) in enumerate(lacking)}
        for index, ((lacks, by, place), words) in enumerate(lacking.items()):
            who, needs = ", ".join(words), "needs" if len(words) == 1 else "need"
            if not by:
                self.document.problem(place, f"{who} {needs} {lacks.what}", lacks.fix)
                continue
            fix = lacks.fix
            if index == last[by]:
                unable = {word for (_, of, _), named in lacking.items() if of == by for word in named}
                able = ", ".join(word for word in SETS[by] if word not in unable)
                fix += f"; or ask for what can be seen: instead of {by} write {able}" if able else ""
            self.document.problem(place, f"{by} has {who}, which {needs} {lacks.what}", fix)

    def _use(self, one: _Asked) -> CheckUse:
        model = ASKED[one.word].parameters
        asked = model() if one.table is None else Walker(self.document).table(one.table, model, one.word)
        parameters: dict[str, Value] = {info.encode_name: getattr(asked, info.name) for info in fields_of(model)}
        return CheckUse(one.word, parameters)
