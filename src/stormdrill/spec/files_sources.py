"""The part of a system file that says what can be read of the system, and where; values stay as written."""

from typing import Annotated, Literal

from msgspec import Meta, field

from stormdrill.spec.kinds import (
    Argument,
    Duration,
    FileModel,
    Identifier,
    Labels,
    Rate,
    Text,
    Word,
    kind,
)

Service = Annotated[Word, Meta(description="The service that is asked.", examples=["web"])]
HttpPath = Annotated[str, kind("path", r"^/[^\s]*$", "A path on the service, beginning with a slash.", "/metrics")]
Sample = Annotated[
    str, kind("sample", r"^[a-zA-Z_:][a-zA-Z0-9_:]*$", "A sample's name in the Prometheus text format.", "queue_depth")
]
Url = Annotated[
    str,
    kind(
        "url",
        r"^https?://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+)(:[0-9]{1,5})?(/[^\s?#@]*)?$",
        "The address of a server, without a user, a query or a password.",
        "http://127.0.0.1:9090",
    ),
]
Header = Annotated[str, kind("header", r"^[A-Za-z][A-Za-z0-9-]*$", "A header's name.", "Authorization")]
Every = Annotated[
    Duration,
    Meta(description="How often it is read; 1s when left out.", extra={"least": "500ms", "most": "5m"}),
]
Own = Annotated[list[Identifier], Meta(description="Labels of the samples themselves, besides the instances'.")]
Fixed = Annotated[Labels, Meta(description="Labels that all samples have by what the metric is: {kind: report}.")]


class MetricFile(FileModel, frozen=True, kw_only=True):
    """One of `prometheus`, `promql`, `command` and `http`: where the metric's value comes from."""

    prometheus: Sample | None = None
    promql: (
        Annotated[Text, Meta(description="An instant query to the server under servers.", examples=["sum(up)"])] | None
    ) = None
    command: (
        Annotated[
            Annotated[list[Argument], Meta(min_length=1)],
            Meta(description="An argument vector; the last line of its output is the number. No shell reads it."),
        ]
        | None
    ) = None
    http: HttpPath | None = None
    from_: Service | None = field(name="from", default=None)
    path: HttpPath | None = None
    value: (
        Annotated[Text, Meta(description="Where the number is in the JSON answer.", examples=[".queue.depth"])] | None
    ) = None
    labels: Own | Fixed = []
    unit: Literal["s", "ms", "bytes", "ratio"] | None = None
    every: Every | None = None


class ServedFile(FileModel, frozen=True, kw_only=True):
    """A counter of requests served: of one service, or of all that have it."""

    prometheus: Sample
    from_: Annotated[Word, Meta(description="Only of this service; of all that have it when left out.")] | None = field(
        name="from", default=None
    )
    path: HttpPath = "/metrics"
    labels: list[Identifier] = []


class AlertFile(FileModel, frozen=True, kw_only=True):
    """Where the alert is seen to fire: a path whose ALERTS samples are read, or a server that knows of it."""

    prometheus: (
        Annotated[
            str,
            kind("sample path", r"^[a-zA-Z0-9_.-]+(/[a-zA-Z0-9_.-]+)*$", "A path without its first slash.", "alerts"),
        ]
        | None
    ) = None
    from_: Service | None = field(name="from", default=None)
    server: Literal["prometheus", "alertmanager"] | None = None
    labels: Annotated[list[Identifier], Meta(description="Labels of the alert itself, besides the instances'.")] = []


class ServerFile(FileModel, frozen=True, kw_only=True):
    """A server that wants more than its address."""

    url: Url
    headers: Annotated[dict[Header, Text], Meta(description="Sent with each request; may hold secrets.")] = {}


class ServersFile(FileModel, frozen=True, kw_only=True):
    """Servers that know of the system what its instances don't tell themselves."""

    prometheus: Url | ServerFile | None = None
    alertmanager: Url | ServerFile | None = None


class TrafficFile(FileModel, frozen=True, kw_only=True):
    """What the service is asked for in earnest."""

    rate: Rate
    window: Annotated[Duration, Meta(description="Of the error budget.", extra={"least": "1m", "most": "366d"})] = "30d"


class IndicatorsFile(FileModel, frozen=True, kw_only=True):
    """What success, latency and throughput are where the traffic is the system's own."""

    from_: Service = field(name="from")
    path: HttpPath = "/metrics"
    good: Annotated[Sample, Meta(description="Counter of requests that were served well.")] | None = None
    total: Annotated[Sample, Meta(description="Counter of all requests.")] | None = None
    histogram: Annotated[Sample, Meta(description="Of latencies in seconds, without _bucket.")] | None = None
    labels: Annotated[list[Identifier], Meta(description="Labels of the samples themselves.")] = []


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
