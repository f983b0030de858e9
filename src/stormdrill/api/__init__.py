"""The composition root: the only place that picks concrete parts. Imports what is heavy where it is needed.

experiment.yaml ─ read ─▶ Plan ─ conduct ─▶ run directory ─ judge ─▶ verdict.json ─ render ─▶ review
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec
from msgspec import Struct

from stormdrill.errors import DiskFull, JournalBroken, Problem, Refused, StormdrillError, Unreachable
from stormdrill.spec import catalogue

if TYPE_CHECKING:
    from stormdrill.api.far import ClusterPlace
    from stormdrill.api.targets import DrillTarget
    from stormdrill.keeper.actions import Aborted, RunLine
    from stormdrill.keeper.sweep import Swept
    from stormdrill.keeper.takeover import TakeOverResult
    from stormdrill.model.event import Recorded
    from stormdrill.model.plan import Plan
    from stormdrill.model.verdict import Verdict
    from stormdrill.ports import Fault, LiveLoad
    from stormdrill.review import Published, RenderedReview
    from stormdrill.spec.load import Loaded

VERDICT = "verdict.json"
PLAN = "plan.json"
EXIT_STOPPED, EXIT_DIRTY, EXIT_DEFECT = 4, 5, 70
EXIT_OF = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3, "INVALID": 3}
BAD_INPUT = "input"
"""A user's own locustfile that fails only when it is imported: no failed hypothesis."""
STOPPED_BY_PEOPLE = frozenset({"person", "signal", "machine", "keeper", "runner-gone", "cluster", "deleted"})
"""A person or the protection of this machine or a cluster; a guard that trips is a FAIL, no healthy baseline is
INCONCLUSIVE."""


class Observer(Protocol):
    """Told of every event as it is written, and of the live figures a few times a second."""

    def __call__(self, what: Recorded | LiveLoad | None, gauges: Mapping[str, float] | None = None) -> None: ...


class RunResult(Struct, frozen=True):
    run: str
    dir: Path
    status: str
    verdict: Verdict
    exit_code: int
    markdown: Path | None
    html: Path | None
    head: str
    """Hash of the journal's last line: posted elsewhere, it makes the record tamper-evident."""
    note: str = ""
    """Why there is no review; the verdict stands all the same."""
    problems: tuple[Problem, ...] = ()
    """Why it was refused while it was set up."""


def silent(what: object, gauges: Mapping[str, float] | None = None) -> None:
    """An observer that looks away."""


# --- before anything is touched --------------------------------------------------------------------------


def validate(
    path: str | Path, settings: Mapping[str, str] | None = None, fast: bool = False, target: str = ""
) -> Loaded:
    """Everything that the experiment names, read and checked. Raises Refused with all problems."""
    from stormdrill.api.places import misplanned

    loaded = _read(path, settings, fast, target)
    if problems := misplanned(loaded, _faults()):
        raise Refused(problems)
    return loaded


def _read(path: str | Path, settings: Mapping[str, str] | None, fast: bool, target: str, context: str = "") -> Loaded:
    from stormdrill.api.clusters import in_context
    from stormdrill.spec.load import read_experiment

    loaded = read_experiment(Path(path), faults=fault_parameters(), settings=settings or {}, fast=fast, target=target)
    return msgspec.structs.replace(loaded, system=in_context(loaded.system, target, context)) if context else loaded


def validate_any(path: str | Path, settings: Mapping[str, str] | None = None, fast: bool = False) -> str:
    """Checks an experiment, or a system file, which is known by what stands in it; says what it was."""
    from stormdrill.spec.system import is_system, read_system

    if not is_system(Path(path)):
        validate(path, settings, fast)
        return "valid"
    system = read_system(Path(path), settings)
    return f"valid, as a system ({len(system.instances)} instances on {system.target})"


def fault_parameters() -> Mapping[str, type[Struct]]:
    """Each known fault's word and its parameters."""
    from stormdrill.faults.builtin import FaultParameters, KnownFaults

    return FaultParameters(KnownFaults())


