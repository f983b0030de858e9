"""bad-release: another version of a workload is rolled out that can't be pulled, ends at once, or never gets ready.

`release` rolls out one that the system file declares. Only a live cluster has workloads whose template can be changed.
A rolling update keeps the old pods until new ones are ready: whether it really does is the question.
"""

from __future__ import annotations

from typing import Literal

from msgspec import convert
from msgspec.structs import replace

from stormdrill.errors import Refused
from stormdrill.faults.acting import (
    FROM_READY,
    Asked,
    Chosen,
    ThroughMechanisms,
    chosen,
    injection,
    nothing_touched,
)
from stormdrill.model.experiment import FaultUse
from stormdrill.model.mechanism import Rollout
from stormdrill.model.plan import Injection
from stormdrill.model.system import KubernetesSpec
from stormdrill.ports import Instance, Workload, World

UNPULLABLE = "stormdrill.invalid/bad:$run"
"""A name that no registry can ever have, and that says whose it is."""
MODES = {
    "image": Rollout("", "", "", image=UNPULLABLE, broken=True),
    "crash": Rollout("", "", "", command=("false",), broken=True),
    "unready": Rollout("", "", "", unready=True, broken=True),
}


class Parameters(Chosen, frozen=True, kw_only=True, forbid_unknown_fields=True):
    mode: Literal["image", "crash", "unready", "release"]
    release: str = ""
    """Of `release`: a name in the `releases` of the system file's kubernetes section."""


class BadRelease(ThroughMechanisms):
    word = "bad-release"
    summary = "a release is rolled out that can't be pulled, ends at once or never gets ready"
    parameters = Parameters

    def plan(self, use: FaultUse, index: int, world: World, for_s: float) -> tuple[Injection, ...]:
        wanted = convert(use.parameters, Parameters)
        asked, spec = Asked(use, index, for_s), world.system.kubernetes
        if wanted.mode != "release" and wanted.release:
            raise Refused(f"{use.word}: release goes with mode release, and the mode is {wanted.mode}; leave one out")
        if wanted.mode == "release" and spec is not None:
            return release(asked, wanted, world, wanted.release)
        # what is declared for clusters is not known where another target is meant, which refuses the mechanism
        hit = world.instances[:1] if wanted.mode == "release" else chosen(use, wanted, world)
        return rolled_out(asked, hit, MODES.get(wanted.mode, Rollout("", "", "")), world)


def release(asked: Asked, wanted: Chosen, world: World, name: str) -> tuple[Injection, ...]:
    """The one of that name in the system file's kubernetes section, on its service's instances that are chosen."""
    spec = world.system.kubernetes or KubernetesSpec(namespace="")
    known = {one.name: one for one in spec.releases}
    if name not in known:
        said = f"declared here: {', '.join(known)}" if known else "the kubernetes section declares no `releases`"
        raise nothing_touched(asked.use, f"no release is named {name or '(nothing)'}; {said}")
    found = known[name]
    hit = chosen(asked.use, wanted, world, service=found.service)
    if strange := [one.name for one in hit if one.service != found.service]:
        why = f"release {name} is one of {found.service}, and {', '.join(strange)} run something else"
        raise Refused(f"{asked.use.word}: {why}; choose instances of {found.service}")
    how = Rollout("", "", "", image=found.image, env=found.env, command=found.command)
    return rolled_out(asked, hit, how, world)


def rolled_out(asked: Asked, hit: tuple[Instance, ...], how: Rollout, world: World) -> tuple[Injection, ...]:
    """On each workload that one of them is of: all of its pods get the release."""
    names = {one.name for one in hit}
    found = [one for one in world.workloads if names & set(one.instances)]
    alone = sorted(names - {name for one in found for name in one.instances})
    if world.workloads and alone:
        what = f"{', '.join(alone)} are of no Deployment, and nothing would roll a release out on them"
        raise Refused(f"{asked.use.word}: {what}; choose others")
    return tuple(
        injection(
            asked,
            f"{one.cluster}.{short}" if one.cluster else short,
            "rollout",
            instance=short,
            how=replace(
                how,
                workload=one.name,
                namespace=one.namespace,
                container=one.containers[0],
                reaches=one.instances,
                cluster=one.cluster,
            ),
            switches=(f"template of {one.name}",),
            verify_timeout_s=FROM_READY,
        )
        for one in found or [Workload(name, "", (name,), 0, ("",), {}) for name in sorted(names)]
        for short in [one.name.rpartition("/")[2]]
    )
