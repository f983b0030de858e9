"""The kubernetes section of a system file: what it shares with the processes, and what doesn't go together."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from stormdrill.model.system import ImagePolicy, KubernetesRelease, KubernetesSpec, ServiceInstance
from stormdrill.spec.files_kubernetes import ClusterReleaseFile, KubernetesFile
from stormdrill.spec.files_system import SystemFile
from stormdrill.spec.scalars import instead, seconds
from stormdrill.spec.yaml import Document, Node, Place, Scalar, Table

SECTION = "kubernetes"
SHARED = ("each", "labels", "ready", "devices")
"""What a service takes from the processes' one of its name where it doesn't say it itself."""
OF_PROCESSES = "node"
"""The label that says on which machine processes pretend to be: pods are on nodes that have names of their own."""
PROTECTED = "kube-"
APP = "app"
WORDS = ("freeze", "devices", "slow")
"""What something else may stand for in a cluster."""
REGION = "region"


def share_services(document: Document) -> None:
    """Gives each service of the section what it shares, and the section the processes' services if it has none."""
    section, others = document.node(SECTION), document.node("process", "services")
    if not isinstance(section, Table):
        return
    written = section.get("services")
    if written is not None and not isinstance(written, Table):
        return
    theirs = others.entries if isinstance(others, Table) else {}
    mine = written.entries if written else {}
    shared = Table(written.place if written else section.place)
    shared.broken = bool(written and written.broken)
    for name, (key, node) in (mine or theirs).items():
        own = node if name in mine else Table(node.place)
        shared.entries[name] = (key, _with_shared(name, own, theirs[name][1] if name in theirs else None))
    if mine or theirs:
        at = section.entries["services"][0] if written else _text(section.place, "services")
        section.entries["services"] = (at, shared)


def _with_shared(name: str, node: Node, other: Node | None) -> Node:
    if not isinstance(node, Table):
        return node
    made = Table(node.place)
    made.broken = node.broken
    made.entries = dict(node.entries)
    if isinstance(other, Table):
        made.broken |= other.broken
        for key in SHARED:
            if key in other.entries and key not in made.entries:
                at, value = other.entries[key]
                made.entries[key] = (at, _of_pods(value) if key == "labels" else value)
    if "select" not in made.entries:
        made.entries["select"] = (_text(node.place, "select"), _known_by(name, made))
    return made


def _known_by(name: str, service: Table) -> Table:
    """The labels by which its pods are known where none are written: app, and each's item."""
    select = Table(service.place)
    select.entries[APP] = (_text(service.place, APP), _text(service.place, name))
    each = service.get("each")
    if isinstance(each, Scalar) and each.text.endswith("s"):
        item = each.text[:-1]
        select.entries[item] = (_text(service.place, item), _text(service.place, f"${item}"))
    return select


def _text(place: Place, text: str) -> Scalar:
    return Scalar(place, text, plain=False, single=False)


def _of_pods(labels: Node) -> Node:
    if not isinstance(labels, Table) or OF_PROCESSES not in labels.entries:
        return labels
    made = Table(labels.place)
    made.broken = labels.broken
    made.entries = {name: entry for name, entry in labels.entries.items() if name != OF_PROCESSES}
    return made


def kubernetes_spec(file: SystemFile) -> KubernetesSpec | None:
    section = file.kubernetes
    if section is None:
        return None
    contexts = section.contexts or {}
    image, gpu, stands = section.image, section.gpu, section.stands_for
    return KubernetesSpec(
        namespace=section.namespace,
        contexts={"": contexts} if isinstance(contexts, str) else dict(contexts),
        suite=section.suite,
        account=section.account,
        priority_class=section.priority_class or "",
        image=ImagePolicy(
            image.name if image else "",
            (image.pull if image else None) or "",
            (image.pull_secret if image else None) or "",
            {key: str(value) for key, value in section.nodes.items()},
        ),
        lease_s=seconds(section.lease),
        node_labels=dict(section.node_labels),
        stands_for={key: value for key in WORDS if stands and (value := getattr(stands, key))},
        empties=section.empties,
        gpu_resource=gpu.resource if gpu else "nvidia.com/gpu",
        gpu_plugin=(gpu.plugin or "") if gpu else "",
        releases=tuple(
            KubernetesRelease(
                name,
                item.of or name,
                item.image or "",
                {key: str(value) for key, value in item.env.items()},
                tuple(str(word) for word in item.command),
            )
            for name, item in section.releases.items()
        ),
        load_workers=section.load.workers if section.load else 1,
    )


def listening(section: KubernetesFile, instances: Iterable[ServiceInstance]) -> tuple[ServiceInstance, ...]:
    """With the port that all listen on, where their service says no other."""
    return tuple(replace(one, port=one.port or section.port) for one in instances)


def check_kubernetes(document: Document, file: SystemFile) -> None:
    """What is wrong with the section as a whole; its services are looked at one by one elsewhere."""
    section, node = file.kubernetes, document.node(SECTION)
    if section is None or not isinstance(node, Table) or node.broken:
        return
    _check_namespaces(document, section)
    if not section.services and "services" not in node.entries:
        fix = "add services: {web: {select: {app: web}, port: 8080, ready: GET /healthz}}"
        document.problem(document.key(SECTION), "kubernetes has no services", fix)
    for name in section.node_labels:
        if name not in file.labels and not document.broken("labels"):
            fix = f"{instead(name, file.labels, 'labels')}, or add it to labels"
            document.problem(document.key(SECTION, "node_labels", name), f"unknown label {name}", fix)
    if isinstance(section.contexts, dict) and REGION not in file.labels and not document.broken("labels"):
        what = "contexts by the value of the label region, which the system doesn't have"
        document.problem(document.key(SECTION, "contexts"), what, "add region to labels, or name one context")
    for name, service in section.services.items():
        needs = service.ready or name == file.entry
        if needs and not service.port and not section.port and not document.broken(SECTION, "services", name):
            what = f"nothing says on which port {name} listens"
            document.problem(
                document.place(SECTION, "services", name), what, "add port: 8080, here or for all services"
            )
    for name, release in section.releases.items():
        _check_release(document, section, name, release)


def _check_namespaces(document: Document, section: KubernetesFile) -> None:
    for key in ("namespace", "suite"):
        value = getattr(section, key)
        if value.startswith(PROTECTED):
            what = f"{value} is the cluster's own: no drill may touch it"
            document.problem(document.place(SECTION, key), what, "name a namespace of yours")
    if section.namespace and section.namespace == section.suite:
        what = f"{section.suite} is the suite's own namespace, which no fault may touch"
        document.problem(document.place(SECTION, "namespace"), what, "name the system's, or another suite")


def _check_release(document: Document, section: KubernetesFile, name: str, release: ClusterReleaseFile) -> None:
    node = document.node(SECTION, "releases", name)
    if not isinstance(node, Table) or node.broken:
        return
    service = release.of or name
    if service not in section.services:
        place = (
            document.place(SECTION, "releases", name, "of") if release.of else document.key(SECTION, "releases", name)
        )
        fix = instead(service, section.services, "services")
        document.problem(place, f"unknown service {service}", fix if release.of else f"add of: SERVICE; {fix}")
    if not {"image", "env", "command"} & node.entries.keys():
        what = f"the release {name} changes nothing"
        document.problem(node.place, what, "add image, env or command")