def plan(
    path: str | Path,
    target: str = "process",
    settings: Mapping[str, str] | None = None,
    fast: bool = False,
    seed: int | None = None,
    context: str = "",
) -> Plan:
    """What a run would do, exactly. Raises Refused: input, policy, capability, or nothing that it would touch."""
    return _plan_of(_read(path, settings, fast, target, context), target, seed)


def rules(
    path: str | Path,
    target: str,
    settings: Mapping[str, str] | None = None,
    fast: bool = False,
    *,
    outside: bool | None = None,
    cluster: str = "",
    context: str = "",
) -> str:
    """The least rights that this drill takes on its clusters, or the one named, as manifests. `outside`: the run isn't
    in the cluster; None: as this process. Raises Refused."""
    from stormdrill.api.rules import account

    return account(*_planned(_read(path, settings, fast, target, context), target, 0), outside=outside, cluster=cluster)


def schedule(
    path: str | Path,
    target: str,
    when: str,
    *,
    claim: str = "",
    settings: Mapping[str, str] | None = None,
    fast: bool = False,
    context: str = "",
) -> str:
    """Manifests of a run that the cluster begins by itself. `claim`: where its record is kept. Raises Refused."""
    from stormdrill.api.rules import scheduled
    from stormdrill.api.sending import Entered

    loaded = _read(path, settings, fast, target, context)
    made, here = _planned(loaded, target, 0)
    unfit = here.unfit("") if isinstance(here, Entered) else ()
    return scheduled(made, loaded, catalogue.roots_for(Path(path)), when, claim, settings or {}, unfit)


def keep_plan(made: Plan) -> bool:
    """Remember what a plan stands on, so that a later one can be told from it; returns whether it could be."""
    from stormdrill.core.digest import facts
    from stormdrill.store import plans

    return plans.keep(made.digest, facts(made))


def _refuse_another(made: Plan, expected: str) -> None:
    """Raises Refused when the world, or what is asked, is no longer as it was planned."""
    if not expected or made.digest.startswith(expected):
        return
    from stormdrill.core.digest import changes, facts
    from stormdrill.store import plans

    before = plans.known(expected)
    what = f"the plan is {made.digest} now and not {expected}"
    fix = "look at it with stormdrill plan, and run it with its new digest"
    if before is None:
        why = [Problem("", 0, 0, "the earlier plan isn't kept on this machine: what changed can't be said")]
    else:
        why = [Problem("changed", 0, 0, text) for text in changes(before, facts(made))]
    raise Refused([Problem("", 0, 0, what, fix), *why])


def _plan_of(loaded: Loaded, target: str, seed: int | None) -> Plan:
    return _planned(loaded, target, seed)[0]


def _planned(loaded: Loaded, target: str, seed: int | None) -> tuple[Plan, DrillTarget]:
    """The plan, and the target that it was made with."""
    from datetime import UTC, datetime

    from stormdrill.api import targets
    from stormdrill.api.clusters import named
    from stormdrill.api.places import Places, forbidden, placed
    from stormdrill.core.plan import make_plan, resting_on
    from stormdrill.core.policy import violations

    targets.refuse_unknown(target)
    if loaded.runbook is not None:
        from stormdrill.spec.runbook import read_runbook

        metrics = [metric.name for metric in loaded.system.metrics]
        read_runbook(loaded.runbook, metrics=metrics)  # which `validate` leaves out, to stay fast
    here = targets.make(target, loaded.system, Path(), load=loaded.experiment.load)
    world, faults = here.world(), _faults()
    try:
        made = make_plan(
            loaded.experiment,
            world.system,
            loaded.policy,
            loaded.profile,
            target=target,
            offers=here,
            world=world,
            faults=faults,
            seed=seed if seed is not None else int.from_bytes(os.urandom(4)) >> 1,
        )
    except Refused as refused:
        raise placed(refused.problems, Places(loaded, world, faults)) from None
    except Unreachable as error:
        what = f"what would be hit can't be looked at: {error}; on a cluster plan --rbac prints what it takes"
        raise Refused(what) from error
    broken = violations(loaded.policy, made, datetime.now(UTC))
    if broken:
        raise forbidden(loaded.sources["policy.yaml"], broken)
    notes = (*made.notes, *targets.told_of_runbook(target, loaded.runbook is not None))
    made = named(msgspec.structs.replace(made, notes=notes), here)
    return resting_on(made, _files(loaded)), here


