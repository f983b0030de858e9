"""How an injection does its harm, as data: the words between faults, which plan, and targets, which act.

A fault picks a word and its numbers; each target says which words it can do, by which means, and what undoes them.
A new word here needs an implementation in at least one target (`ports.Mechanism`) and a line in
`docs/reference/mechanisms.md`.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

ToxicKind = Literal["delay", "stall", "trickle", "squeeze", "reset", "refuse", "cut"]
DeviceState = Literal["lost", "slow", "hang", "cold"]


class Toxic(Struct, frozen=True, tag="toxic"):
    """On hops that pass a proxy of ours: what happens to their bytes (see docs/reference/proxy.md)."""

    hops: tuple[str, ...]
    """`edge-1>gateway-eu`"""
    kind: ToxicKind
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    distribution: Literal["uniform", "normal", "pareto"] = "uniform"
    bytes_per_s: float = 0.0
    direction: Literal["both", "up", "down"] = "both"
    service: str = ""
    """In a cluster: NAMESPACE/NAME of the Service that all these hops lead to, whoever calls."""
    cluster: str = ""


class Sever(Struct, frozen=True, tag="sever"):
    """Packets between the instance and its peers vanish, below any proxy. No peers: it is cut from everybody."""

    peers: tuple[str, ...] = ()
    direction: Literal["both", "up", "down"] = "both"
    users: bool = False
    """From whoever reaches it from outside the system, too: through its published port, past every proxy."""


class Pressure(Struct, frozen=True, tag="pressure"):
    """Memory is taken at a steady slope up to a ceiling, and kept until the revert."""

    mb_per_s: float
    ceiling_mb: float
    victim: Literal["app", "neighbour"] = "neighbour"
    """Whom the kernel is to kill first when the limit is reached: the application, or the allocator beside it."""


class CpuLimit(Struct, frozen=True, tag="cpu-limit"):
    cpus: float
    """Of one core's time."""


class Device(Struct, frozen=True, tag="device"):
    device: str
    """Its name in the instance's `devices:`, gpu0."""
    state: DeviceState


class Tell(Struct, frozen=True, tag="tell"):
    """One request to the system itself, declared in its file, and the request that takes it back."""

    service: str
    method: str
    path: str
    body: str
    undo_method: str
    undo_path: str
    undo_body: str
    look_path: str
    """GET on it shows whether it is in force: `look` is then found in the answer."""
    look: str
    """`.version == leaky`: a dotted path into the JSON answer, and the value that means: in force."""
    reaches: tuple[str, ...] = ()
    """The instances that a release changes; empty: whoever is told is all that is known to change."""
    means: str = ""
    """What they are then, in people's words: on another release."""


class Beside(Struct, frozen=True, tag="beside"):
    """A program of ours (`stormdrill.beside`) that runs beside the instance until the revert."""

    program: Literal["burn", "flood"]
    arguments: tuple[str, ...]
    """`$entry` stands for the base URLs where load enters, separated by commas."""
    reaches: tuple[str, ...] = ()
    """Of `flood`: the instances that it enters by."""
    request: str = ""
    """Of `flood`, in people's words: POST /jobs (kind batch, tier 3)."""
    rate_per_s: float = 0.0
    """Of `flood`."""
    cores: int = 0
    """Of `burn`."""
    nodes: tuple[str, ...] = ()
    """Of `burn` in a cluster: where it would stand when it was planned."""
    others: tuple[str, ...] = ()
    """The same: other namespaces whose pods are there and have less."""
    cluster: str = ""


class Nodes(Struct, frozen=True, tag="nodes"):
    """Nodes of a cluster are taken out of service: cordoned, and emptied."""

    nodes: tuple[str, ...]
    empties: Literal["taint", "evict", "delete"]
    """By an own NoExecute taint (at once, past disruption budgets), by evictions (within them), or by deleting the pods
    without grace (as when the machine is lost)."""
    reaches: tuple[str, ...] = ()
    """The instances on them."""
    cluster: str = ""
    pods: int = 0
    """How many pods go from them; those of DaemonSets stay."""
    budgets: tuple[str, ...] = ()
    """Disruption budgets (NAMESPACE/NAME) that allow fewer to be missing than go from all nodes of the plan."""
    others: tuple[str, ...] = ()
    """Other namespaces than the system's whose pods go, too."""


class Scale(Struct, frozen=True, tag="scale"):
    """Some of a workload's pods are taken away, and don't come back before the revert."""

    workload: str
    """deployments/cpu-eu or statefulsets/…"""
    namespace: str
    away: int
    """How many; which ones is its controller's choice unless it is all of them."""
    reaches: tuple[str, ...] = ()
    cluster: str = ""


class Isolate(Struct, frozen=True, tag="isolate"):
    """NetworkPolicies cut pods off from all but each other, as far as the cluster enforces them."""

    namespace: str
    select: dict[str, str]
    """Labels of the pods that are cut off."""
    among: tuple[dict[str, str], ...] = ()
    """Labels of those whom they still hear and reach, in the same namespace; empty: nobody."""
    reaches: tuple[str, ...] = ()
    cluster: str = ""
    workload: str = ""
    """deployments/cpu-eu: whose pods they are; another's with the same labels are nobody's to cut off."""


class Rollout(Struct, frozen=True, tag="rollout"):
    """Another version of a workload is rolled out, by a change of its template."""

    workload: str
    namespace: str
    container: str
    """Empty: the first one."""
    image: str = ""
    """Instead of its own; `$run` stands for the run's id."""
    env: dict[str, str] = {}
    """Set beside its own."""
    command: tuple[str, ...] = ()
    """Instead of its own."""
    unready: bool = False
    """Its pods never get ready: a readiness gate that nobody opens is added to them."""
    broken: bool = False
    """It is meant never to work, so that a pod of it that gets ready is no bite."""
    reaches: tuple[str, ...] = ()
    cluster: str = ""


class Capacity(Struct, frozen=True, tag="capacity"):
    """Nodes advertise nothing of a resource any more; pods that have some keep it."""

    nodes: tuple[str, ...]
    resource: str
    """nvidia.com/gpu"""
    plugin: str = ""
    """NAMESPACE/NAME of the DaemonSet that advertises it and is moved away; empty: the number itself is set to 0."""
    reaches: tuple[str, ...] = ()
    cluster: str = ""
    others: tuple[str, ...] = ()
    """Other namespaces whose pods have some of it there, or are the plugin's."""


class Quota(Struct, frozen=True, tag="quota"):
    """A namespace may have no more than it has: new pods are refused, those that run go on."""

    namespace: str
    hard: dict[str, str] = {}
    """What is limited, and to how much; empty values: to what is used now. {"pods": ""}"""
    reaches: tuple[str, ...] = ()
    cluster: str = ""


BLOCKED = "segmentation_blocked"
"""What trying a segment reads: 1 where every try was blocked, 0 where one got through."""


class Segment(Struct, frozen=True, tag="segment"):
    """Traffic that policy forbids is tried, and has to be blocked. It harms nobody."""

    namespace: str
    source: dict[str, str]
    """Labels of the pods that it is tried from."""
    to: str
    """HOST:PORT, as they would write it."""
    allowed: str = ""
    """HOST:PORT that they may reach: it shows that the tries are real. Empty: the API server, as pods know it."""
    reaches: tuple[str, ...] = ()
    cluster: str = ""


How = (
    Toxic
    | Sever
    | Pressure
    | CpuLimit
    | Device
    | Tell
    | Beside
    | Nodes
    | Scale
    | Isolate
    | Rollout
    | Capacity
    | Quota
    | Segment
)
"""freeze and crash need no data."""
