"""What is asked for, looked at without sending anything: of a profile, of a sum of them, or of an experiment."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from stormdrill.errors import Problem, Refused
from stormdrill.model.experiment import PHASES, Phase
from stormdrill.spec import catalogue
from stormdrill.spec.kinds import NAME
from stormdrill.spec.scalars import instead

if TYPE_CHECKING:
    from stormdrill.load.show import Figures
    from stormdrill.model.profile import Profile
    from stormdrill.spec.profiles import Source
    from stormdrill.spec.yaml import Document

RATE_PER_S = 60.0
"""Taken where none is asked for."""
LEAD_S = 10.0
"""Where a phase is drawn that no experiment says the beginning of."""
LEAST_S = 60.0


class Stretch(Struct, frozen=True):
    """A phase of the experiment."""

    name: str
    start_s: float
    end_s: float


class Wanted(Struct, frozen=True):
    """How a demand is to be looked at."""

    rate_per_s: float | None = None
    """None: the experiment's, the recording's, or `RATE_PER_S`."""
    for_s: float | None = None
    """None: as long as it has a course, or as the experiment lasts."""
    seed: int = 1
    columns: int = 120
    """Equal parts of the time, of each of which the highest λ is told."""
    settings: dict[str, str] = {}
    fast: bool = False


class Shown(Struct, frozen=True):
    """A demand, and what it amounts to."""

    title: str
    """The profiles as they were asked for."""
    says: str
    """What the first of them says of itself."""
    profile: Profile | None
    figures: Figures | None
    """None: it can't be known beforehand, and `says` tells why."""
    phases: tuple[Stretch, ...] = ()
    notes: tuple[str, ...] = ()
    """What was taken, because nobody said it."""


def show(what: str, wanted: Wanted) -> Shown:
    """`what`: the path or name of a profile or an experiment, or a sum of profiles. Raises Refused."""
    path = Path(what)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return _of_file(path, wanted)
    roots = [Path(), catalogue.root()]
    experiment = catalogue.find(roots, f"experiments/{what}.yaml")
    known = re.fullmatch(NAME, what) is None or catalogue.find(roots, f"loadgen/{what}.yaml") is not None
    if experiment is not None and not known:
        return _of_experiment(experiment, wanted)
    if not known:
        names = {*catalogue.names(roots, "loadgen"), *catalogue.names(roots, "experiments")}
        problem = Problem("", 0, 0, f"there is no profile and no experiment {what}", instead(what, names))
        raise Refused([problem])
    return _of_sum(what, wanted)


def _of_file(path: Path, wanted: Wanted) -> Shown:
    from stormdrill.spec.yaml import parse, read_text

    document = parse(str(path), read_text(path))
    if document.node("phases") is not None or document.node("objectives") is not None:
        return _of_experiment(path, wanted)
    from stormdrill.spec.profile import read_demanded
    from stormdrill.spec.profiles import Source

    found = read_demanded(path)
    recordings = {}
    if found.recorded and found.recorded_in:
        recordings[found.recorded.trace.file] = Source(found.recorded_in, found.recorded.text)
    return _of_profile(path.stem, found.profile, recordings, wanted)


def _of_sum(text: str, wanted: Wanted) -> Shown:
    from stormdrill.spec.demand import SumError, composed, parse_sum
    from stormdrill.spec.profiles import Profiles, Source
    from stormdrill.spec.yaml import Document, Place, ordered, parse, read_text

    asked, documents, sources = Document("", text), list[Document](), dict[str, Source]()
    try:
        terms = parse_sum(text)
    except SumError as error:
        raise Refused([Problem(_pointed(text, error.offset), 0, 0, error.what, error.fix)]) from None

    def read(role: str, path: Path) -> Document:
        sources[role] = Source(path, read_text(path))
        documents.append(parse(str(path), sources[role].text))
        return documents[-1]

    profiles = Profiles([Path(), catalogue.root()], read)
    found = {term.name: profiles.want(term.name, asked, Place(0, 0)) for term in terms}
    problems = [*asked.problems, *(problem for one in documents for problem in ordered(one.problems))]
    known = {name: profile for name, profile in found.items() if profile is not None}
    if problems or len(known) < len(found):
        raise Refused(problems)
    recordings = profiles.sources(known, sources)
    return _of_profile(" ".join(text.split()), composed(terms, known), recordings, wanted)


