"""Who is hit, who is left, and what that means for people. Pure: read from the plan and the inventory alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence, Set

from stormdrill.model.mechanism import (
    Beside,
    Capacity,
    Device,
    Isolate,
    Nodes,
    Pressure,
    Quota,
    Rollout,
    Scale,
    Segment,
    Sever,
    Tell,
    Toxic,
)
from stormdrill.model.plan import Injection
from stormdrill.model.units import show_duration
from stormdrill.ports import Hop, World

STOPPING = frozenset({"freeze", "crash"})
BLOCKING = frozenset({"cut", "stall", "refuse", "reset"})
"""Toxics after which a call over the hop is not answered."""
HURT = {
    "delay": "slowed",
    "trickle": "slowed",
    "squeeze": "slowed",
    "cut": "partly cut off",
    "stall": "unanswering for some",
    "refuse": "unanswering for some",
    "reset": "unanswering for some",
    "sever": "partly cut off",
    "pressure": "short of memory",
    "cpu-limit": "short of CPU",
    "device": "with devices failing",
    "tell": "told to behave otherwise",
    "rollout": "on another release",
    "capacity": "on nodes that give out no devices",
    "quota": "without room to grow",
    "segment": "asked to try what is forbidden",
}
"""What is left of an instance that is harmed and still answers."""


REACHING = Nodes | Scale | Isolate | Rollout | Capacity | Quota | Segment
"""What is done in a cluster says itself whom it reaches; its instance is a node or a workload."""
TAKING = Nodes | Scale | Isolate
"""By these its pods go, or can't be reached."""


def ends(hop: str) -> tuple[str, str]:
    """Caller and callee of `edge-1>gateway-eu`."""
    caller, _, callee = hop.partition(">")
    return caller, callee


def touched(injection: Injection) -> frozenset[str]:
    """The instances that count for the blast radius: those whose own state is changed.

    A toxic on the lines of one instance counts that one (it is cut off or slowed, its callers are only turned away);
    on lines with many ends every callee counts, since each of them is what somebody depends on. A release counts those
    who run it, not who is asked to roll it out; a flood those whom it enters by.
    """
    how = injection.how
    if isinstance(how, REACHING):
        return frozenset(how.reaches)
    if isinstance(how, Tell | Beside) and how.reaches:
        return frozenset(how.reaches)
    if not isinstance(how, Toxic) or all(injection.instance in ends(hop) for hop in how.hops):
        return frozenset({injection.instance})
    return frozenset(ends(hop)[1] for hop in how.hops)


def who(injection: Injection) -> Collection[str]:
    """Whom it is done to: in a cluster whom it reaches, for its own instance is a node or a workload there."""
    return injection.how.reaches if isinstance(injection.how, REACHING) else (injection.instance,)


def on_nodes(active: Iterable[Injection], *, crowded: bool = False) -> set[tuple[str, str]]:
    """Nodes, by cluster and name, on which what runs is harmed: it goes, has fewer cores, or finds no devices.
    `crowded`: those alone on which nothing of the suite's own should stand."""
    kinds = Nodes | Beside if crowded else Nodes | Beside | Capacity
    return {(one.how.cluster, name) for one in active if isinstance(one.how, kinds) for name in one.how.nodes}


def moments(injections: Sequence[Injection]) -> Iterable[tuple[Injection, ...]]:
    """What is in force together: no more can be than when something has just begun."""
    for at_s in sorted({one.start_s for one in injections}):
        yield tuple(one for one in injections if one.start_s <= at_s < one.start_s + one.for_s)


def out(active: Iterable[Injection], world: World) -> frozenset[str]:
    """Those that stop, or that nothing leads to any more from where load enters."""
    stopped: set[str] = set()
    blocked: set[str] = set()
    closed: set[str] = set()
    for one in active:
        if one.mechanism in STOPPING or (isinstance(one.how, Sever) and not one.how.peers):
            stopped.add(one.instance)
        elif isinstance(one.how, TAKING):
            stopped.update(one.how.reaches)
        elif isinstance(one.how, Toxic) and one.how.kind in BLOCKING:
            blocked.update(one.how.hops)
        elif isinstance(one.how, Sever):
            blocked.update(hop.name for hop in world.hops if _between(hop, one.instance, one.how.peers))
            closed.update({one.instance} if one.how.users else ())
    if not stopped and not blocked and not closed:
        return frozenset()
    return frozenset(stopped | (_reached(world, set(), set()) - _reached(world, stopped, blocked, closed)))


def _between(hop: Hop, instance: str, peers: Sequence[str]) -> bool:
    return (hop.caller == instance and hop.callee in peers) or (hop.callee == instance and hop.caller in peers)


