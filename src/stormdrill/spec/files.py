"""The files as people author them: one model each, from which both the reader and the JSON Schema are made.

Values stay as written ("10s", "60/s", "success{tier=1} > 98%"); `stormdrill.spec` resolves them into the model.
No postponed annotations here: the reader looks at the types themselves.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

NAME = r"[a-z][a-z0-9]*(-[a-z0-9]+)*"
IDENTIFIER = r"[a-zA-Z_][a-zA-Z0-9_]*"


def _kind(kind: str, pattern: str, description: str, *examples: str) -> Meta:
    return Meta(pattern=pattern, description=description, examples=list(examples), extra={"kind": kind})


Text = Annotated[str, Meta(min_length=1, extra={"kind": "text"})]
Word = Annotated[
    str, _kind("word", f"^{NAME}$", "A name: lower-case letters, digits and single dashes.", "region-loss")
]
Identifier = Annotated[str, _kind("identifier", f"^{IDENTIFIER}$", "A name: letters, digits, underscores.", "region")]
Duration = Annotated[
    str,
    _kind(
        "duration",
        r"^\d+(\.\d+)?(ms|s|m|h|d)$",
        "A duration: a number and one of ms, s, m, h, d.",
        "10s",
        "250ms",
        "3m",
    ),
]
Rate = Annotated[
    str, _kind("rate", r"^\d+(\.\d+)?/(s|m|h)$", "Arrivals: a number, a slash and one of s, m, h.", "60/s", "90/m")
]
Share = Annotated[str, _kind("share", r"^\d+(\.\d+)?%$", "A share of the whole, in percent.", "50%")]
Size = Annotated[str, _kind("size", r"^\d+(\.\d+)?(KB|MB|GB)$", "A size: a number and one of KB, MB, GB.", "256MB")]
Speed = Annotated[
    str,
    _kind(
        "speed", r"^\d+(\.\d+)?(B|KB|MB|GB)/s$", "Bytes a second: a number and one of B/s, KB/s, MB/s, GB/s.", "4MB/s"
    ),
]
Expression = Annotated[
    str,
    Meta(
        min_length=1,
        description="metric{label=value} <op> value[unit] [within|for|after time] or alert(NAME) [within time].",
        examples=["success{tier=1} > 98%", "p95{tier=1} < 1.5 x baseline", "alert(RegionDown) within 10s"],
        extra={"kind": "expression"},
    ),
]

LabelValue = Annotated[str | int, Meta(description="A label's value.", extra={"kind": "label"})]
Argument = Annotated[str | int | float, Meta(description="One argument.", extra={"kind": "argument"})]
Windows = Annotated[
    str,
    Meta(
        pattern=r"^\s*(whole run|warmup|baseline|fault|recovery|failback)( after \d+(\.\d+)?(ms|s|m|h|d))?"
        r"(\s*,\s*(whole run|warmup|baseline|fault|recovery|failback)( after \d+(\.\d+)?(ms|s|m|h|d))?)*\s*$",
        description="Where the objectives are judged: phases, each from its start or from a time into it.",
        examples=["baseline, recovery", "fault after 10s", "whole run"],
        extra={"kind": "windows"},
    ),
]
Scalar = Annotated[
    str | int | float | bool | None, Meta(description="Text, a number, true, false or null.", extra={"kind": "scalar"})
]


class FileModel(Struct, frozen=True, forbid_unknown_fields=True):
    """A table of a file: every key is declared, anything else is refused."""


class ParameterFile(FileModel, frozen=True, kw_only=True):
    """A parameter with the values that it may take."""

    default: Scalar
    choices: Annotated[list[Scalar], Meta(min_length=1)] = []
    description: str = ""


class SecretFile(FileModel, frozen=True, kw_only=True):
    """A secret parameter: where its value comes from (env or file), never the value."""

    secret: bool
    env: Annotated[Identifier, Meta(description="A variable of stormdrill's own environment.")] | None = None
    file: Annotated[Text, Meta(description="A file with one line; relative to where stormdrill is started.")] | None = (
        None
    )
    description: str = ""


ParameterValue = Annotated[
    str | int | float | bool | list[Scalar] | ParameterFile | None,
    Meta(
        description="The default, which also gives the type; {default, choices}; or {secret: true, env: NAME}.",
        extra={"kind": "parameter"},
    ),
]
Parameters = Annotated[
    dict[Identifier, ParameterValue],
    Meta(description="Names for $name below, with their defaults; --set KEY=VALUE sets them."),
]


class PhasesFile(FileModel, frozen=True, kw_only=True):
    """How long each phase lasts."""

    warmup: Duration = "0s"
    baseline: Duration
    fault: Duration
    recovery: Duration
    failback: Duration = "0s"


class LoadFile(FileModel, frozen=True, kw_only=True):
    """The demand: a profile of loadgen/ and the mean rate that it is scaled to."""

    profile: Annotated[Word, Meta(description="A file of loadgen/, without its ending.", examples=["steady"])]
    rate: Rate


class FaultTimes(FileModel, frozen=True, kw_only=True):
    """What every fault understands besides its own parameters."""

    start: Annotated[Duration, Meta(description="When it is injected, since the fault phase began.")] = "0s"
    for_: Annotated[Duration, Meta(description="How long it lasts; until the phase ends when left out.")] | None = (
        field(name="for", default=None)
    )


class RunbookFile(FileModel, frozen=True, kw_only=True):
    """The runbook that is executed while the fault lasts."""

    run: Annotated[Word, Meta(description="A file of runbooks/, without its ending.")]
    start: Annotated[Expression, Meta(description="The alert or condition on which it starts.")]
    else_after: Annotated[
        Duration, Meta(description="It starts anyhow after this long in the fault phase; detection has failed then.")
    ]
    approve: Annotated[list[Word], Meta(description="Steps whose approval the experiment gives beforehand.")] = []


FaultEntry = Annotated[
    dict[str, Any], Meta(description="One fault: its word, and its parameters.", extra={"kind": "fault"})
]
Faults = Annotated[list[FaultEntry], Meta(min_length=1)]
Objectives = Annotated[dict[Windows, Annotated[list[Expression], Meta(min_length=1)]], Meta(min_length=1)]


class FastFile(FileModel, frozen=True, kw_only=True):
    """With --fast, each key here replaces the whole of the same key above."""

    load: LoadFile | None = None
    phases: PhasesFile | None = None
    faults: Faults | None = None
    objectives: Objectives | None = None
    guards: list[Expression] | None = None
    runbook: RunbookFile | None = None


class ExperimentFile(FileModel, frozen=True, kw_only=True):
    """One question to a running system: what is broken, under which load, and what must hold."""

    title: Annotated[Text, Meta(description="What the experiment shows, in one line.")]
    hypothesis: Annotated[Text, Meta(description="What is expected to hold, and why it matters.")]
    owner: Annotated[Text, Meta(description="The team that answers for it.")]
    system: Annotated[
        Word, Meta(description="A file of experiments/systems/, without its ending.", examples=["platform"])
    ]
    parameters: Parameters = {}
    load: LoadFile | None = None
    phases: PhasesFile
    faults: Annotated[Faults, Meta(description="What is broken.")]
    objectives: Annotated[Objectives, Meta(description="What must hold, by the window in which it is judged.")]
    guards: Annotated[
        list[Expression], Meta(description="What ends the run at once: a metric beyond a limit for a time.")
    ] = []
    runbook: RunbookFile | None = None
    catches: Annotated[
        list[Word], Meta(description="Values of the system's parameter bug with which this experiment must FAIL.")
    ] = []
    fast: FastFile | None = None


Labels = dict[Identifier, LabelValue]
Service = Annotated[Word, Meta(description="The service that is asked.", examples=["web"])]
Callers = Annotated[list[Word], Meta(min_length=1)]
Request = Annotated[
    str,
    _kind("request", r"^(GET|HEAD) /[^\s]*$", "A request whose answer shows that it is ready.", "GET /healthz"),
]
HttpPath = Annotated[str, _kind("path", r"^/[^\s]*$", "A path on the service, beginning with a slash.", "/metrics")]
Sample = Annotated[
    str, _kind("sample", r"^[a-zA-Z_:][a-zA-Z0-9_:]*$", "A sample's name in the Prometheus text format.", "queue_depth")
]
Port = Annotated[int, Meta(ge=1, le=65535, description="A fixed port; a free one is taken when left out.")]
Count = Annotated[int, Meta(ge=1, le=100)]
Cpus = Annotated[float, Meta(ge=0.01, le=1024, description="Cores that each container may use.")]
Memory = Annotated[
    Size, Meta(description="What it may use: a limit in containers, and told to it as an environment variable.")
]
Devices = Annotated[
    list[Word],
    Meta(description="Simulated devices: files devices/NAME in its STORMDRILL_DATA, which faults take away."),
]
DockerLabel = Annotated[
    str, _kind("docker label", r"^[A-Za-z0-9][A-Za-z0-9._/-]*$", "A container label's name.", "com.example.drill")
]
Wanted = Annotated[dict[DockerLabel, LabelValue], Meta(min_length=1)]
Each = Annotated[
    Identifier,
    Meta(description="A list parameter: one instance an item; its name without the s stands for the item."),
]


class ServiceFile(FileModel, frozen=True, kw_only=True):
    """One service: how an instance of it is started, how many there are, and how it shows that it is ready."""

    command: Annotated[
        Annotated[list[Argument], Meta(min_length=1)],
        Meta(description="An argument vector; $port is the instance's own port. No shell reads it."),
    ]
    instances: Annotated[Count, Meta(description="How many there are, or how many for each item of each.")] = 1
    each: Each | None = None
    labels: Annotated[Labels, Meta(description="What experiments select by.")] = {}
    env: Annotated[dict[Identifier, Argument], Meta(description="Environment variables.")] = {}
    ready: Request | None = None
    port: Port | None = None
    memory: Memory | None = None
    cpus: Cpus | None = None
    devices: Devices = []


class ProcessFile(FileModel, frozen=True, kw_only=True):
    """The system as local processes."""

    services: Annotated[dict[Word, ServiceFile], Meta(min_length=1)]
    ready_timeout: Annotated[
        Duration, Meta(description="How long the system may take until every instance answers.")
    ] = "30s"
    stop_timeout: Annotated[Duration, Meta(description="From SIGTERM to SIGKILL.")] = "3s"


class ContainerFile(FileModel, frozen=True, kw_only=True):
    """One service in containers: an image of its own, a service of the compose file, or containers that run already."""

    image: Annotated[Text, Meta(description="Its image; the section's own when left out.")] | None = None
    command: Annotated[
        list[Argument], Meta(description="An argument vector; $port is the port inside. The image's own when left out.")
    ] = []
    select: Annotated[Wanted, Meta(description="With attach: the labels of the service's containers.")] | None = None
    instances: Annotated[Count, Meta(description="How many there are, or how many for each item of each.")] = 1
    each: Each | None = None
    labels: Annotated[Labels, Meta(description="What experiments select by.")] = {}
    env: Annotated[dict[Identifier, Argument], Meta(description="Environment variables.")] = {}
    ready: Request | None = None
    port: Annotated[int, Meta(ge=1, le=65535, description="The port on which it listens inside.")] | None = None
    memory: Memory | None = None
    cpus: Cpus | None = None
    devices: Devices = []


class LimitsFile(FileModel, frozen=True, kw_only=True):
    """What each container may use, unless its service says otherwise."""

    memory: Memory | None = None
    cpus: Cpus | None = None


class DockerFile(FileModel, frozen=True, kw_only=True):
    """The system as containers: the processes' services in one image, images of their own, a compose file, or
    containers that run already."""

    image: Annotated[Text, Meta(description="The image of the services, and the name of what is built.")] | None = None
    build: Annotated[Text, Meta(description="The folder with the Dockerfile of the image.")] | None = None
    compose: Annotated[Text, Meta(description="A compose file whose services are the system.")] | None = None
    attach: (
        Annotated[
            Wanted, Meta(description="Labels that opt running containers in: nothing is started or stopped then.")
        ]
        | None
    ) = None
    services: Annotated[dict[Word, ContainerFile], Meta(description="The processes' services when left out.")] = {}
    limits: LimitsFile | None = None
    ready_timeout: (
        Annotated[Duration, Meta(description="How long the system may take until every instance answers.")] | None
    ) = None
    stop_timeout: Annotated[Duration, Meta(description="From SIGTERM to SIGKILL.")] | None = None


class DependencyFile(FileModel, frozen=True, kw_only=True):
    """A hop between services; it passes a proxy of ours."""

    from_: Callers = field(name="from")
    to: Annotated[Word, Meta(examples=["queue"])]
    lag: Annotated[HttpPath, Meta(description='Takes PUT {"seconds": N}: its data are that old then.')] | None = None


class ReleaseFile(FileModel, frozen=True, kw_only=True):
    """A part of the system that has versions, which a request to a service rolls out and takes back."""

    from_: Service = field(name="from")
    of: Annotated[Service, Meta(description="Whose instances run it; the service of its name when left out.")] = ""
    path: Annotated[HttpPath, Meta(description='GET tells .version, POST {"version": …} sets it.')]
    version: Annotated[LabelValue, Meta(description="The one that a fault rolls out.")]
    stable: Annotated[LabelValue, Meta(description="The one that is in use, and that the undo brings back.")]


class MetricFile(FileModel, frozen=True, kw_only=True):
    """A sample of a service's Prometheus text, one reading an instance."""

    prometheus: Sample
    from_: Service = field(name="from")
    path: HttpPath = "/metrics"
    labels: Annotated[
        list[Identifier], Meta(description="Labels of the samples themselves, besides the instances'.")
    ] = []


