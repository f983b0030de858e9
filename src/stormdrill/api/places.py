"""Where in the experiment's file stands what planning refuses: a person needs the line, the core knows no files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from stormdrill.errors import Problem, Refused

if TYPE_CHECKING:
    from stormdrill.core.policy import Violation
    from stormdrill.ports import Fault, World
    from stormdrill.spec.load import Loaded, Source
    from stormdrill.spec.yaml import Document, Place


def misplanned(loaded: Loaded, faults: Mapping[str, Fault]) -> tuple[Problem, ...]:
    """What the faults themselves refuse of the system as its file describes it. Empty where that isn't known before
    a target has looked: containers that run already, those of a compose file, and pods."""
    system = loaded.system
    if system.target == "kubernetes":
        return ()
    if system.docker is not None and system.target == "docker" and (system.docker.attach or system.docker.compose):
        return ()
    from stormdrill.ports import Instance, World
    from stormdrill.targets.process.wiring import hops_of

    instances = tuple(Instance(item.name, item.service, item.labels) for item in system.instances)
    places = Places(loaded, World(system, instances, hops_of(system)), faults)
    return tuple(places.of(problem) for _, problem in places.refused)


class Places:
    """Finds the line of the fault that a problem speaks of; by the problem itself, or by the fault's word in it."""

    def __init__(self, loaded: Loaded, world: World, faults: Mapping[str, Fault]) -> None:
        self._experiment = loaded.experiment
        self._source = loaded.sources["experiment.yaml"]
        self._world = world
        self._faults = faults

    @cached_property
    def refused(self) -> tuple[tuple[int, Problem], ...]:
        """The number of each use of a fault that refuses to plan, with what it says."""
        found = []
        for number, use in enumerate(self._experiment.faults):
            for_s = use.for_s if use.for_s is not None else self._experiment.phases.fault_s - use.start_s
            try:
                self._faults[use.word].plan(use, number, self._world, for_s)
            except Refused as refused:
                found += [(number, problem) for problem in refused.problems]
        return tuple(found)

    def of(self, problem: Problem) -> Problem:
        """The same with file, line and column; one that speaks of another file, or of none, stays as it is."""
        if problem.line or problem.where not in ("", f"experiment {self._experiment.name}"):
            return problem
        number = self._number(problem)
        if number is None:
            return problem._replace(where=str(self._source.path)) if problem.where else problem
        place = self._place(number)
        return problem._replace(where=str(self._source.path), line=place.line, column=place.column)

    def _number(self, problem: Problem) -> int | None:
        told = (number for number, refused in self.refused if refused == problem)
        words = (number for number, use in enumerate(self._experiment.faults) if _speaks_of(problem.what, use.word))
        return next(told, next(words, None))

    def _place(self, number: int) -> Place:
        document = self._document
        shown = ("fast", "faults") if self._experiment.fast and document.node("fast", "faults") else ("faults",)
        return document.place(*shown, number)

    @cached_property
    def _document(self) -> Document:
        from stormdrill.spec.yaml import parse

        return parse(str(self._source.path), self._source.text)


def _speaks_of(text: str, word: str) -> bool:
    return text.startswith(word) and text[len(word) : len(word) + 1] in ("", " ", ":", "/", "-")


def placed(problems: Iterable[Problem], places: Places) -> Refused:
    return Refused(dict.fromkeys(places.of(problem) for problem in problems))


def forbidden(policy: Source, broken: Iterable[Violation]) -> Refused:
    """With the policy that was read, of the several that there may be, and the line that forbids it."""
    from stormdrill.spec.yaml import parse

    name = str(policy.path)
    document = parse(name, policy.text)
    problems = []
    for key, what, fix in broken:
        line, column = document.key(key) if document.node(key) is not None else (0, 0)  # 0: its default does
        problems.append(Problem(name, line, column, what, fix))
    return Refused(problems)
