"""What an experiment can ask for: each check's word, parameters and needs. Loads no numpy, so that files can be checked
and a plan be refused without it; how a check judges is in the module of its word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta, Struct

Need = Literal["steps", "tiers", "tries", "depth", "limit", "in_flight", "breaker", "load", "open", "fault"]
"""What a check can't do without. steps: stages of the profile. tiers: streams with the label tier. tries: counters of a
hop, or a client that tries again. depth, limit, in_flight, breaker: what the system file's `backpressure:` names. load:
request records. open: a load that asks for as much when the system is slow. fault: something that is injected."""

# As in spec.kinds, which lies above this room: the same patterns, and the words by which the reader's messages go.
Share = Annotated[
    str,
    Meta(
        pattern=r"^\d+(\.\d+)?%$",
        description="A share of the whole, in percent.",
        examples=["90%"],
        extra={"kind": "share"},
    ),
]
Duration = Annotated[
    str,
    Meta(
        pattern=r"^\d+(\.\d+)?(ms|s|m|h|d)$",
        description="A duration: a number and one of ms, s, m, h, d.",
        examples=["10s", "250ms"],
        extra={"kind": "duration"},
    ),
]
Rate = Annotated[
    str,
    Meta(
        pattern=r"^\d+(\.\d+)?/(s|m|h)$",
        description="A rate: a number, a slash and one of s, m, h.",
        examples=["60/s"],
        extra={"kind": "rate"},
    ),
]
Times = Annotated[float, Meta(ge=1, le=1000)]
"""A multiple of something that can't be less."""
Multiple = Annotated[float, Meta(ge=2, le=100)]
"""Of the capacity: what is carried is not overload."""
Portion = Annotated[Share, Meta(extra={"kind": "share", "least": "0.01%", "most": "99.99%"})]
"""A share that samples can show: none shows that it is all, or nothing."""
Fraction = Annotated[Share, Meta(extra={"kind": "share", "least": "0.01%", "most": "100%"})]
"""A part of something measured."""
Span = Annotated[Duration, Meta(extra={"kind": "duration", "least": "100ms", "most": "1h"})]
"""How long something may take: less than readings can show, or more than a run lasts, is a slip of the pen."""
Memory = Annotated[Duration, Meta(extra={"kind": "duration", "least": "100ms", "most": "60s"})]
"""Of a queue."""


