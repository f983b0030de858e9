"""The few fields that planning reads of a cluster's objects, decoded at once and nothing else kept."""

from __future__ import annotations

from msgspec import Struct, field

from stormdrill.cluster.confined import NOWHERE

KEEPS_AWAY = ("NoSchedule", "NoExecute")
"""Effects of taints."""
CONTROL_PLANE = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")


class Owner(Struct, frozen=True, gc=False):
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False


class Meta(Struct, frozen=True, rename="camel", gc=False):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] = {}
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None
    owner_references: tuple[Owner, ...] = ()


class Amounts(Struct, frozen=True, gc=False):
    requests: dict[str, str] = {}
    limits: dict[str, str] = {}


class Container(Struct, frozen=True, gc=False):
    name: str = ""
    resources: Amounts = Amounts()


class Toleration(Struct, frozen=True, rename="camel", gc=False):
    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""
    """Empty: every effect."""
    toleration_seconds: int | None = None


class Requirement(Struct, frozen=True, gc=False):
    key: str = ""
    operator: str = ""
    values: tuple[str, ...] = ()


class Term(Struct, frozen=True, rename="camel", gc=False):
    match_expressions: tuple[Requirement, ...] = ()
    match_fields: tuple[Requirement, ...] = ()

    def meets(self, node: Node) -> bool:
        fields = {"metadata.name": node.name}
        labelled = all(fits(one, node.metadata.labels) for one in self.match_expressions)
        return labelled and all(fits(one, fields) for one in self.match_fields)


class Terms(Struct, frozen=True, rename="camel", gc=False):
    node_selector_terms: tuple[Term, ...] = ()


class NodeAffinity(Struct, frozen=True, gc=False):
    required: Terms | None = field(name="requiredDuringSchedulingIgnoredDuringExecution", default=None)


class Affinity(Struct, frozen=True, rename="camel", gc=False):
    node_affinity: NodeAffinity | None = None


class PodSpec(Struct, frozen=True, rename="camel", gc=False):
    node_name: str = ""
    node_selector: dict[str, str] = {}
    tolerations: tuple[Toleration, ...] = ()
    affinity: Affinity | None = None
    containers: tuple[Container, ...] = ()


class PodStatus(Struct, frozen=True, gc=False):
    phase: str = ""
    ip: str = field(name="podIP", default="")


class Pod(Struct, frozen=True, gc=False):
    metadata: Meta = Meta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def controller(self) -> Owner | None:
        return next((one for one in self.metadata.owner_references if one.controller), None)


class Taint(Struct, frozen=True, gc=False):
    key: str = ""
    effect: str = ""
    value: str = ""


class NodeSpec(Struct, frozen=True, gc=False):
    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()


class Condition(Struct, frozen=True, gc=False):
    type: str = ""
    status: str = ""


class Endpoint(Struct, frozen=True, gc=False):
    port: int | None = field(name="Port", default=None)


class Endpoints(Struct, frozen=True, rename="camel", gc=False):
    kubelet_endpoint: Endpoint = Endpoint()


class NodeStatus(Struct, frozen=True, rename="camel", gc=False):
    allocatable: dict[str, str] = {}
    conditions: tuple[Condition, ...] = ()
    daemon_endpoints: Endpoints = Endpoints()


class Node(Struct, frozen=True, gc=False):
    metadata: Meta = Meta()
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def controls(self) -> bool:
        """Whether the cluster itself is run from it."""
        keys = {*self.metadata.labels, *(taint.key for taint in self.spec.taints)}
        return any(role in keys for role in CONTROL_PLANE)

    @property
    def ready(self) -> bool:
        told = [one.status for one in self.status.conditions if one.type == "Ready"]
        return not told or told[0] == "True"

    @property
    def simulated(self) -> bool:
        """Whether it says that no kubelet listens there: its pods are told to run, and nothing of them does."""
        return self.status.daemon_endpoints.kubelet_endpoint.port == 0

    @property
    def foreign(self) -> bool:
        """Whether no pod of ours begins there whatever it tolerates."""
        return any(self.metadata.labels.get(key) == value for key, value in NOWHERE.items())

    @property
    def shunned(self) -> bool:
        return any(taint.effect in KEEPS_AWAY for taint in self.spec.taints)


class Namespace(Struct, frozen=True, gc=False):
    metadata: Meta = Meta()


class LabelSelector(Struct, frozen=True, rename="camel", gc=False):
    match_labels: dict[str, str] = {}
    match_expressions: tuple[Requirement, ...] = ()

    def selects(self, labels: dict[str, str]) -> bool:
        return self.match_labels.items() <= labels.items() and all(fits(one, labels) for one in self.match_expressions)


class BudgetSpec(Struct, frozen=True, gc=False):
    selector: LabelSelector | None = None


class BudgetStatus(Struct, frozen=True, rename="camel", gc=False):
    disruptions_allowed: int = 0


class Budget(Struct, frozen=True, gc=False):
    metadata: Meta = Meta()
    spec: BudgetSpec = BudgetSpec()
    status: BudgetStatus = BudgetStatus()

    def covers(self, pod: Pod) -> bool:
        if self.spec.selector is None or self.metadata.namespace != pod.metadata.namespace:
            return False
        return self.spec.selector.selects(pod.metadata.labels)


class Annotated(Meta, frozen=True, rename="camel", gc=False):
    annotations: dict[str, str] = {}


class TemplateSpec(Struct, frozen=True, gc=False):
    spec: PodSpec = PodSpec()


class WorkloadSpec(Struct, frozen=True, gc=False):
    replicas: int = 1
    selector: LabelSelector = LabelSelector()
    template: TemplateSpec = TemplateSpec()


class Controller(Struct, frozen=True, gc=False):
    """A Deployment or a StatefulSet."""

    metadata: Annotated = Annotated()
    spec: WorkloadSpec = WorkloadSpec()


class Port(Struct, frozen=True, rename="camel", gc=False):
    port: int = 0
    target_port: int | str = 0
    protocol: str = "TCP"


class ServiceSpec(Struct, frozen=True, gc=False):
    selector: dict[str, str] = {}
    cluster_ip: str = field(name="clusterIP", default="")
    ports: tuple[Port, ...] = ()


class Service(Struct, frozen=True, gc=False):
    metadata: Meta = Meta()
    spec: ServiceSpec = ServiceSpec()


def fits(one: Requirement, labels: dict[str, str]) -> bool:
    """Whether labels meet one requirement, as selectors and node affinities have it."""
    there = labels.get(one.key)
    if one.operator == "In":
        return there in one.values
    if one.operator == "NotIn":
        return there not in one.values
    if one.operator == "Exists":
        return there is not None
    if one.operator == "DoesNotExist":
        return there is None
    if there is None or not one.values or not (there.isdigit() and one.values[0].isdigit()):
        return False
    return int(there) > int(one.values[0]) if one.operator == "Gt" else int(there) < int(one.values[0])
