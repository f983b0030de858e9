"""The kubernetes section of a system file as people author it; as in `files`, values stay as written."""

from typing import Annotated, Literal

from msgspec import Meta

from stormdrill.spec.kinds import (
    Argument,
    Devices,
    Duration,
    Each,
    FileModel,
    Identifier,
    Labels,
    LabelValue,
    Request,
    Text,
    Word,
    kind,
)

ClusterName = Annotated[
    str,
    kind("cluster name", r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", "A name in the cluster.", "shop"),
]
ClusterLabel = Annotated[
    str,
    kind(
        "cluster label",
        r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$",
        "The name of a label in the cluster.",
        "topology.kubernetes.io/region",
    ),
]
DaemonSet = Annotated[
    str,
    kind(
        "daemonset",
        r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        "A DaemonSet: its namespace, a slash, its name.",
        "kube-system/nvidia-device-plugin",
    ),
]
LeaseTime = Annotated[
    Duration,
    Meta(
        description="Without a sign of the runner for so long, what it did is reverted.",
        extra={"least": "4s", "most": "2m"},
    ),
]
PodPort = Annotated[int, Meta(ge=1, le=65535, description="The port on which it listens.")]
Selector = Annotated[dict[ClusterLabel, LabelValue], Meta(min_length=1)]
Contexts = Annotated[
    Text | dict[Word, Text],
    Meta(description="Of the kubeconfig: one, or one for each value of the label region. The current one if left out."),
]


class PodFile(FileModel, frozen=True, kw_only=True):
    """One service in the cluster: by which labels its pods are known, and where they answer."""

    select: (
        Annotated[Selector, Meta(description="The labels of its pods; app: NAME and each's item when left out.")] | None
    ) = None
    each: Each | None = None
    labels: Annotated[Labels, Meta(description="What experiments select by, besides what pods and nodes carry.")] = {}
    ready: Request | None = None
    port: PodPort | None = None
    devices: Devices = []


class ClusterImageFile(FileModel, frozen=True, kw_only=True):
    """What the suite itself runs in the cluster is made of this image."""

    name: Annotated[Text, Meta(description="The image.", examples=["registry.example/stormdrill:1"])]
    pull: Annotated[
        Literal["IfNotPresent", "Never", "Always"] | None, Meta(description="The cluster's default when left out.")
    ] = None
    pull_secret: (
        Annotated[
            ClusterName, Meta(description="The Secret to pull it with, in the suite's namespace and the system's.")
        ]
        | None
    ) = None


class GpuFile(FileModel, frozen=True, kw_only=True):
    """How nodes advertise GPUs."""

    resource: Annotated[ClusterLabel, Meta(description="Its name.", examples=["nvidia.com/gpu"])] = "nvidia.com/gpu"
    plugin: Annotated[DaemonSet, Meta(description="The DaemonSet that advertises them.")] | None = None


class StandsForFile(FileModel, frozen=True, kw_only=True):
    """What is done for what a cluster can't do."""

    freeze: Annotated[Literal["crash"], Meta(description="A pod can't be frozen; it can be taken away.")] | None = None
    devices: (
        Annotated[Literal["crash"], Meta(description="Devices stay with pods that have them; these can be taken away.")]
        | None
    ) = None
    slow: (
        Annotated[Literal["crash"], Meta(description="One caller of a Service can't be slowed; it can be taken away.")]
        | None
    ) = None


class ClusterReleaseFile(FileModel, frozen=True, kw_only=True):
    """Another version of a service, as the template of its workload would be changed."""

    of: Annotated[Word, Meta(description="The service; the one of its name when left out.")] = ""
    image: Annotated[Text, Meta(description="Instead of its own.")] | None = None
    env: Annotated[dict[Identifier, Argument], Meta(description="Set beside its own.")] = {}
    command: Annotated[list[Argument], Meta(description="Instead of its own.")] = []


class ClusterLoadFile(FileModel, frozen=True, kw_only=True):
    """Who sends the load."""

    workers: Annotated[Annotated[int, Meta(ge=1, le=64)], Meta(description="How many pods.")] = 1


class KubernetesFile(FileModel, frozen=True, kw_only=True):
    """The system as it runs in a cluster: found, never started; its namespace has to carry the opt-in label."""

    namespace: Annotated[ClusterName, Meta(description="Where its pods are.", examples=["shop"])]
    contexts: Contexts | None = None
    suite: Annotated[ClusterName, Meta(description="The suite's own namespace.")] = "stormdrill"
    account: Annotated[ClusterName, Meta(description="The ServiceAccount there.")] = "stormdrill"
    priority_class: (
        Annotated[
            ClusterName, Meta(description="The PriorityClass of the watchdog's pod. The cluster's default if left out.")
        ]
        | None
    ) = None
    image: ClusterImageFile | None = None
    nodes: Annotated[
        dict[ClusterLabel, LabelValue],
        Meta(description="Labels of the nodes that the suite's own pods (watchdog, load, proxy) may run on."),
    ] = {}
    lease: LeaseTime = "10s"
    port: Annotated[PodPort, Meta(description="Where pods listen, unless their service says otherwise.")] | None = None
    node_labels: Annotated[
        dict[Identifier, ClusterLabel], Meta(description="Labels of instances that the nodes they are on carry.")
    ] = {}
    stands_for: StandsForFile | None = None
    empties: Annotated[
        Literal["taint", "evict", "delete"],
        Meta(
            description="How nodes are emptied: by a taint (at once, past disruption budgets), by evictions (within "
            "them), or by deleting the pods (as when the machine is lost)."
        ),
    ] = "taint"
    gpu: GpuFile | None = None
    services: Annotated[
        dict[Word, PodFile], Meta(description="Those of process when left out; each takes from there what it lacks.")
    ] = {}
    releases: Annotated[dict[Word, ClusterReleaseFile], Meta(description="What can be rolled out.")] = {}
    load: ClusterLoadFile | None = None
    ready_timeout: Annotated[Duration, Meta(description="How long pods may take until they are ready again.")] = "60s"
