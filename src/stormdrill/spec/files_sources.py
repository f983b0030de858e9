"""The part of a system file that says what can be read of the system, and where; values stay as written."""

from typing import Annotated

from msgspec import Meta

from stormdrill.spec.kinds import FileModel, Identifier, Word

Metric = Annotated[Identifier, Meta(description="A name of `metrics`.", examples=["queue_depth"])]


class QueueFile(FileModel, frozen=True, kw_only=True):
    """Work that waits, and how much of it may."""

    depth: Metric
    limit: Metric | None = None


class HopFile(FileModel, frozen=True, kw_only=True):
    """Counters of one service: what comes in, what it sends on."""

    received: Metric
    sent: Metric


class BreakerFile(FileModel, frozen=True, kw_only=True):
    """What is seen of circuit breakers."""

    open: Annotated[Metric, Meta(description="1 while it is open or half-open, a series a breaker.")]
    probes: (
        Annotated[Metric, Meta(description="Counter of requests let through while it was open or half-open.")] | None
    ) = None


class PressureFile(FileModel, frozen=True, kw_only=True):
    """Which metric is what, for backpressure checks."""

    queue: QueueFile | None = None
    in_flight: Annotated[Metric, Meta(description="Accepted and not answered, on the entry's instances.")] | None = None
    memory: Metric | None = None
    hops: Annotated[dict[Word, HopFile], Meta(description="By service, from the entry inwards.")] = {}
    breaker: BreakerFile | None = None
    hedges: Annotated[Metric, Meta(description="Counter of hedged requests.")] | None = None
