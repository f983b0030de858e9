"""From what was asked to exactly what will be done. Pure; refuses, all reasons at once, before anything is touched."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

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
from stormdrill.ports import Fault, Instance


def make_plan(
    experiment: Experiment,
    system: System,
    policy: Policy,
    profile: Profile | None,
    *,
    target: str,
    offers: object,
    inventory: Sequence[Instance],
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
                injections.extend(_timed(item, system) for item in fault.plan(use, index, inventory, for_s))
            except Refused as refused:
                problems.extend(refused.problems)
    problems.extend(_twice(experiment, injections))
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
        worst_case=_worst_case(injections, inventory, experiment),
        irreversible=_irreversible(injections),
        permissions=("signal and start this user's own processes; listen on 127.0.0.1",),
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


def _twice(experiment: Experiment, injections: Sequence[Injection]) -> list[Problem]:
    """Two faults that stop one instance at overlapping times would undo each other."""
    problems = []
    for number, one in enumerate(injections):
        for two in injections[number + 1 :]:
            overlap = one.start_s < two.start_s + two.for_s and two.start_s < one.start_s + one.for_s
            if one.instance == two.instance and overlap:
                problems.append(
                    _problem(experiment, f"{one.id} and {two.id} would hit {one.instance} at the same time")
                )
    return problems


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
    crashed = [item.instance for item in injections if item.mechanism == "crash"]
    if not crashed:
        return ()
    return (f"what {', '.join(crashed)} hold only in memory is lost when they are killed",)
