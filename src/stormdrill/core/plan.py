"""From what was asked to exactly what will be done. Pure; refuses, all reasons at once, before anything is touched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import combinations

from msgspec.structs import replace

from stormdrill.core.backpressure.asked import ASKED
from stormdrill.core.backpressure.needs import missing
from stormdrill.core.digest import digest, facts
from stormdrill.core.judge_metrics import RESIDENCY
from stormdrill.core.reach import TAKING, touched, worst_case
from stormdrill.core.sampling import enough_planned
from stormdrill.errors import Problem, Refused
from stormdrill.model.experiment import Experiment
from stormdrill.model.mechanism import Nodes
from stormdrill.model.plan import Injection, Plan
from stormdrill.model.policy import Policy
from stormdrill.model.profile import Profile
from stormdrill.model.system import System
from stormdrill.ports import Binds, Fault, Mechanisms, World

HALTS = ("freeze", "crash", "sever")
"""By these an instance answers no request of ours."""
STOPS = ("freeze", "crash")
"""By these nothing new runs in it."""
MOMENT_S = 1e-6


def make_plan(
    experiment: Experiment,
    system: System,
    policy: Policy,
    profile: Profile | None,
    *,
    target: str,
    offers: object,
    world: World,
    faults: Mapping[str, Fault],
    seed: int,
) -> Plan:
    """The plan of one run. `offers` is the target, asked for the capabilities that the faults need.

    Raises Refused with every problem: unknown fault, missing capability, nothing touched, too few samples planned.
    """
    problems: list[Problem] = []
    injections: list[Injection] = []
    for index, use in enumerate(experiment.faults):
        fault = faults.get(use.word)
        if fault is None:
            problems.append(_problem(experiment, f"unknown fault {use.word}; known: {', '.join(sorted(faults))}"))
        elif not isinstance(offers, fault.needs):
            problems.append(
                _problem(experiment, f"{use.word} needs what target {target} can't do ({fault.needs.__name__})")
            )
        else:
            for_s = use.for_s if use.for_s is not None else experiment.phases.fault_s - use.start_s
            try:
                injections.extend(_timed(item, system) for item in fault.plan(use, index, world, for_s))
            except Refused as refused:
                problems.extend(refused.problems)
    bound = True
    if isinstance(offers, Binds):
        try:
            injections = list(offers.bind(injections))
        except Refused as refused:
            problems.extend(refused.problems)
            bound = False
    problems.extend(_held_twice(experiment, injections))
    problems.extend(_asked_while_halted(experiment, offers, injections))
    if bound:  # else it was said already, by whoever knows more of it
        problems.extend(_cannot(experiment, target, offers, injections))
    if profile is not None:
        problems.extend(enough_planned(experiment, profile))
    problems.extend(_lacking(experiment, profile, system))
    if problems:
        raise Refused(problems)
    injections = [_lossy(item, offers) for item in injections]
    made = Plan(
        experiment=experiment,
        system=system,
        target=target,
        seed=seed,
        injections=tuple(injections),
        duration_s=experiment.phases.total_s,
        worst_case=worst_case(injections, world),
        irreversible=_irreversible(injections),
        permissions=_permissions(offers, injections),
        notes=(*(offers.aloud(injections) if isinstance(offers, Binds) else ()), *_nowhere(profile, system)),
        policy=policy,
        profile=profile,
    )
    length_s = experiment.phases.total_s - experiment.phases.fault_s + made.fault_s
    return replace(made, digest=digest(facts(made)), duration_s=length_s)


def resting_on(made: Plan, files: Mapping[str, str]) -> Plan:
    """The same plan with what else its run will read: then its digest speaks of that too."""
    whole = replace(made, files=dict(files))
    return replace(whole, digest=digest(facts(whole)))


def _timed(injection: Injection, system: System) -> Injection:
    if injection.verify_timeout_s:
        return injection
    return replace(injection, verify_timeout_s=system.ready_timeout_s)


def _problem(experiment: Experiment, what: str) -> Problem:
    return Problem(f"experiment {experiment.name}", 0, 0, what)


def _held_twice(experiment: Experiment, injections: Sequence[Injection]) -> list[Problem]:
    """Faults may overlap on one instance, but not hold the same switch: the first undo would end both."""
    holders: dict[str, list[int]] = {}
    for number, one in enumerate(injections):
        for switch in one.switches:
            holders.setdefault(switch, []).append(number)
    problems = []
    for first, second in sorted({pair for among in holders.values() for pair in combinations(among, 2)}):
        one, two = injections[first], injections[second]
        if one.start_s < two.start_s + two.for_s and two.start_s < one.start_s + one.for_s:
            both = set(one.switches) & set(two.switches)
            what = f"{one.id} and {two.id} would hold the {min(both)} at the same time"
            fix = "let one begin when the other ends (start, for), or let one fault last for both"
            problems.append(Problem(f"experiment {experiment.name}", 0, 0, what, fix))
    return problems


def _asked_while_halted(experiment: Experiment, offers: object, injections: Sequence[Injection]) -> Iterator[Problem]:
    """A request doesn't reach what is halted: neither the one that does it nor the one that takes it back. Nor can
    anything be started, or be seen to end, in a container that is paused.

    What is thawed at the same moment answers again in time; what is started again doesn't.
    """
    known = offers.mechanisms if isinstance(offers, Mechanisms) else {}
    inside = {word for word, mechanism in known.items() if getattr(mechanism, "starts_inside", False)}
    for told in (item for item in injections if item.mechanism in {"tell", *inside}):
        begin, end = told.start_s, told.start_s + told.for_s
        for halt in injections:
            if not _halts(halt, told):
                continue
            since, until = halt.start_s, halt.start_s + halt.for_s
            back_later = halt.mechanism == "crash" or isinstance(halt.how, TAKING)
            last = until + MOMENT_S if back_later else until - MOMENT_S
            if since <= begin < until or since < end < last:
                what = f"{told.id} would begin or end while {halt.id} lasts, and {told.instance} does not answer then"
                fix = "let it begin before and end after it (start, for)"
                yield Problem(f"experiment {experiment.name}", 0, 0, what, fix)


def _halts(halt: Injection, told: Injection) -> bool:
    if isinstance(halt.how, TAKING):
        return told.instance in halt.how.reaches
    return halt.instance == told.instance and halt.mechanism in (HALTS if told.mechanism == "tell" else STOPS)


def _cannot(experiment: Experiment, target: str, offers: object, injections: Sequence[Injection]) -> Iterator[Problem]:
    """What this target can't do here, once for each reason, with what would help."""
    if not isinstance(offers, Mechanisms):
        return
    said = set()
    for item in injections:
        mechanism = offers.mechanisms.get(item.mechanism)
        known = ", ".join(sorted(offers.mechanisms))
        missing = f"target {target} can't do {item.mechanism}; it does: {known}"
        why = missing if mechanism is None else mechanism.refusal(item)
        if why and (item.fault, why) not in said:
            said.add((item.fault, why))
            yield _problem(experiment, f"{item.fault}: {why}")