class Asks(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every check's parameters: thresholds, all with defaults, as an author writes them."""


class Asked(Struct, frozen=True):
    """One word."""

    word: str
    summary: str
    """One line: what it asks."""
    parameters: type[Asks]
    needs: tuple[Need, ...]


class Capacity(Asks, frozen=True, kw_only=True, forbid_unknown_fields=True):
    served: Portion = "99%"
    """Of the requests of a step, answered with 2xx in time: then the system carries it."""
    least: Rate = "0/s"
    """What it must carry at least; 0: it only has to be found."""


class GoodputPlateau(Asks, frozen=True, kw_only=True, forbid_unknown_fields=True):
    least: Fraction = "90%"
    """Of the goodput at capacity."""
    up_to: Multiple = 3
    """Multiples of the capacity that are judged: 2, and this."""


class AdmittedLatency(Asks, frozen=True, kw_only=True, forbid_unknown_fields=True):
    most: Fraction = "100%"
    """Of each request's own deadline."""
    up_to: Multiple = 3
    """As for `goodput-plateau`."""


class CheapRejection(Asks, frozen=True, kw_only=True, forbid_unknown_fields=True):
    most: Fraction = "10%"
    """Of each request's own deadline: how long 99% of the rejections may take."""
    timeouts: Portion = "1%"
    """Of those not served, at most this many may have waited in vain instead of being rejected."""


class RejectionContract(Asks, frozen=True, kw_only=True, forbid_unknown_fields=True):
    least: Portion = "99%"
    """Of what was turned away: by 429 or 503 with a Retry-After that can be read."""
    obeyed: Portion = "95%"
    """Of those who came back when they were told to, and found no overload: served then."""
    same: Portion = "80%"
    """Of the rejections, at most this many may name one and the same time to come back."""


class LittlesLaw(Asks, frozen=True, kw_only=True, forbid_unknown_fields=True):
    most: Fraction = "15%"
    """Of what clients saw in flight: by how much the system's own figure may differ."""


class BoundedQueue(Asks, frozen=True, kw_only=True, forbid_unknown_fields=True):
    growth: Fraction = "10%"
    """Of a queue's limit, or of the memory at first: growing by less over the whole plateau is not growing."""
    remembers: Memory = "6s"
    """How long a queue stays as it is by itself: readings so far apart are hardly alike."""


class Priority(Asks, frozen=True, kw_only=True, forbid_unknown_fields=True):
    first: Portion = "99%"
    """Of the first tier, to be let in while what it asks for alone can be carried."""
    margin: Fraction = "5%"
    """By less than this between the first and the last tier, they are treated alike."""
    capacity: Rate = "0/s"
    """What the system carries; 0: as the staircase shows, else the most that was served."""


class RetryAmplification(Asks, frozen=True, kw_only=True, forbid_unknown_fields=True):
    most: Times = 1.1
    """Attempts per request at each hop."""


class Drain(Asks, frozen=True, kw_only=True, forbid_unknown_fields=True):
    times: Times = 1.5
    """The time in which the room that is left over would do the backlog."""
    least: Span = "2s"
    """Less than this is never asked."""
    capacity: Rate = "0/s"
    """What the system carries; 0: as the staircase shows, else the most that was served."""


class Recovery(Asks, frozen=True, kw_only=True, forbid_unknown_fields=True):
    least: Portion = "95%"
    """Of the goodput before."""
    within: Span = "10s"
    """Of the trigger's end."""
    capacity: Rate = "0/s"
    """What the system carries, to say below which part of it it recovers; 0: as for `drain`."""


class Breaker(Asks, frozen=True, kw_only=True, forbid_unknown_fields=True):
    opens: Span = "5s"
    """After the dependency failed."""
    of: Annotated[str, Meta(description="The dependency that is meant, by a label's value; empty: what was hit.")] = ""
    """Whose breakers are judged: a value of their labels. Empty: those that are named after what was hit."""
    closes: Span = "10s"
    """After it is back."""
    probes: Rate = "2/s"
    """Let through by one breaker while it is open, at most."""
    hedges: Fraction = "5%"
    """Of the entry's requests, at most."""


ASKED: Mapping[str, Asked] = {
    asked.word: asked
    for asked in (
        Asked("capacity", "how much work is carried before goodput falls behind", Capacity, ("load", "steps")),
        Asked("goodput-plateau", "goodput stays up under overload", GoodputPlateau, ("load", "steps")),
        Asked("admitted-latency", "what is admitted is answered in time", AdmittedLatency, ("load",)),
        Asked("cheap-rejection", "what can't be served is turned away quickly", CheapRejection, ("load",)),
        Asked("rejection-contract", "a rejection says so, and when to come back", RejectionContract, ("load",)),
        Asked("bounded-queue", "no queue outgrows its limit, or grows for ever", BoundedQueue, ("depth", "limit")),
        Asked("littles-law", "nothing waits where the system doesn't see it", LittlesLaw, ("load", "in_flight")),
        Asked("priority", "what matters less is turned away first", Priority, ("load", "tiers")),
        Asked("retry-amplification", "trying again doesn't become the load", RetryAmplification, ("load", "tries")),
        Asked("drain", "a backlog is done as fast as the room allows", Drain, ("load", "open")),
        Asked("recovery", "after a surge or a fault it serves as before", Recovery, ("load", "open")),
        Asked("breaker", "a breaker opens, probes and closes in time", Breaker, ("breaker", "fault")),
    )
}
"""Word → what it asks. One line a check, in the order of `registry.ORDER`."""
