"""What an experiment can ask for: each check's word, parameters and needs. Loads no numpy, so that files can be checked
and a plan be refused without it; how a check judges is in the module of its word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta, Struct

Need = Literal["steps", "episodes", "tiers", "retries", "depth", "limit", "in_flight", "hops", "breaker", "load"]
"""What a check can't do without. steps, episodes: stages of the profile. tiers: streams with the label tier. retries: a
client that tries again. depth, limit, in_flight, hops, breaker: what the system file's `backpressure:` names. load:
request records."""

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
Times = Annotated[float, Meta(gt=0, le=1000)]
"""A multiple of something."""


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
    served: Share = "99%"
    """Of the requests of a step, answered with 2xx in time: then the system carries it."""
    least: Rate = "0/s"
    """What it must carry at least; 0: it only has to be found."""


class GoodputPlateau(Asks, frozen=True, kw_only=True, forbid_unknown_fields=True):
    least: Share = "90%"
    """Of the goodput at capacity."""
    up_to: Times = 3
    """Multiples of the capacity that are judged: 2, and this."""


class AdmittedLatency(Asks, frozen=True, kw_only=True, forbid_unknown_fields=True):
    most: Share = "100%"
    """Of each request's own deadline."""
    up_to: Times = 3


class CheapRejection(Asks, frozen=True, kw_only=True, forbid_unknown_fields=True):
    most: Share = "10%"
    """Of each request's own deadline: how long 99% of the rejections may take."""
    timeouts: Share = "1%"
    """Of those not served, at most this many may have waited in vain instead of being rejected."""


class RejectionContract(Asks, frozen=True, kw_only=True, forbid_unknown_fields=True):
    least: Share = "99%"
    """Of what was turned away: by 429 or 503 with a Retry-After that can be read."""
    obeyed: Share = "95%"
    """Of those who came back when they were told to, and found no overload: served then."""
    same: Share = "80%"
    """Of the rejections, at most this many may name one and the same time to come back."""


class LittlesLaw(Asks, frozen=True, kw_only=True, forbid_unknown_fields=True):
    most: Share = "15%"
    """Of what clients saw in flight: by how much the system's own figure may differ."""


ASKED: Mapping[str, Asked] = {
    asked.word: asked
    for asked in (
        Asked("capacity", "how much work is carried before goodput falls behind", Capacity, ("load", "steps")),
        Asked("goodput-plateau", "goodput stays up under overload", GoodputPlateau, ("load", "steps")),
        Asked("admitted-latency", "what is admitted is answered in time", AdmittedLatency, ("load",)),
        Asked("cheap-rejection", "what can't be served is turned away quickly", CheapRejection, ("load",)),
        Asked("rejection-contract", "a rejection says so, and when to come back", RejectionContract, ("load",)),
        Asked("littles-law", "nothing waits where the system doesn't see it", LittlesLaw, ("load", "in_flight")),
    )
}
"""Word → what it asks. One line a check, in the order of `registry.ORDER`."""
