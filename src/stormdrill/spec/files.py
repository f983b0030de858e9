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
        "250ms",
        "10s",
        "3m",
    ),
]
Rate = Annotated[
    str, _kind("rate", r"^\d+(\.\d+)?/(s|m|h)$", "Arrivals: a number, a slash and one of s, m, h.", "60/s", "90/m")
]
Share = Annotated[str, _kind("share", r"^\d+(\.\d+)?%$", "A share of the whole, in percent.", "50%")]
Size = Annotated[str, _kind("size", r"^\d+(\.\d+)?(KB|MB|GB)$", "A size: a number and one of KB, MB, GB.", "256MB")]
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


ParameterValue = Annotated[
    str | int | float | bool | list[Scalar] | ParameterFile | None,
    Meta(description="The default, which also gives the type; or {default, choices}.", extra={"kind": "parameter"}),
]
Parameters = dict[Identifier, ParameterValue]


class PhasesFile(FileModel, frozen=True, kw_only=True):
    """How long each phase lasts."""

    warmup: Duration = "0s"
    baseline: Duration
    fault: Duration
    recovery: Duration
    failback: Duration = "0s"


class LoadFile(FileModel, frozen=True, kw_only=True):
    """The demand: a profile of loadgen/ and the mean rate that it is scaled to."""

    profile: Word
    rate: Rate


class FaultTimes(FileModel, frozen=True, kw_only=True):
    """What every fault understands besides its own parameters."""

    start: Annotated[Duration, Meta(description="When it is injected, since the fault phase began.")] = "0s"
    for_: Annotated[Duration, Meta(description="How long it lasts; until the phase ends when left out.")] | None = (
        field(name="for", default=None)
    )


class RunbookFile(FileModel, frozen=True, kw_only=True):
    """The runbook that is executed while the fault lasts."""

    run: Word
    start: Expression
    else_after: Duration
    approve: list[Word] = []


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

    title: Text
    hypothesis: Text
    owner: Text
    system: Word
    parameters: Parameters = {}
    load: LoadFile | None = None
    phases: PhasesFile
    faults: Faults
    objectives: Objectives
    guards: list[Expression] = []
    runbook: RunbookFile | None = None
    fast: FastFile | None = None


Labels = dict[Identifier, LabelValue]
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


class ServiceFile(FileModel, frozen=True, kw_only=True):
    """One service: how an instance of it is started, how many there are, and how it shows that it is ready."""

    command: Annotated[list[Argument], Meta(min_length=1)]
    instances: Annotated[int, Meta(ge=1, le=100)] = 1
    each: Identifier | None = None
    labels: Labels = {}
    env: dict[Identifier, Argument] = {}
    ready: Request | None = None
    port: Port | None = None


class ProcessFile(FileModel, frozen=True, kw_only=True):
    """The system as local processes."""

    services: Annotated[dict[Word, ServiceFile], Meta(min_length=1)]
    ready_timeout: Duration = "30s"
    stop_timeout: Duration = "3s"


class DependencyFile(FileModel, frozen=True, kw_only=True):
    """A hop between services; it passes a proxy of ours."""

    from_: Callers = field(name="from")
    to: Word


class MetricFile(FileModel, frozen=True, kw_only=True):
    """A sample of a service's Prometheus text, one reading an instance."""

    prometheus: Sample
    from_: Word = field(name="from")
    path: HttpPath = "/metrics"
    labels: list[Identifier] = []


class AlertFile(FileModel, frozen=True, kw_only=True):
    """Where the alert is seen to fire: a path whose ALERTS samples are read."""

    prometheus: Annotated[
        str, _kind("sample path", r"^[a-zA-Z0-9_.-]+(/[a-zA-Z0-9_.-]+)*$", "A path without its first slash.", "alerts")
    ]
    from_: Word = field(name="from")
    labels: list[Identifier] = []


class JobsFile(FileModel, frozen=True, kw_only=True):
    """Where every job that the system knows can be asked for."""

    from_: Word = field(name="from")
    path: HttpPath


class SystemFile(FileModel, frozen=True, kw_only=True):
    """What is under test: what runs, how it is known to be ready, where load enters."""

    name: Word
    entry: Word
    admin: Word | None = None
    parameters: Parameters = {}
    labels: list[Identifier] = []
    process: ProcessFile
    dependencies: dict[Word, DependencyFile] = {}
    metrics: dict[Identifier, MetricFile] = {}
    served: MetricFile | None = None
    alerts: dict[Identifier, AlertFile] = {}
    jobs: JobsFile | None = None
    capacity: dict[Word, Argument] = {}


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

    faults: list[Word] = []
    targets: Annotated[list[Target], Meta(min_length=1)] = field(default_factory=lambda: ["process"])
    max_share: Share = "50%"
    max_instances: Annotated[int, Meta(ge=1, le=10_000)] = 20
    max_fault: Duration = "10m"
    max_rate: Rate = "500/s"
    windows: list[Times] = []
    freeze: list[Dates] = []
    min_memory: Size = "256MB"
    min_disk: Size = "100MB"


class PieceFile(FileModel, frozen=True, kw_only=True):
    """From `at` on the rate moves in a straight line to the next piece's factor."""

    at: Duration
    factor: Annotated[float, Meta(ge=0, le=1000)]


class StreamFile(FileModel, frozen=True, kw_only=True):
    """One kind of request."""

    share: Share
    labels: Labels = {}
    deadline: Duration
    parameters: dict[Identifier, Scalar] = {}


class ProfileFile(FileModel, frozen=True, kw_only=True):
    """Demand as a function of time, and who asks for what."""

    description: Text = ""
    user: Annotated[str, _kind("module", r"^[a-z][a-z0-9_]*$", "A file in loadgen/ without its ending.", "platform")]
    arrivals: Literal["constant", "poisson"] = "poisson"
    shape: list[PieceFile] = []
    streams: Annotated[dict[Word, StreamFile], Meta(min_length=1)]
