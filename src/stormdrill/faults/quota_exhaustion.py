"""quota-exhaustion: a namespace may have no more than it has. What runs goes on; whatever would be more is refused.

Growth is what it takes away: a scale-out, a rolling update that first makes a new pod, a job that is started. Only a
live cluster has quotas.
"""

from __future__ import annotations

from msgspec import convert

from stormdrill.errors import Refused
from stormdrill.faults.acting import Asked, Chosen, ThroughMechanisms, chosen, injection
from stormdrill.model.experiment import FaultUse
from stormdrill.model.mechanism import Quota
from stormdrill.model.plan import Injection
from stormdrill.ports import World


class Parameters(Chosen, frozen=True, kw_only=True, forbid_unknown_fields=True):
    resource: str = "pods"
    """What is held at its use: pods, requests.cpu, requests.memory, limits.cpu, limits.memory; several with commas."""


class QuotaExhaustion(ThroughMechanisms):
    word = "quota-exhaustion"
    summary = "a namespace may have no more pods or cores than it has: new pods are refused"
    parameters = Parameters

    def plan(self, use: FaultUse, index: int, world: World, for_s: float) -> tuple[Injection, ...]:
        """One for each cluster that the chosen ones are in: the quota is their whole namespace's."""
        wanted = convert(use.parameters, Parameters)
        resources = tuple(dict.fromkeys(word.strip() for word in wanted.resource.split(",") if word.strip()))
        if not resources:
            raise Refused(f"{use.word}: resource is empty; write for instance pods")
        spec = world.system.kubernetes
        named = any(getattr(wanted, name) for name in Chosen.__struct_fields__)
        hit = chosen(use, wanted, world) if named else world.instances
        namespace = spec.namespace if spec else ""
        places = {name: one.cluster for one in world.workloads for name in one.instances}
        asked = Asked(use, index, for_s)
        made = []
        for cluster in dict.fromkeys(places.get(one.name, "") for one in hit):
            reached = tuple(one.name for one in hit if places.get(one.name, "") == cluster)
            how = Quota(namespace, dict.fromkeys(resources, ""), reached, cluster)
            subject = f"{cluster}.{namespace}" if cluster else namespace or "namespace"
            switches = (f"quota of {subject}",)
            made.append(injection(asked, subject, "quota", instance=reached[0], how=how, switches=switches))
        return tuple(made)
