"""From an experiment's path to everything that a run needs: the file, its system, profile, policy and runbook."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from msgspec import Struct
from msgspec.structs import replace

from stormdrill.errors import Problem, Refused
from stormdrill.model.experiment import Experiment, LoadUse
from stormdrill.model.policy import Policy
from stormdrill.model.profile import Profile
from stormdrill.model.system import System
from stormdrill.spec import catalogue
from stormdrill.spec.demand import SumError, parse_sum
from stormdrill.spec.experiment import Surroundings, resolve_experiment
from stormdrill.spec.kinds import NAME
from stormdrill.spec.parameters import Filled, Filler, Parameter, declared, secrets_of, settle, unknown_settings
from stormdrill.spec.policy import resolve_policy
from stormdrill.spec.profiles import Profiles
from stormdrill.spec.profiles import Source as Source
from stormdrill.spec.scalars import instead, short
from stormdrill.spec.system import resolve_system
from stormdrill.spec.yaml import Document, Listing, Scalar, ordered, parse, read_text

POLICY_VARIABLE = "STORMDRILL_POLICY"
BUG = "bug"
"""The parameter of a system whose choices are its resilience bugs; its default is the sound system."""


class Loaded(Struct, frozen=True):
    """An experiment with all that it names, resolved and checked against each other."""

    experiment: Experiment
    system: System
    policy: Policy
    profile: Profile | None
    runbook: Path | None
    sources: dict[str, Source]
    """By the name of the copy in the run directory: experiment.yaml, system.yaml, policy.yaml, profile.yaml (further
    ones of a sum, and those that one is like: profile-NAME.yaml; what one replays: trace-NAME.times), runbook.md."""
    locustfile: Path | None = None
    """The load's: the one that serves the profile's arrivals, or the user's own."""

    def rate_per_s(self, labels: Mapping[str, str]) -> float:
        """Mean arrivals a second of the requests that carry these labels; 0 without load."""
        if self.profile is None or self.experiment.load is None:
            return 0.0
        wanted = labels.items()
        share = sum(
            part.weight * stream.share
            for part in self.profile.parts
            for stream in part.streams
            if wanted <= stream.labels.items()
        )
        return share * self.experiment.load.rate_per_s


def read_experiment(
    path: Path,
    *,
    faults: Mapping[str, type[Struct]],
    settings: Mapping[str, str] | None = None,
    fast: bool = False,
    roots: Sequence[Path] | None = None,
    target: str = "",
) -> Loaded:
    """The experiment in `path`, and everything it names.

    `faults`: each known word and its parameters. `settings`: what `--set` says. `roots`: where the other files are
    looked for, first one wins; by default the experiment's own repository, then the built-in catalogue. With `fast`
    the `fast:` section replaces what it names. `target`: whose section of the system file is meant; without one the
    first that it has. Raises Refused with the problems of all files at once.
    """
    roots = catalogue.roots_for(path) if roots is None else roots
    return _Loading(path, faults, settings or {}, roots, target).load(fast)


