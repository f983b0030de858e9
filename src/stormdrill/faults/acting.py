"""What the built-in faults share: they choose and plan; the target's mechanism, found by its word, acts and looks."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple, cast

from stormdrill.errors import Refused
from stormdrill.model.experiment import FaultUse
from stormdrill.model.mechanism import How
from stormdrill.model.plan import Injection
from stormdrill.ports import Effect, Instance, Mechanisms, World

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
    "tell": "take it back",
    "beside": "end it",
}
"""What reverts each mechanism, in people's words."""
FROM_READY = 0.0
"""A verify time-out that means: as long as the system may take to get ready."""


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
        undo=UNDO_WORDS.get(mechanism, "revert"),
        start_s=use.start_s + after_s,
        for_s=for_s - after_s,
        verify_timeout_s=verify_timeout_s,
        how=how,
        switches=switches,
        loses=loses,
    )


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
    """`share` (0 to 1) of them, at least one, chosen the same way each time: a drill must be repeatable."""
    count = max(1, round(len(found) * share))
    order = sorted(found, key=lambda one: (zlib.crc32(f"{seed}/{one.name}".encode()), one.name))
    return tuple(sorted(order[:count], key=lambda one: [item.name for item in found].index(one.name)))


def nothing_touched(use: FaultUse, why: str) -> Refused:
    return Refused(f"{use.word} would touch nothing: {why}")


def carried(world: World, label: str) -> str:
    """The values of a label that instances carry, for messages."""
    values = sorted({one.labels[label] for one in world.instances if label in one.labels})
    return f"{label}s here: {', '.join(values)}" if values else f"no instance carries the label `{label}`"