def _reached(world: World, stopped: set[str], blocked: set[str], closed: Set[str] = frozenset()) -> set[str]:
    """By open hops, in either direction: workers call whom they work for. `closed`: nobody enters there."""
    near: dict[str, set[str]] = {}
    for hop in world.hops:
        if hop.name not in blocked and not stopped & {hop.caller, hop.callee}:
            near.setdefault(hop.caller, set()).add(hop.callee)
            near.setdefault(hop.callee, set()).add(hop.caller)
    shut = stopped | closed
    todo = [item.name for item in world.instances if item.service == world.system.entry and item.name not in shut]
    found = set(todo)
    while todo:
        new = near.get(todo.pop(), set()) - found
        found |= new
        todo += new
    return found


def worst_case(injections: Sequence[Injection], world: World) -> str:
    """The moment at which the fewest are left, in people's words."""
    if not injections:
        return "nothing is injected"

    def badness(active: Sequence[Injection]) -> tuple[int, int, int]:
        gone = out(active, world)
        return len(gone | killable(active, world).keys()), len(gone), len(_hurt(active))

    worst = max(moments(injections), key=badness)
    gone = out(worst, world)
    services = dict.fromkeys(item.service for item in world.instances)
    total = Counter(item.service for item in world.instances)
    lost = Counter(item.service for item in world.instances if item.name in gone)
    parts = []
    for service in services:
        left = total[service] - lost[service]
        if lost[service] and not left:
            nobody = ", and nobody gets in" if service == world.system.entry else ""
            parts.append(f"NO INSTANCE of {service} left ({total[service]} of {total[service]} out{nobody})")
        elif lost[service]:
            parts.append(f"{service} {left} of {total[service]} left ({left / total[service]:.0%})")
    said = [f"{len(gone)} of {len(world.instances)} instances out at once: {', '.join(parts)}"] if gone else []
    said += _worn(worst, gone, world) + _doomed(worst, gone, world)
    held_s = min(one.start_s + one.for_s for one in worst) - max(one.start_s for one in worst)
    whole_s = max(one.start_s + one.for_s for one in injections) - min(one.start_s for one in injections)
    besides = f", of {show_duration(whole_s)} in all" if whole_s > held_s else ""
    return f"{'; '.join(said) or 'no instance stops'}; for {show_duration(held_s)}{besides}"


def _hurt(active: Iterable[Injection]) -> set[str]:
    return {name for one in active for name in touched(one)}


def _worn(active: Sequence[Injection], gone: frozenset[str], world: World) -> list[str]:
    """Those that are harmed and still answer, by service and by what it does to them."""
    service = {item.name: item.service for item in world.instances}
    total = Counter(service.values())
    found: dict[tuple[str, str], set[str]] = {}
    for one in active:
        for name in touched(one) - gone if not isinstance(one.how, Beside) else ():
            found.setdefault((service.get(name, name), _harm(one)), set()).add(name)
    said = [f"{kind} {len(names)} of {total[kind]} {word}" for (kind, word), names in found.items()]
    said += [f"the whole system beside {_noise(one.how)}" for one in active if isinstance(one.how, Beside)]
    devices = sorted(f"{one.how.device} of {one.instance}" for one in active if isinstance(one.how, Device))
    return said + ([f"devices hit: {', '.join(devices)}"] if devices else [])


def _harm(one: Injection) -> str:
    told = one.how.means if isinstance(one.how, Tell) else ""
    return told or HURT.get(one.mechanism, one.mechanism)


def _noise(how: Beside) -> str:
    return f"a flood of {how.rate_per_s:g}/s" if how.program == "flood" else f"programs that burn {cores(how)}"


def cores(how: Beside) -> str:
    return f"{how.cores} core{'s' if how.cores != 1 else ''}"


def killable(active: Iterable[Injection], world: World) -> dict[str, float]:
    """Whom the kernel may kill for want of memory, and its limit in MB; 0: the container has one that isn't known here.

    Pressure beside it ends the allocator first, unless the application is meant.
    """
    limits_mb = {item.name: item.memory_mb for item in world.system.instances}
    found: dict[str, float] = {}
    for one in active:
        if isinstance(one.how, Pressure) and one.how.victim == "app":
            found[one.instance] = limits_mb.get(one.instance, 0.0)
        elif isinstance(one.how, Tell):
            found |= {name: limits_mb[name] for name in one.how.reaches if limits_mb.get(name)}
    return found


def _doomed(active: Sequence[Injection], gone: frozenset[str], world: World) -> list[str]:
    """Those that still answer and may be killed, by service and limit."""
    service = {item.name: item.service for item in world.instances}
    total = Counter(service.values())
    doomed = {name: limit_mb for name, limit_mb in killable(active, world).items() if name not in gone}
    out_then = Counter(service.get(name, name) for name in gone | doomed.keys())
    groups = Counter((service.get(name, name), limit_mb) for name, limit_mb in doomed.items())
    said = []
    for (kind, limit_mb), count in groups.items():
        limit = f" ({limit_mb:g} MB)" if limit_mb else ""
        nobody = f", which would leave NO INSTANCE of {kind}" if out_then[kind] >= total[kind] else ""
        said.append(f"{kind} {count} of {total[kind]} may be killed at its memory limit{limit}{nobody}")
    return said