class _Loading:
    def __init__(
        self,
        path: Path,
        faults: Mapping[str, type[Struct]],
        settings: Mapping[str, str],
        roots: Sequence[Path],
        target: str,
    ) -> None:
        self.target = target
        self.faults = faults
        self.settings = settings
        self.roots = roots
        self.problems: list[Problem] = []
        self.documents: list[Document] = []
        self.sources: dict[str, Source] = {}
        """Every file that was looked at; with `fast:` there may be two profiles and two runbooks."""
        self.document = self.read("experiment.yaml", path)
        self.root = self.document.root if self.document else None
        self.parameters = declared(self.document) if self.document else {}
        self.own = settle(self.parameters, settings, self.problems)
        self.given: dict[str, Filled] = {}
        """The system's parameters."""

    def load(self, fast: bool) -> Loaded:
        if self.document is None:
            raise Refused(self.problems)
        policy = self.policy()
        system = self.system()
        around = Surroundings(
            faults=self.faults,
            system=system,
            profiles=self.profiles(),
            runbooks=self.runbooks(),
            locustfiles=self.locustfiles(),
        )
        resolved = resolve_experiment(self.document, self.own, around, fast)
        found = self.found()
        if found or resolved is None or system is None:
            raise Refused(found)
        experiment, profile = resolved.experiment, resolved.profile
        system = replace(system, secrets=(*system.secrets, *secrets_of(self.own)))
        use, load = experiment.runbook, experiment.load
        sources = {copy: self.sources[copy] for copy in ("experiment.yaml", "system.yaml", "policy.yaml")}
        if load and profile:
            names = [part.name for part in profile.parts] if load.profile else []
            sources |= self.demand.sources(names, self.sources)
        if use:
            sources["runbook.md"] = self.sources[f"runbooks/{use.run}"]
        return Loaded(
            experiment=experiment,
            system=system,
            policy=policy,
            profile=profile,
            locustfile=self.locustfile_of(load, profile),
            runbook=sources["runbook.md"].path if use else None,
            sources=sources,
        )

    def found(self) -> list[Problem]:
        """Every problem, file by file in the order of its lines."""
        said = [problem for document in self.documents for problem in ordered(document.problems)]
        return said + self.problems

    def read(self, role: str, path: Path) -> Document | None:
        """The document in `path`, kept under `role`; None after a problem was recorded."""
        try:
            text = read_text(path)
        except Refused as refused:
            self.problems += [self.by_name(path, problem) for problem in refused.problems]
            return None
        self.sources[role] = Source(path, text)
        document = parse(str(path), text)
        self.documents.append(document)
        return document

    def by_name(self, path: Path, problem: Problem) -> Problem:
        """A name stands where a path is meant: `list` shows names."""
        roots = (Path(), *self.roots)
        meant = None if path.exists() else catalogue.find(roots, f"experiments/{path.name.removesuffix('.yaml')}.yaml")
        return problem._replace(fix=f"write {meant}") if meant else problem

    def texts(self, *path: str) -> dict[str, Scalar]:
        """The distinct texts that stand at `path` and at the same path below `fast:`, with parameters filled in."""
        found: dict[str, Scalar] = {}
        for whole in (path, ("fast", *path)):
            node = self.document.node(*whole) if self.document else None
            if isinstance(node, Scalar) and not node.broken:
                # A document of its own: what is wrong with the parameter is said when the whole file is filled.
                node = Filler(Document("", ""), self.own).scalar(_copy(node)) if "$" in node.text else node
                if isinstance(node, Scalar) and not node.broken:
                    found.setdefault(node.text, node)
        return found

    def words(self, *path: str) -> dict[str, Scalar]:
        """Of these texts the names."""
        return {text: node for text, node in self.texts(*path).items() if _is_name(text)}

    def locate(self, folder: str, ending: str, node: Scalar, what: str) -> Path | None:
        path = catalogue.find(self.roots, f"{folder}/{node.text}{ending}")
        if path is None and self.document:
            known = catalogue.names(self.roots, folder, ending)
            fix = instead(node.text, known, f"{what}s")
            self.document.problem(node.place, f"there is no {folder}/{node.text}{ending}", fix)
        return path

    def policy(self) -> Policy:
        named = os.environ.get(POLICY_VARIABLE)
        path = Path(named) if named else catalogue.find(self.roots, "policy.yaml")
        if path is None:
            self.problems.append(
                Problem("policy.yaml", 0, 0, "there is no policy", f"write one, or set {POLICY_VARIABLE}")
            )
            return Policy()
        document = self.read("policy.yaml", path)
        return resolve_policy(document) if document else Policy()

    def system(self) -> System | None:
        system, parameters = None, {}
        for node in self.words("system").values():
            path = self.locate("experiments/systems", ".yaml", node, "system")
            document = self.read("system.yaml", path) if path else None
            if document:
                parameters = declared(document)
                self.given = settle(parameters, self.settings, self.problems)
                system = resolve_system(document, parameters, self.given, self.target)
                system = None if document.problems else system
                self.check_names(parameters)
                if not document.broken("parameters"):
                    self.check_catches(parameters)
                known = {**self.parameters, **parameters}
                self.problems += unknown_settings(known, self.settings, "the experiment or its system")
        return system

    def check_names(self, parameters: Mapping[str, Parameter]) -> None:
        for name in self.parameters.keys() & parameters.keys():
            if self.document:
                what = f"the system has a parameter {name} too: --set could not tell them apart"
                self.document.problem(self.document.key("parameters", name), what, "choose another name")

    def check_catches(self, parameters: Mapping[str, Parameter]) -> None:
        """What the experiment says that it catches are bugs that the system can be given."""
        node = self.document.node("catches") if self.document else None
        items = node.items if isinstance(node, Listing) else []
        bug = parameters.get(BUG)
        known = [str(choice) for choice in bug.choices if choice != bug.default] if bug else []
        seen: set[str] = set()
        for item in items:
            if not self.document or not isinstance(item, Scalar) or item.broken or not _is_name(item.text):
                continue
            if item.text in seen:
                self.document.problem(item, f"{item.text} stands twice in catches", "remove one")
            elif not known:
                what = f"the system's parameters name no bugs, so {item.text} can't be given to it"
                fix = f"give the system a parameter {BUG}: {{default: none, choices: [none, {item.text}]}}"
                self.document.problem(item, what, fix)
            elif item.text not in known:
                what = f"{item.text} is no bug of the system"
                self.document.problem(item, what, instead(item.text, known, "bugs"))
            seen.add(item.text)

    def profiles(self) -> dict[str, Profile | None]:
        self.demand = Profiles(self.roots, self.read, {**self.given, **self.own})
        for text, node in self.texts("load", "profile").items():
            try:
                terms = parse_sum(text)
            except SumError:
                continue  # said when the experiment is read
            for term in terms:
                if self.document:
                    self.demand.want(term.name, self.document, node.at(term.offset))
        return self.demand.found

    def locustfiles(self) -> dict[str, Path | None]:
        """Those of the user's own, relative to the repository."""
        found: dict[str, Path | None] = {}
        for name, node in self.texts("load", "locustfile").items():
            if not _is_own_python(name) and name.strip() and self.document:
                what = f"{short(name)} is no Python file of this repository"
                self.document.problem(node.place, what, "write its path from there: loadgen/shop.py")
                found[name] = None
                continue
            found[name] = catalogue.find(self.roots, name) if name.strip() else None
            if found[name] is None and self.document and name.strip():
                known = [f"{folder}{path}.py" for folder in ("", "loadgen/") for path in self.python_files(folder)]
                what = f"there is no {short(name)} in the repository"
                self.document.problem(node.place, what, instead(name, known, "Python files"))
        return found

    def python_files(self, folder: str) -> list[str]:
        return catalogue.names(self.roots[:1], folder or ".", ".py")

    def locustfile_of(self, load: LoadUse | None, profile: Profile | None) -> Path | None:
        if load is None or profile is None:
            return None
        return catalogue.find(self.roots, load.locustfile or f"loadgen/{profile.user}.py")

    def runbooks(self) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        for name, node in self.words("runbook", "run").items():
            path = self.locate("runbooks", ".md", node, "runbook")
            found[name] = None
            if path is None:
                continue
            try:
                text = read_text(path)
            except Refused as refused:
                self.problems += refused.problems
                continue
            self.sources[f"runbooks/{name}"] = Source(path, text)
            found[name] = text
        return found


def _copy(node: Scalar) -> Scalar:
    copy = Scalar(node.place, node.text, node.plain, node.single)
    copy.lead = node.lead
    return copy


def _is_own_python(name: str) -> bool:
    """What is run must lie where it is looked for: a path that leads out of the repository finds other files there."""
    path = PurePosixPath(name)
    return path.suffix == ".py" and not path.is_absolute() and ".." not in path.parts


def _is_name(text: str) -> bool:
    return re.fullmatch(NAME, text) is not None
