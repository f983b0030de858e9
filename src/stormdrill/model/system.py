"""A system under test, resolved from its file: what runs, how it is known to be ready, where load enters."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from stormdrill.model.experiment import Scalar

MEMORY_LIMIT = "STORMDRILL_MEMORY_LIMIT_MB"
"""What a program is told of its limit where no container holds it to one."""


class Ready(Struct, frozen=True):
    """A ready check needs an *answer*: an HTTP status below 500, or a TCP greeting is not enough."""

    method: str = "GET"
    path: str = "/"


class ServiceInstance(Struct, frozen=True):
    """One instance, `each` and `instances` already expanded. Name: `gateway-eu`, `edge-1`."""

    name: str
    service: str
    command: tuple[str, ...]
    """Argument vector. `$port` stays for the target to fill in; parameters are filled in already."""
    labels: dict[str, str] = {}
    env: dict[str, str] = {}
    ready: Ready | None = None
    port: int | None = None
    """A fixed port of the user's; None: a free one, given as `$port` and in STORMDRILL_PORT. In a container: the port
    it listens on inside."""
    devices: tuple[str, ...] = ()
    """Simulated devices: files `devices/NAME` in the instance's STORMDRILL_DATA, whose content is their state."""
    memory_mb: float = 0.0
    """Its memory limit; 0: none."""
    cpus: float = 0.0
    """Its share of cores in a container; 0: no limit."""
    image: str = ""
    """The container image; empty: the one that the docker section builds."""
    select: dict[str, str] = {}
    """Labels of a container that runs already (`docker: attach`)."""


class Dependency(Struct, frozen=True):
    """A hop between services that passes a proxy of ours."""

    name: str
    callers: tuple[str, ...]
    """Services (`from:` in the file)."""
    to: str
    lag: str = ""
    """A path of the dependency that takes `PUT {"seconds": N}`: its data are then N seconds old; GET tells N."""


class Release(Struct, frozen=True):
    """How another version of a part of the system is rolled out, and taken back, by requests to the system."""

    service: str
    """Whose instances are asked: the admin service, the one of the region that is hit."""
    path: str
    """`/releases/cpu`: GET tells `.version`, POST `{"version": …}` sets it."""
    version: str
    stable: str
    of: str = ""
    """The service whose instances run it; empty: the one that the release is named after."""


class DockerSpec(Struct, frozen=True):
    """What the docker section of a system file says besides its services."""

    build: str = ""
    """The folder with the Dockerfile; empty: no image of ours."""
    image: str = ""
    """The tag that is built, or the image that is used."""
    compose: str = ""
    """A compose file whose services are the system."""
    attach: dict[str, str] = {}
    """The opt-in: containers that carry these labels are the system, and nothing is started or stopped."""
    resolved: str = ""
    """SHA-256 of what the compose file comes to, with its environment; empty until it was planned."""


class ImagePolicy(Struct, frozen=True):
    """The image that what the suite itself runs in a cluster is made of: watchdog, load, proxy, neighbour."""

    name: str = ""
    """Empty: the platform's own."""
    pull: str = ""
    """IfNotPresent, Never, Always; empty: the cluster's default."""
    pull_secret: str = ""
    """Name of the Secret with which it is pulled, in the namespace of each pod; empty: none."""
    nodes: dict[str, str] = {}
    """Labels of the nodes that its pods may run on; empty: any."""


class KubernetesRelease(Struct, frozen=True):
    """Another version of a workload, as its template would be changed."""

    name: str
    service: str
    image: str = ""
    env: dict[str, str] = {}
    command: tuple[str, ...] = ()


class KubernetesSpec(Struct, frozen=True):
    """What the kubernetes section of a system file says besides its services."""

    namespace: str
    """Where its pods are; it must carry the opt-in label."""
    contexts: dict[str, str] = {}
    """Of the kubeconfig: value of the label `region` → context, for a system on several clusters; with the empty key
    alone: the one context. Empty: the current context, or the cluster that the runner is in."""
    suite: str = "stormdrill"
    """The suite's own namespace: ledger, Lease, watchdog, load."""
    account: str = "stormdrill"
    """The ServiceAccount there."""
    priority_class: str = ""
    """Of the watchdog's pod, so that no pod takes its place; empty: the cluster's default."""
    image: ImagePolicy = ImagePolicy()
    lease_s: float = 10.0
    node_labels: dict[str, str] = {}
    """Label of instances → label of the nodes they are on: region: topology.kubernetes.io/region."""
    stands_for: dict[str, str] = {}
    """A word that a cluster can't do → the one that is done for it: freeze: crash."""
    empties: Literal["taint", "evict", "delete"] = "taint"
    """How nodes are emptied: taint, evict, delete."""
    gpu_resource: str = "nvidia.com/gpu"
    gpu_plugin: str = ""
    """NAMESPACE/NAME of the DaemonSet that advertises them."""
    releases: tuple[KubernetesRelease, ...] = ()
    load_workers: int = 1
    """How many pods send the load."""


