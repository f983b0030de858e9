"""From what was asked to exactly what will be done. Pure; refuses, all reasons at once, before anything is touched."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from stormdrill.core.sampling import enough_planned
from stormdrill.errors import Problem, Refused
from stormdrill.model.experiment import Experiment
from stormdrill.model.plan import Injection, Plan
from stormdrill.model.policy import Policy
from stormdrill.model.profile import Profile
from stormdrill.model.system import System
from stormdrill.model.units import show_duration
from stormdrill.ports import Fault, Instance, Mechanisms, World


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
    problems.extend(_held_twice(experiment, injections))
    problems.extend(_cannot(experiment, target, offers, injections))
    if profile is not None:
        problems.extend(enough_planned(experiment, profile))
    if problems:
        raise Refused(problems)
    made = Plan(
        experiment=experiment,
        system=system,
        target=target,
        seed=seed,
        injections=tuple(injections),
        duration_s=experiment.phases.total_s,
        worst_case=_worst_case(injections, world.instances, experiment),
        irreversible=_irreversible(injections),
        permissions=_permissions(offers, injections),
        policy=policy,
        profile=profile,
    )
    length_s = experiment.phases.total_s - experiment.phases.fault_s + made.fault_s
    return replace(made, digest=digest(made), duration_s=length_s)


def digest(plan: Plan) -> str:
    """Over what is asked, who is hit, how and how long; not over the seed, which changes nothing that is harmed."""
    value = (plan.experiment, plan.target, plan.injections, [item.name for item in plan.system.instances])
    return hashlib.sha256(msgspec.json.encode(value)).hexdigest()[:12]


def _timed(injection: Injection, system: System) -> Injection:
    if injection.verify_timeout_s:
        return injection
    return replace(injection, verify_timeout_s=system.ready_timeout_s)


def _problem(experiment: Experiment, what: str) -> Problem:
    return Problem(f"experiment {experiment.name}", 0, 0, what)


def _held_twice(experiment: Experiment, injections: Sequence[Injection]) -> list[Problem]:
    """Faults may overlap on one instance, but not hold the same switch: the first undo would end both."""
    problems = []
    for number, one in enumerate(injections):
        for two in injections[number + 1 :]:
            overlap = one.start_s < two.start_s + two.for_s and two.start_s < one.start_s + one.for_s
            if overlap and (both := set(one.switches) & set(two.switches)):
                what = f"{one.id} and {two.id} would hold the {min(both)} at the same time"
                fix = "let one begin when the other ends (start, for), or let one fault last for both"
                problems.append(Problem(f"experiment {experiment.name}", 0, 0, what, fix))
    return problems


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


def _worst_case(injections: Sequence[Injection], inventory: Sequence[Instance], experiment: Experiment) -> str:
    if not injections:
        return "nothing is injected"
    hit = {item.instance for item in injections}
    total = Counter(item.service for item in inventory)
    lost = Counter(item.service for item in inventory if item.name in hit)
    parts = [f"{service} {lost[service]} of {total[service]}" for service in total if lost[service]]
    longest = max(item.start_s + item.for_s for item in injections)
    return f"{len(hit)} of {len(inventory)} instances stop for {show_duration(longest)}: {', '.join(parts)}"


def _irreversible(injections: Sequence[Injection]) -> tuple[str, ...]:
    lost: dict[str, list[str]] = {}
    for item in injections:
        if item.loses and item.instance not in lost.setdefault(item.loses, []):
            lost[item.loses].append(item.instance)
    return tuple(f"{', '.join(names)}: {what} is lost" for what, names in lost.items())


def _permissions(offers: object, injections: Sequence[Injection]) -> tuple[str, ...]:
    """Each once, in the order in which they are first needed."""
    if not isinstance(offers, Mechanisms):
        return ()
    needed = [
        offers.mechanisms[item.mechanism].permission for item in injections if item.mechanism in offers.mechanisms
    ]
    return tuple(dict.fromkeys([offers.permission, *needed]))
