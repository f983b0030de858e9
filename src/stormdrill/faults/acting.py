"""What the built-in faults share: they choose and plan; the target's mechanism, found by its word, acts and looks."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple, cast

from msgspec import Struct

from stormdrill.errors import Refused
from stormdrill.model.experiment import FaultUse
from stormdrill.model.mechanism import How, Tell
from stormdrill.model.plan import Injection
from stormdrill.ports import Effect, Hop, Instance, Mechanisms, World

UNDO_WORDS = {
    "freeze": "thaw",
    "crash": "start again",
    "delay": "let through at once",
    "stall": "let through",
    "trickle": "let through at full speed",
    "squeeze": "give the bandwidth back",
    "reset": "let through",
    "refuse": "listen again",
    "cut": "join again",
    "sever": "join again",
    "pressure": "give the memory back",
    "cpu-limit": "give the CPU back",
    "device": "put the device back",
    "beside": "end it",
    "rollout": "put the template back",
    "quota": "take the quota away",
    "segment": "nothing is left of it",
}
"""What reverts each mechanism, in people's words; what is told is taken back by a request of its own."""
FROM_READY = 0.0
"""A verify time-out that means: as long as the system may take to get ready."""


class Chosen(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of parameters that choose instances: those that match all that is written."""

    instance: str = ""
    service: str = ""
    region: str = ""
    pool: str = ""
    node: str = ""
    where: str = ""
    """Other labels: `zone=a, rack=7`."""


class ThroughMechanisms:
    """Base of the built-in faults: injects and observes through the mechanism that the plan names."""

    needs = Mechanisms

    def inject(self, injection: Injection, via: object) -> None:
        cast(Mechanisms, via).mechanisms[injection.mechanism].apply(injection)

    def observe(self, injection: Injection, via: object) -> Effect:
        return cast(Mechanisms, via).mechanisms[injection.mechanism].observe(injection)


class Asked(NamedTuple):
    """One use of a fault, as `Fault.plan` is asked for it."""

    use: FaultUse
    number: int
    """Which of the experiment's faults it is."""
    for_s: float


def injection(
    asked: Asked,
    subject: str,
    mechanism: str,
    *,
    instance: str = "",
    how: How | None = None,
    switches: tuple[str, ...] = (),
    loses: str = "",
    after_s: float = 0.0,
    verify_timeout_s: float = 5.0,
) -> Injection:
    """One injection of the fault asked for. `subject` makes its id unique in the fault.

    `instance` is whom it harms, `subject` when left out. `after_s`: later than the fault itself, for what is
    withdrawn step by step; it then ends with the others.
    """
    use, number, for_s = asked
    return Injection(
        id=f"{use.word}{'' if number == 0 else f'-{number + 1}'}/{subject}",
        fault=use.word,
        use=number,
        instance=instance or subject,
        mechanism=mechanism,
        undo=asking(how) if isinstance(how, Tell) else UNDO_WORDS.get(mechanism, "revert"),
        start_s=use.start_s + after_s,
        for_s=for_s - after_s,
        verify_timeout_s=verify_timeout_s,
        how=how,
        switches=switches,
        loses=loses,
    )


def asking(how: Tell) -> str:
    """The request that takes back what is told."""
    return f"{how.undo_method} {how.undo_path} {how.undo_body}".rstrip()


def halt(asked: Asked, one: Instance, mode: str, after_s: float = 0.0) -> Injection:
    """Freeze or crash one instance."""
    crash = mode == "crash"
    return injection(
        asked,
        one.name,
        mode,
        switches=(f"life of {one.name}",),
        loses="what it holds only in memory" if crash else "",
        after_s=after_s,
        verify_timeout_s=FROM_READY if crash else 5.0,
    )


def some(found: Sequence[Instance], share: float, seed: str) -> tuple[Instance, ...]:
    """`share` (0 to 1) of them, at least one, chosen the same way each time: a drill must be repeatable.

    `seed` is the fault's word. Raises Refused for a share of nothing.
    """
    if not share:
        raise Refused(f"{seed} would touch nothing: share 0% is nobody; write more, or leave it out for all")
    count = max(1, round(len(found) * share))
    order = sorted(found, key=lambda one: (zlib.crc32(f"{seed}/{one.name}".encode()), one.name))
    places = {item.name: number for number, item in enumerate(found)}
    return tuple(sorted(order[:count], key=lambda one: places[one.name]))


def chosen(use: FaultUse, wanted: Chosen, world: World, **otherwise: str) -> tuple[Instance, ...]:
    """The instances that the parameters choose; by `otherwise` when nothing is written.

    Raises Refused when nobody is meant, or when nobody is there.
    """
    written = {name: getattr(wanted, name) for name in ("instance", "service", "region", "pool", "node")}
    labels = {name: value for name, value in written.items() if value}
    for pair in wanted.where.split(",") if wanted.where else ():
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not (name and equals and value):
            raise Refused(f"{use.word}: where: {wanted.where} is no list of labels; write for instance zone=a, rack=7")
        labels[name] = value
    labels = {**otherwise, **labels}
    if not labels:
        raise Refused(f"{use.word} names nobody; write instance, service, region, pool, node or where")
    found = world.chosen(**labels)
    if not found:
        said = ", ".join(f"{name}={value}" for name, value in labels.items())
        names = ", ".join(one.name for one in world.instances)
        raise nothing_touched(use, f"no instance has {said}; instances here: {names}")
    return found


def hops_between(world: World, callers: Sequence[Instance], callees: Sequence[Instance]) -> tuple[Hop, ...]:
    """The proxied hops from the one to the other, in this direction."""
    ours, theirs = {one.name for one in callers}, {one.name for one in callees}
    return tuple(hop for hop in world.hops if hop.caller in ours and hop.callee in theirs)


def hops_to(use: FaultUse, world: World, name: str, callers: str = "") -> tuple[Hop, ...]:
    """The hops of one declared dependency, of some callers' services or all. Raises Refused where there is none."""
    known = [item.name for item in world.system.dependencies]
    if name not in known:
        said = f"declared here: {', '.join(known)}" if known else "the system file declares no `dependencies`"
        raise nothing_touched(use, f"no dependency is named {name}; {said}")
    wanted = {word.strip() for word in callers.split(",") if word.strip()}
    services = {one.name: one.service for one in world.instances}
    found = tuple(hop for hop in world.hops if hop.dependency == name)
    calling = {services[hop.caller] for hop in found}
    if unknown := sorted(wanted - calling):
        raise nothing_touched(
            use, f"{', '.join(unknown)} doesn't call {name}; its callers are {', '.join(sorted(calling)) or 'nobody'}"
        )
    hit = tuple(hop for hop in found if not wanted or services[hop.caller] in wanted)
    if not hit:
        held = world.system.docker is not None and world.system.docker.attach
        help = "; nothing of ours stands before containers that run already: freeze or isolate them (region-loss)"
        raise nothing_touched(use, f"no hop leads to {name}{help if held else ''}")
    return hit


def exactly_one(use: FaultUse, names: str, written: Sequence[str]) -> None:
    """Raises Refused unless exactly one of the alternatives was written."""
    if len(written) != 1:
        said = f"{' and '.join(written)} together" if written else "none of them"
        raise Refused(f"{use.word} takes exactly one of {names}; here: {said}")


def nothing_touched(use: FaultUse, why: str) -> Refused:
    return Refused(f"{use.word} would touch nothing: {why}")


def carried(world: World, label: str) -> str:
    """The values of a label that instances carry, for messages."""
    values = sorted({one.labels[label] for one in world.instances if label in one.labels})
    return f"{label}s here: {', '.join(values)}" if values else f"no instance carries the label `{label}`"