class MetricSource(Struct, frozen=True):
    """Where a metric's value comes from. Exactly one of `prometheus`, `promql`, `command` and `http` is not empty."""

    name: str
    service: str
    """Whose instances are asked, one reading each; empty for `promql` and `command`, which are asked once."""
    prometheus: str = ""
    """Sample name in the Prometheus text format."""
    path: str = "/metrics"
    labels: tuple[str, ...] = ()
    """Labels of the samples themselves that expressions may select by, besides the instances' labels."""
    promql: str = ""
    """Instant query to the system's Prometheus server."""
    command: tuple[str, ...] = ()
    """Argument vector; the last line of its output is the number."""
    http: str = ""
    """Path on the instances; `value` is the place of the number in the JSON answer, empty: 1 for 2xx, else 0."""
    value: str = ""
    unit: str = ""
    """s, ms, bytes, ratio or empty, where the name doesn't say it."""
    every_s: float = 1.0
    """How often it is read."""
    constants: dict[str, str] = {}
    """Labels that all of its samples have by what the metric is, without carrying them: `kind: report`."""


class AlertSource(Struct, frozen=True):
    name: str
    service: str
    """Empty where a server is asked."""
    prometheus: str = ""
    """Endpoint path whose ALERTS samples are read, without the leading slash."""
    labels: tuple[str, ...] = ()
    """Labels of the alert that expressions may select by, besides the instances' labels."""
    server: str = ""
    """prometheus (its /api/v1/alerts) or alertmanager (its /api/v2/alerts)."""


class Servers(Struct, frozen=True):
    """Servers that know of the system what its instances don't tell themselves."""

    prometheus: str = ""
    """Base URL."""
    alertmanager: str = ""
    prometheus_headers: dict[str, str] = {}
    """Sent with each request; a secret stands as its placeholder."""
    alertmanager_headers: dict[str, str] = {}


class Indicators(Struct, frozen=True):
    """What `success`, `p95`, `throughput` mean where the traffic is the system's own. Names of samples of `service`."""

    service: str
    path: str = "/metrics"
    good: str = ""
    """Counter of requests that were served well; with `total`."""
    total: str = ""
    """Counter of all requests."""
    histogram: str = ""
    """Histogram of latencies in seconds; its `_bucket` samples."""
    labels: tuple[str, ...] = ()
    """Labels of the samples that expressions may select by."""


class Traffic(Struct, frozen=True):
    """What the service is asked for in earnest, to say what a failure would cost of a month's error budget."""

    rate_per_s: float
    """Mean over the window."""
    window_s: float = 30 * 86400.0


class HopCounters(Struct, frozen=True):
    """Names of metrics that count what comes into a service and what it sends on."""

    service: str
    received: str
    sent: str


class Pressure(Struct, frozen=True):
    """Names of metrics in which backpressure checks look; empty: not known for this system."""

    depth: str = ""
    """Waiting work, a series an instance."""
    limit: str = ""
    """Of the depth, the same instances."""
    in_flight: str = ""
    """What the entry's instances say is inside of them: accepted and not answered."""
    memory: str = ""
    hops: tuple[HopCounters, ...] = ()
    """From the entry inwards."""
    breaker: str = ""
    """1 while a circuit breaker is open or half-open, by instance and label."""
    probes: str = ""
    """Counter of requests that were let through while the breaker was open or half-open."""
    hedges: str = ""
    """Counter of hedged requests; with the entry's `received`."""


class JobLedger(Struct, frozen=True):
    """Where every job the system knows can be asked for, to find what was lost or done twice."""

    service: str
    path: str


class Secret(Struct, frozen=True):
    """A value that is read when the run starts, never before, and that is written down nowhere."""

    name: str
    """The parameter's name; `${secret:NAME}` stands for the value, in the environment of instances and in the headers
    of servers only."""
    source: str
    """`env:NAME`, a variable of the runner's environment, or `file:PATH`, a file with one line."""

    @property
    def placeholder(self) -> str:
        return f"${{secret:{self.name}}}"


class System(Struct, frozen=True):
    name: str
    entry: str
    """The service where load enters, alternating over its instances."""
    instances: tuple[ServiceInstance, ...]
    labels: tuple[str, ...] = ()
    """Label names that experiments may select by."""
    admin: str = ""
    """The service whose first answering instance runbooks call; empty: none."""
    parameters: dict[str, Scalar] = {}
    dependencies: tuple[Dependency, ...] = ()
    metrics: tuple[MetricSource, ...] = ()
    alerts: tuple[AlertSource, ...] = ()
    served: MetricSource | None = None
    """A counter of requests served, by which exposure is shown for what is not an entry."""
    servers: Servers = Servers()
    indicators: Indicators | None = None
    traffic: Traffic | None = None
    pressure: Pressure = Pressure()
    jobs: JobLedger | None = None
    releases: dict[str, Release] = {}
    docker: DockerSpec | None = None
    kubernetes: KubernetesSpec | None = None
    target: str = "process"
    """Which section of the file the instances were read from."""
    capacity: dict[str, str] = {}
    stop_timeout_s: float = 3.0
    ready_timeout_s: float = 30.0
    secrets: tuple[Secret, ...] = ()
    """Those that the experiment declares too: what is removed by value from everything that the run writes."""
