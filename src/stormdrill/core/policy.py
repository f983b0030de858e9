"""Whether a plan keeps to what is allowed here. Pure: the time is given."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from stormdrill.core.demand import Demand
from stormdrill.core.reach import moments, on_nodes, touched
from stormdrill.model.mechanism import Nodes, Pressure, Scale
from stormdrill.model.plan import Injection, Plan
from stormdrill.model.policy import Policy
from stormdrill.model.units import show_duration

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
SHOWN = 5
_OWNER = "whoever owns the platform can"


class Violation(NamedTuple):
    key: str
    """Of the policy that forbids it."""
    what: str
    fix: str


def violations(policy: Policy, plan: Plan, now: datetime) -> tuple[Violation, ...]:
    """Every way in which `plan`, started at `now`, goes beyond `policy`; empty when it is allowed.

    `now` carries its offset. A run is allowed when the whole of it, first to last second, lies in a window and in no
    freeze. Raises ValueError for a time without an offset.
    """
    if now.tzinfo is None:
        raise ValueError("the time of a policy check needs its offset")
    return (*_what(policy, plan), *_reach(policy, plan), *_time(policy, plan, now))


def _besides(starts_s: float) -> str:
    return f" and up to {show_duration(starts_s)} in which what does it is started" if starts_s > 0 else ""


def _not_listed(key: str, word: str, listed: Iterable[str]) -> Violation:
    what = f"the {key.removesuffix('s')} {word} is not allowed here, only {', '.join(listed)}"
    return Violation(key, what, f"{_OWNER} add it under {key}")


def _beyond(key: str, what: str, fix: str) -> Violation:
    return Violation(key, what, f"{fix}; {_OWNER} raise {key}")


def _what(policy: Policy, plan: Plan) -> Iterable[Violation]:
    if plan.target not in policy.targets:
        yield _not_listed("targets", plan.target, policy.targets)
    for word in dict.fromkeys(use.word for use in plan.experiment.faults):
        if policy.faults and word not in policy.faults:
            yield _not_listed("faults", word, policy.faults)
    longest_s = max((plan.experiment.phases.fault_s, *(one.start_s + one.for_s for one in plan.injections)))
    starts_s = plan.longest_fault_s - plan.fault_s
    if longest_s + starts_s > policy.max_fault_s:
        most = f"{show_duration(policy.max_fault_s)} is the most"
        said = f"the fault lasts {show_duration(longest_s)}{_besides(starts_s)}, {most}"
        yield _beyond("max_fault", said, "shorten the fault phase")
    highest = _peak_per_s(plan)
    if highest > policy.max_rate_per_s:
        said = f"the load reaches {highest:g}/s, {policy.max_rate_per_s:g}/s is the most"
        yield _beyond("max_rate", said, "lower the rate")


def _peak_per_s(plan: Plan) -> float:
    """The highest λ, all demands together; 0 without a generator, and of users that wait for their answers."""
    load, profile = plan.experiment.load, plan.profile
    if load is None or profile is None or load.closed_loop:
        return 0.0
    return Demand(profile, load.rate_per_s).peak_rate()


def _reach(policy: Policy, plan: Plan) -> Iterable[Violation]:
    hit, whole = _most_at_once(plan), len(plan.system.instances)
    if hit > policy.max_instances:
        said = f"{hit} instances are hit at once, {policy.max_instances} is the most"
        yield _beyond("max_instances", said, "select fewer")
    if whole and hit / whole > policy.max_share + 1e-9:
        said = f"{hit} of {whole} instances ({hit / whole:.0%}) are hit at once, {policy.max_share:.0%} is the most"
        yield _beyond("max_share", said, "select fewer")
    yield from _in_cluster(policy, plan)
    taken_mb = _most_memory_mb(plan)
    if taken_mb > policy.max_memory_mb:
        said = f"{taken_mb:g} MB are taken by memory-leak at once, {policy.max_memory_mb:g} MB is the most"
        yield _beyond("max_memory", said, "lower the ceiling, or select fewer")


def _most_at_once(plan: Plan) -> int:
    """The most distinct instances whose own state is changed at the same moment; see `reach.touched`."""
    return max((len({name for one in there for name in touched(one)}) for there in moments(plan.injections)), default=0)


def _in_cluster(policy: Policy, plan: Plan) -> Iterable[Violation]:
    nodes = max((len(on_nodes(there)) for there in moments(plan.injections)), default=0)
    if nodes > policy.max_nodes:
        said = f"{nodes} nodes lose pods, cores or devices at once, {policy.max_nodes} is the most"
        yield _beyond("max_nodes", said, "harm fewer")
    pods = max((sum(map(_pods, there)) for there in moments(plan.injections)), default=0)
    if pods > policy.max_pods:
        said = f"{pods} pods are taken away at once, {policy.max_pods} is the most"
        yield _beyond("max_pods", said, "lose fewer")
    short = dict.fromkeys(name for one in plan.injections if isinstance(one.how, Nodes) for name in one.how.budgets)
    if short and policy.disruption_budgets != "ignore":
        more = f" and {len(short) - SHOWN} more" if len(short) > SHOWN else ""
        what = f"more pods go than disruption budgets allow: {', '.join(list(short)[:SHOWN])}{more}"
        fix = f"write empties: evict in the system file, or take fewer nodes; {_OWNER} write disruption_budgets: ignore"
        yield Violation("disruption_budgets", what, fix)


def _pods(one: Injection) -> int:
    return one.how.pods if isinstance(one.how, Nodes) else one.how.away if isinstance(one.how, Scale) else 0


def _most_memory_mb(plan: Plan) -> float:
    """The most that allocators of ours hold at the same moment."""
    held = (
        sum(one.how.ceiling_mb for one in there if isinstance(one.how, Pressure)) for there in moments(plan.injections)
    )
    return max(held, default=0.0)


def _time(policy: Policy, plan: Plan, now: datetime) -> Iterable[Violation]:
    until = datetime.fromtimestamp(now.timestamp() + plan.longest_s, UTC)
    shown = now.astimezone(UTC).isoformat(timespec="seconds")
    if policy.windows and not any(_inside(window, now, until) for window in policy.windows):
        takes = show_duration(plan.duration_s) + _besides(plan.longest_s - plan.duration_s)
        said = f"a run of {takes} from {shown} is in no window"
        yield Violation("windows", said, f"run it in one: {', '.join(policy.windows)}")
    for freeze in policy.freeze:
        first, last = (date.fromisoformat(day) for day in freeze.split("/"))
        if first <= until.date() and now.astimezone(UTC).date() <= last:
            yield Violation("freeze", f"{freeze} is frozen", "run it on another day")


def _inside(window: str, begin: datetime, end: datetime) -> bool:
    days, hours, zone = window.split(" ")
    first, _, last = days.partition("-")
    opens, closes = hours.split("-")
    local, local_end = begin.astimezone(ZoneInfo(zone)), end.astimezone(ZoneInfo(zone))
    reach = (DAYS.index(last or first) - DAYS.index(first)) % 7
    if (local.weekday() - DAYS.index(first)) % 7 > reach:
        return False
    minutes = (local_end.date() - local.date()).days * 24 * 60
    ends = minutes + local_end.hour * 60 + local_end.minute + local_end.second / 60
    starts = local.hour * 60 + local.minute
    return _minutes(opens) <= starts and ends <= _minutes(closes)


def _minutes(clock: str) -> int:
    hours, minutes = clock.split(":")
    return int(hours) * 60 + int(minutes)