class ServedFile(FileModel, frozen=True, kw_only=True):
    """A counter of requests served: of one service, or of all that have it."""

    prometheus: Sample
    from_: Annotated[Word, Meta(description="Only of this service; of all that have it when left out.")] | None = field(
        name="from", default=None
    )
    path: HttpPath = "/metrics"
    labels: list[Identifier] = []


class AlertFile(FileModel, frozen=True, kw_only=True):
    """Where the alert is seen to fire: a path whose ALERTS samples are read."""

    prometheus: Annotated[
        str, _kind("sample path", r"^[a-zA-Z0-9_.-]+(/[a-zA-Z0-9_.-]+)*$", "A path without its first slash.", "alerts")
    ]
    from_: Service = field(name="from")
    labels: Annotated[list[Identifier], Meta(description="Labels of the alert itself, besides the instances'.")] = []


class JobsFile(FileModel, frozen=True, kw_only=True):
    """Where every job that the system knows can be asked for."""

    from_: Service = field(name="from")
    path: HttpPath


class SystemFile(FileModel, frozen=True, kw_only=True):
    """What is under test: what runs, how it is known to be ready, where load enters."""

    name: Annotated[Word, Meta(description="The name of the file, without its ending.", examples=["shop"])]
    entry: Annotated[
        Word, Meta(description="The service where load enters, alternating over its instances.", examples=["web"])
    ]
    admin: Annotated[Word, Meta(description="The service that runbooks call.")] | None = None
    parameters: Parameters = {}
    labels: Annotated[list[Identifier], Meta(description="Label names that experiments may select by.")] = []
    process: ProcessFile | None = None
    docker: DockerFile | None = None
    dependencies: Annotated[dict[Word, DependencyFile], Meta(description="Hops between services.")] = {}
    metrics: Annotated[
        dict[Identifier, MetricFile], Meta(description="What expressions may name besides the built-in metrics.")
    ] = {}
    served: (
        Annotated[
            ServedFile,
            Meta(description="A counter of requests served, which shows what was in use before it was harmed."),
        ]
        | None
    ) = None
    alerts: Annotated[dict[Identifier, AlertFile], Meta(description="What alert(NAME) may name.")] = {}
    jobs: JobsFile | None = None
    releases: Annotated[dict[Word, ReleaseFile], Meta(description="What has versions that can be rolled out.")] = {}
    capacity: Annotated[dict[Word, Argument], Meta(description="For people: what each pool can do.")] = {}


