"""Which clusters a plan is for: the context that a person names, and what is really asked, for people to see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from msgspec.structs import replace

from stormdrill.errors import Problem, Refused

if TYPE_CHECKING:
    from stormdrill.api.targets import DrillTarget
    from stormdrill.model.plan import ClusterAt, Plan
    from stormdrill.model.system import System


@runtime_checkable
class InClusters(Protocol):
    """Capability: a target in clusters, which names them."""

    def where(self) -> tuple[ClusterAt, ...]:
        """Without credentials. Asks nobody."""
        ...


def in_context(system: System, target: str, context: str) -> System:
    """The system on the cluster of that context. Raises Refused where it isn't the command's to say."""
    if not context:
        return system
    if target != "kubernetes" or system.kubernetes is None:
        raise Refused([Problem("--context", 0, 0, f"target {target} has no cluster", "write --target kubernetes")])
    if system.kubernetes.contexts:
        what = f"the system file of {system.name} names its contexts itself"
        raise Refused([Problem("--context", 0, 0, what, "change them there, or leave --context out")])
    return replace(system, kubernetes=replace(system.kubernetes, contexts={"": context}))


def named(made: Plan, here: DrillTarget) -> Plan:
    """With the clusters that it is for. One context is kept by its name: a person may make another the current one."""
    if not isinstance(here, InClusters):
        return made
    found, section = here.where(), made.system.kubernetes
    if section is None or section.contexts or not found[0].context:
        return replace(made, clusters=found)
    kept = replace(section, contexts={"": found[0].context})
    return replace(made, clusters=found, system=replace(made.system, kubernetes=kept))