def _pointed(text: str, offset: int) -> str:
    return f"{text!r}, letter {offset + 1}"


def _of_profile(
    title: str,
    profile: Profile,
    sources: Mapping[str, Source],
    wanted: Wanted,
) -> Shown:
    from stormdrill.spec.demand import anchored, as_recorded

    for option in ["--fast"] * wanted.fast + [f"--set {key}={value}" for key, value in wanted.settings.items()]:
        fix = "leave it out, or name an experiment"
        raise Refused([Problem("", 0, 0, f"{option} is said of experiments, and {title} is a profile", fix)])
    notes, rate_per_s = [], wanted.rate_per_s
    since = sorted({part.since for part in profile.parts if part.since}, key=PHASES.index)
    for phase in since:
        notes.append(f"the {phase} phase is drawn from {LEAD_S:g} s on; an experiment says when it is")
    replayed = as_recorded(profile) if rate_per_s is None else None
    if replayed is not None:
        profile, rate_per_s = replayed
        notes.append("as recorded; --rate scales it")
    elif rate_per_s is None:
        rate_per_s = RATE_PER_S
        notes.append(f"at {RATE_PER_S:g}/s, because no --rate is given")
    whole = anchored(profile, lambda _: LEAD_S)
    until_s = wanted.for_s or _long_enough(whole, begins_later=bool(since))
    return _shown(title, whole, rate_per_s, until_s, sources, wanted, notes=tuple(notes))


def _of_experiment(path: Path, wanted: Wanted) -> Shown:
    from stormdrill import api
    from stormdrill.core.sampling import begins_s, length_s

    loaded = api.validate(path, wanted.settings, wanted.fast)
    experiment, profile = loaded.experiment, loaded.profile
    load = experiment.load
    if load is None or profile is None:
        says = "asks for nothing: no generator" + (", its own traffic is observed" if experiment.observed else "")
        return Shown(experiment.name, says, None, None)
    if load.closed_loop:
        says = f"{load.users} users of {load.locustfile}, closed loop: they ask when they were answered, so how much"
        return Shown(experiment.name, f"{says} is asked depends on the system and can't be drawn", None, None)

    def stretch(phase: Phase) -> Stretch:
        start_s = begins_s(experiment, phase)
        return Stretch(phase, start_s, start_s + length_s(experiment, phase))

    phases = tuple(stretch(phase) for phase in PHASES if length_s(experiment, phase))
    notes = ("at the rate of the command line, not of the experiment",) if wanted.rate_per_s else ()
    until_s = wanted.for_s or phases[-1].end_s
    title = f"{load.profile}, for {experiment.name}"
    rate_per_s = wanted.rate_per_s or load.rate_per_s
    return _shown(title, profile, rate_per_s, until_s, loaded.sources, wanted, phases, notes)


def _shown(
    title: str,
    profile: Profile,
    rate_per_s: float,
    until_s: float,
    sources: Mapping[str, Source],
    wanted: Wanted,
    phases: tuple[Stretch, ...] = (),
    notes: tuple[str, ...] = (),
) -> Shown:
    from stormdrill.load.show import figures

    with tempfile.TemporaryDirectory(prefix="stormdrill-") as folder:
        for part in profile.parts:
            if part.trace is not None:
                (Path(folder) / part.trace.file).write_text(sources[part.trace.file].text)
        try:
            found = figures(profile, rate_per_s, until_s, wanted.seed, Path(folder), wanted.columns)
        except ValueError as error:
            raise Refused(str(error)) from error
    says = "" if profile.also else profile.description
    return Shown(title, says, profile, found, phases, notes)


def _long_enough(profile: Profile, *, begins_later: bool) -> float:
    """The whole course; of one that begins with a phase also a little of what comes after it."""
    ends = [part.shape[-1].at_s for part in profile.parts if part.shape]
    ends += [part.trace.start_s + part.trace.length_s * part.trace.time_scale for part in profile.parts if part.trace]
    last_s = max(ends, default=0.0) + (LEAD_S if begins_later else 0.0)
    return float(max(math.ceil(last_s - 1e-6), LEAST_S))