Target = Literal["process", "docker", "kubernetes"]
Times = Annotated[
    str,
    _kind(
        "window",
        r"^(mon|tue|wed|thu|fri|sat|sun)(-(mon|tue|wed|thu|fri|sat|sun))?"
        r" ([01]\d|2[0-3]):[0-5]\d-(([01]\d|2[0-3]):[0-5]\d|24:00) [A-Za-z0-9_+/-]+$",
        "Days, hours and a time zone.",
        "mon-fri 09:00-17:00 Europe/Berlin",
    ),
]
Dates = Annotated[
    str,
    _kind(
        "dates",
        r"^\d{4}-\d{2}-\d{2}/\d{4}-\d{2}-\d{2}$",
        "First and last day, both in it, in UTC.",
        "2026-12-20/2027-01-03",
    ),
]


class PolicyFile(FileModel, frozen=True, kw_only=True):
    """What is allowed here. Experiments may only tighten it."""

    faults: Annotated[list[Word], Meta(description="The faults that are allowed; all when empty.")] = []
    targets: Annotated[list[Target], Meta(min_length=1, description="Where experiments may run.")] = field(
        default_factory=lambda: ["process"]
    )
    max_share: Annotated[Share, Meta(description="Of all instances, hit at once by one experiment.")] = "50%"
    max_instances: Annotated[
        Annotated[int, Meta(ge=1, le=10_000)], Meta(description="Hit at once by one experiment.")
    ] = 20
    max_memory: Annotated[Size, Meta(description="Taken at once by one experiment's memory-leak.")] = "2GB"
    max_fault: Annotated[Duration, Meta(description="The longest fault phase.")] = "10m"
    max_rate: Annotated[Rate, Meta(description="The highest demand.")] = "500/s"
    windows: Annotated[list[Times], Meta(description="When runs are allowed; always when empty.")] = []
    freeze: Annotated[list[Dates], Meta(description="Days on which nothing runs.")] = []
    min_memory: Annotated[Size, Meta(description="With less than this available on this machine a run is aborted.")] = (
        "256MB"
    )
    min_disk: Annotated[Size, Meta(description="With less than this free a run is aborted.")] = "100MB"