def _files(loaded: Loaded) -> dict[str, str]:
    """SHA-256 of what a run reads besides the plan itself. A locustfile that isn't there is the run's to refuse."""
    import hashlib

    found: dict[str, str] = {}
    if loaded.runbook is not None:
        found["runbook"] = hashlib.sha256(loaded.sources["runbook.md"].text.encode()).hexdigest()
    path = loaded.locustfile
    if path is not None:
        try:
            found["locustfile"] = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise Refused([Problem(str(path), 0, 0, f"the locustfile can't be read: {error.strerror}")]) from error
    return found


def _faults() -> Mapping[str, Fault]:
    from stormdrill.faults.builtin import KnownFaults

    return KnownFaults()


# --- the run ---------------------------------------------------------------------------------------------


def run(  # noqa: PLR0913  (what a run is asked for)
    path: str | Path,
    *,
    target: str = "process",
    settings: Mapping[str, str] | None = None,
    fast: bool = False,
    seed: int | None = None,
    expected: str = "",
    context: str = "",
    runs_dir: Path = Path("runs"),
    announce: Callable[[Plan], None] = silent,
    observer: Observer = silent,
) -> RunResult:
    """One experiment from its file to its review; `announce` is shown the plan before anything is touched,
    and once nothing refuses it any more. `expected`: the digest of the plan that is meant.

    Raises Refused as long as nothing was touched.
    """
    from stormdrill.api.announcing import Announcing
    from stormdrill.api.copies import templates_in
    from stormdrill.api.session import Inputs, conduct
    from stormdrill.store import holds

    loaded = _read(path, settings, fast, target, context)
    holds.refuse_held(loaded.system.name, target)  # what a run has left could not be planned on
    made = _plan_of(loaded, target, seed)
    _refuse_another(made, expected)
    roots = catalogue.roots_for(Path(path))
    inputs = Inputs(
        plan=made,
        sources=loaded.sources,
        runbook=loaded.runbook,
        locustfile=_locustfile(made, roots),
        templates=templates_in(roots),
        settings=settings or {},
        runs_dir=runs_dir,
    )
    ended = conduct(inputs, Announcing(made, announce, observer))
    try:
        verdict = judge(ended.run_dir)
    except (Refused, JournalBroken) as error:  # the harm is done and undone: this is no refusal any more
        raise StormdrillError(f"the run ended {ended.status}, and its record cannot be judged: {error}") from error
    rendered, note = _render(ended.run_dir)
    return RunResult(
        run=ended.run_dir.name,
        dir=ended.run_dir,
        status=verdict.status,
        verdict=verdict,
        exit_code=exit_code(verdict, ended.stopped_by),
        markdown=rendered.markdown if rendered else None,
        html=rendered.html if rendered else None,
        head=ended.head,
        note=note,
        problems=ended.problems if ended.stopped_by == BAD_INPUT else (),
    )


def _render(run_dir: Path) -> tuple[RenderedReview | None, str]:
    """A template of the user's that is broken costs the review, never the verdict."""
    from stormdrill.review import render

    try:
        return render(run_dir), ""
    except Refused as refused:
        return None, str(refused)


def _locustfile(made: Plan, roots: Sequence[Path]) -> Path | None:
    """The load's locustfile, tried; and a rate that its generators can send, measured first where that is needed."""
    load = made.experiment.load
    if load is None or (made.profile is None and not load.closed_loop):
        return None
    from stormdrill.load.ceiling import ceiling_for
    from stormdrill.load.crew import local_workers, workers_inside
    from stormdrill.load.launcher import check_locustfile
    from stormdrill.load.trial import try_locustfile

    wanted = load.locustfile or f"loadgen/{made.profile.user if made.profile else ''}.py"
    found = catalogue.find(roots, wanted)
    if found is None:
        raise Refused(f"the load: there is no {wanted}")
    check_locustfile(found)
    path = found.absolute()
    if not path.is_relative_to(catalogue.root()):  # what we ship is known to work
        try_locustfile(path, closed_loop=load.closed_loop)
    if made.target == "kubernetes" and made.system.kubernetes is not None and not load.here:
        workers_inside(load, made.profile, made.system.kubernetes.load_workers)
    else:
        local_workers(load, made.profile, ceiling_for(load, made.profile, _to_a_person))
    return path