def _lacking(experiment: Experiment, profile: Profile | None, system: System) -> Iterator[Problem]:
    """What backpressure checks can't do without, as the reader of the file refuses it with its line."""
    for use in experiment.backpressure:
        if use.word not in ASKED:
            yield _problem(experiment, f"unknown backpressure check {use.word}; known: {', '.join(sorted(ASKED))}")
            continue
        load, faults = experiment.load, bool(experiment.faults)
        closed = load is not None and load.closed_loop
        for lacks in missing(use.word, load is not None, profile, system, faults=faults, closed=closed):
            yield _problem(experiment, f"{use.word} needs {lacks.what}")._replace(fix=lacks.fix)


def _nowhere(profile: Profile | None, system: System) -> Iterator[str]:
    """Of work that has to stay in a region that there isn't: nobody will do it. A system without regions has no say."""
    streams = profile.every_stream if profile is not None else ()
    known = sorted({one.labels["region"] for one in system.instances if "region" in one.labels})
    asked = dict.fromkeys(one.labels[RESIDENCY] for one in streams if RESIDENCY in one.labels)
    if lost := [region for region in asked if region not in known and known]:
        there = f"the system's regions are {', '.join(known)}"
        yield f"the load has work that must stay in {', '.join(lost)}, and {there}; say which it has (--set regions=…)"


def _lossy(injection: Injection, offers: object) -> Injection:
    """With what its mechanism can't bring back here, besides what the fault itself says."""
    known = offers.mechanisms if isinstance(offers, Mechanisms) else {}
    told = getattr(known.get(injection.mechanism), "loses", None)
    losses = [text for text in (injection.loses, told(injection) if told else "") if text]
    return replace(injection, loses=", ".join(losses))


def _irreversible(injections: Sequence[Injection]) -> tuple[str, ...]:
    lost: dict[str, list[str]] = {}
    for item in injections:
        if item.loses:
            known = lost.setdefault(item.loses, [])
            known += [name for name in sorted(_losers(item)) if name not in known]
    stays = dict.fromkeys(item.leaves for item in injections if item.leaves)
    return (*(f"{', '.join(names)}: {what} is lost" for what, names in lost.items() if names), *stays)


def _losers(item: Injection) -> Set[str]:
    """Whoever loses something: of a node with pods of others the node itself, of an empty one nobody."""
    if isinstance(item.how, Nodes) and not item.how.reaches:
        return {item.instance} if item.how.pods else set()
    return touched(item)


def _permissions(offers: object, injections: Sequence[Injection]) -> tuple[str, ...]:
    """Each once, in the order in which they are first needed; none that another one says already."""
    if not isinstance(offers, Mechanisms):
        return ()
    needed = [
        offers.mechanisms[item.mechanism].permission for item in injections if item.mechanism in offers.mechanisms
    ]
    asked = dict.fromkeys([offers.permission, *needed])
    return tuple(one for one in asked if not any(one in other for other in asked if other != one))
