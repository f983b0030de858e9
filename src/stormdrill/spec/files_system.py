"""A system's file as people author it; as in `files`, values stay as written."""

from typing import Annotated

from msgspec import Meta, field

from stormdrill.spec.files_kubernetes import KubernetesFile
from stormdrill.spec.files_sources import (
    AlertFile,
    HttpPath,
    IndicatorsFile,
    MetricFile,
    PressureFile,
    ServedFile,
    ServersFile,
    Service,
    TrafficFile,
)
from stormdrill.spec.kinds import (
    Argument,
    Devices,
    Duration,
    Each,
    FileModel,
    Identifier,
    Labels,
    LabelValue,
    Parameters,
    Request,
    Size,
    Text,
    Word,
    kind,
)

Callers = Annotated[list[Word], Meta(min_length=1)]
Port = Annotated[int, Meta(ge=1, le=65535, description="A fixed port; a free one is taken when left out.")]
Count = Annotated[int, Meta(ge=1, le=100)]
Cpus = Annotated[float, Meta(ge=0.01, le=1024, description="Cores that each container may use.")]
Memory = Annotated[
    Size, Meta(description="What it may use: a limit in containers, and told to it as an environment variable.")
]
DockerLabel = Annotated[
    str, kind("docker label", r"^[A-Za-z0-9][A-Za-z0-9._/-]*$", "A container label's name.", "com.example.drill")
]
Wanted = Annotated[dict[DockerLabel, LabelValue], Meta(min_length=1)]


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
    kubernetes: KubernetesFile | None = None
    dependencies: Annotated[dict[Word, DependencyFile], Meta(description="Hops between services.")] = {}
    servers: ServersFile | None = None
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
    indicators: IndicatorsFile | None = None
    traffic: TrafficFile | None = None
    backpressure: PressureFile | None = None
    jobs: JobsFile | None = None
    releases: Annotated[dict[Word, ReleaseFile], Meta(description="What has versions that can be rolled out.")] = {}
    capacity: Annotated[dict[Word, Argument], Meta(description="For people: what each pool can do.")] = {}
