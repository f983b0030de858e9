"""The files as people author them: one model each, from which both the reader and the JSON Schema are made.

Values stay as written ("10s", "60/s", "success{tier=1} > 98%"); `stormdrill.spec` resolves them into the model.
A system's file is in `files_system`, demand in `files_load`.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, field

from stormdrill.spec.files_load import LoadFile
from stormdrill.spec.kinds import (
    Duration,
    Expression,
    FileModel,
    Parameters,
    Rate,
    Share,
    Size,
    Text,
    Windows,
    Word,
    kind,
)


class PhasesFile(FileModel, frozen=True, kw_only=True):
    """How long each phase lasts."""

    warmup: Duration = "0s"
    baseline: Duration
    fault: Duration
    recovery: Duration
    failback: Duration = "0s"


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
CheckEntry = Annotated[
    str | dict[str, Any],
    Meta(description="A check's word, a set of them, or a word with its thresholds.", extra={"kind": "check"}),
]
Checks = Annotated[list[CheckEntry], Meta(min_length=1)]
Objectives = Annotated[dict[Windows, Annotated[list[Expression], Meta(min_length=1)]], Meta(min_length=1)]


class FastFile(FileModel, frozen=True, kw_only=True):
    """With --fast, each key here replaces the whole of the same key above."""

    load: LoadFile | None = None
    phases: PhasesFile | None = None
    faults: Faults | None = None
    backpressure: Checks | None = None
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
    faults: (
        Annotated[Faults, Meta(description="What is broken; may be left out where the load is what harms.")] | None
    ) = None
    backpressure: (
        Annotated[Checks, Meta(description="What the system must do with more work than it can do.")] | None
    ) = None
    objectives: Annotated[Objectives, Meta(description="What must hold, by the window in which it is judged.")]
    guards: Annotated[
        list[Expression], Meta(description="What ends the run at once: a metric beyond a limit for a time.")
    ] = []
    runbook: RunbookFile | None = None
    catches: Annotated[
        list[Word], Meta(description="Values of the system's parameter bug with which this experiment must FAIL.")
    ] = []
    fast: FastFile | None = None


Target = Literal["process", "docker", "kubernetes"]
Times = Annotated[
    str,
    kind(
        "window",
        r"^(mon|tue|wed|thu|fri|sat|sun)(-(mon|tue|wed|thu|fri|sat|sun))?"
        r" ([01]\d|2[0-3]):[0-5]\d-(([01]\d|2[0-3]):[0-5]\d|24:00) [A-Za-z0-9_+/-]+$",
        "Days, hours and a time zone.",
        "mon-fri 09:00-17:00 Europe/Berlin",
    ),
]
Dates = Annotated[
    str,
    kind(
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
    max_nodes: Annotated[
        Annotated[int, Meta(ge=1, le=10_000)],
        Meta(description="Of a cluster, that lose pods, cores or devices at once."),
    ] = 5
    max_pods: Annotated[
        Annotated[int, Meta(ge=1, le=100_000)], Meta(description="Of a cluster, taken away at once.")
    ] = 50
    disruption_budgets: Annotated[
        Literal["respect", "ignore"],
        Meta(description="Whether more pods may go than the cluster's disruption budgets allow."),
    ] = "respect"
    max_memory: Annotated[Size, Meta(description="Taken at once by one experiment's memory-leak.")] = "2GB"
    max_fault: Annotated[Duration, Meta(description="The longest fault phase.")] = "10m"
    max_rate: Annotated[Rate, Meta(description="The highest demand.")] = "500/s"
    windows: Annotated[list[Times], Meta(description="When runs are allowed; always when empty.")] = []
    freeze: Annotated[list[Dates], Meta(description="Days on which nothing runs.")] = []
    min_memory: Annotated[Size, Meta(description="With less than this available on this machine a run is aborted.")] = (
        "256MB"
    )
    min_disk: Annotated[Size, Meta(description="With less than this free a run is aborted.")] = "100MB"