class PieceFile(FileModel, frozen=True, kw_only=True):
    """From `at` on the rate moves in a straight line to the next piece's factor."""

    at: Duration
    factor: Annotated[float, Meta(ge=0, le=1000)]


class StreamFile(FileModel, frozen=True, kw_only=True):
    """One kind of request."""

    share: Annotated[Share, Meta(description="Of all arrivals; the shares add up to 100%.")]
    labels: Annotated[Labels, Meta(description="What objectives select requests by.")] = {}
    deadline: Annotated[Duration, Meta(description="An answer after this long is no success.")]
    parameters: Annotated[dict[Identifier, Scalar], Meta(description="Given to the user file with each arrival.")] = {}


class ProfileFile(FileModel, frozen=True, kw_only=True):
    """Demand as a function of time, and who asks for what."""

    description: Annotated[Text, Meta(description="What demand this is.")] = ""
    user: Annotated[str, _kind("module", r"^[a-z][a-z0-9_]*$", "A file in loadgen/ without its ending.", "platform")]
    arrivals: Annotated[Literal["constant", "poisson"], Meta(description="Evenly spaced, or as strangers arrive.")] = (
        "poisson"
    )
    shape: Annotated[list[PieceFile], Meta(description="The demand's course; the rate stays as asked when empty.")] = []
    streams: Annotated[dict[Word, StreamFile], Meta(min_length=1, description="Who asks for what.")]