def _to_a_person(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def exit_code(verdict: Verdict, stopped_by: str) -> int:
    """The contract's table: the first line that applies, after everything that is refused."""
    if verdict.status == "dirty":
        return EXIT_DIRTY
    if verdict.status == "failed":
        return EXIT_DEFECT
    if stopped_by in STOPPED_BY_PEOPLE:
        return EXIT_STOPPED
    if stopped_by == BAD_INPUT:
        return Refused.exit_code
    return EXIT_OF[verdict.verdict]


# --- afterwards ------------------------------------------------------------------------------------------


def judge(run_dir: Path) -> Verdict:
    """The verdict, computed from the run directory alone, and written to verdict.json: the same bytes every time."""
    from stormdrill.core import judge as court
    from stormdrill.model.event import RunEnded
    from stormdrill.store import evidence

    found = evidence.load(run_dir)
    if not any(isinstance(item.event, RunEnded) for item in found.events):
        what = f"{run_dir.name} isn't ended: it is going on, or what it left waits for stormdrill recover"
        raise Refused(f"{what}; judge it then")
    verdict = court.judge(found.plan, found.events, found.records, found.ledger)
    data = msgspec.json.format(msgspec.json.encode(verdict), indent=1) + b"\n"
    place = run_dir / VERDICT
    try:
        if not place.exists() or place.read_bytes() != data:
            place.write_bytes(data)
    except OSError as error:
        what = f"{place} cannot be written: {error.strerror}; make room, then: stormdrill judge {run_dir.name}"
        raise DiskFull(what) from error
    return verdict


def exit_code_of(run_dir: Path, verdict: Verdict) -> int:
    """The exit code that the run had, from its record."""
    from stormdrill.model.event import AbortRequested
    from stormdrill.store import journal

    events = journal.salvage(run_dir / journal.NAME).events
    stopped = [item.event.by for item in events if isinstance(item.event, AbortRequested)]
    return exit_code(verdict, stopped[0] if stopped else "")


def review(run_dir: Path, to: Path) -> Published:
    """Render again, and copy the review to `to`, keeping what people wrote there; its problems are theirs to mend."""
    from stormdrill.review import publish, render

    judge(run_dir)
    return publish(render(run_dir), to / run_dir.name)


def verify(run_dir: Path, head: str = "") -> Sequence[Problem]:
    """What is wrong with the record; empty: whole and unchanged."""
    from stormdrill.store.verify import verify as check

    return check(run_dir, head)


def runs(runs_dir: Path) -> Sequence[RunLine]:
    """The runs in a directory, and every open one wherever it is."""
    from stormdrill.keeper.actions import list_runs

    return list_runs(runs_dir)


def abort(run: str, runs_dir: Path = Path("runs")) -> Aborted:
    """Stop a run from outside; returns when it has ended."""
    from stormdrill.api.far import hands_for
    from stormdrill.keeper import actions

    return actions.abort(run, runs_dir, hands_for=hands_for)


def recover(
    run: str | None = None, runs_dir: Path = Path("runs"), *, accept_left: bool = False
) -> Sequence[TakeOverResult]:
    """Mend what killed runs left behind."""
    from stormdrill.api.far import hands_for
    from stormdrill.keeper import actions

    return actions.recover(run, runs_dir, accept_left=accept_left, hands_for=hands_for)


def sweep(run: str = "", *, dry_run: bool = False, cluster: ClusterPlace | None = None) -> Swept:
    """What is ours on this machine, and in a cluster where one is named, and the removal of what is stale."""
    from stormdrill.api import far
    from stormdrill.keeper import sweep as broom

    swept = broom.sweep(run, dry_run=dry_run, hands_for=far.hands_for)
    return far.swept_too(swept, cluster, run, dry_run=dry_run) if cluster is not None else swept
