"""memory-leak: memory is taken at a steady slope, up to a ceiling, and not given back until the revert.

`pressure` needs no cooperation: an allocator of ours, in the instance's container or beside its process.
`release` rolls out a version that leaks, as the system file declares it, and rolls it back: what a runbook has to find
by the slope before the memory ends.
"""

from __future__ import annotations

import json
from typing import Literal

from msgspec import convert
from msgspec.structs import replace

from stormdrill.errors import Refused
from stormdrill.faults.acting import Asked, Chosen, ThroughMechanisms, chosen, injection, nothing_touched
from stormdrill.faults.bad_release import release
from stormdrill.model.experiment import FaultUse
from stormdrill.model.mechanism import Pressure, Tell
from stormdrill.model.plan import Injection
from stormdrill.ports import Instance, World
from stormdrill.spec.kinds import Size, Speed
from stormdrill.spec.scalars import bytes_per_s, megabytes

MB = 1024.0**2


class Parameters(Chosen, frozen=True, kw_only=True, forbid_unknown_fields=True):
    mode: Literal["pressure", "release"]
    slope: Speed | None = None
    """Of `pressure`: how fast; 4MB/s when left out."""
    ceiling: Size | None = None
    """Of `pressure`: how much in all, never more; 200MB when left out."""
    victim: Literal["neighbour", "app"] | None = None
    """Of `pressure`: whom the kernel ends first when the memory limit is reached; the neighbour when left out."""
    release: str = ""
    """Of `release`: a name in the system file's `releases`, on a cluster in those of its kubernetes section first."""


class MemoryLeak(ThroughMechanisms):
    word = "memory-leak"
    summary = "memory is taken at a steady slope up to a ceiling: pressure from outside, or a release that leaks"
    parameters = Parameters

    def plan(self, use: FaultUse, index: int, world: World, for_s: float) -> tuple[Injection, ...]:
        wanted = convert(use.parameters, Parameters)
        asked = Asked(use, index, for_s)
        if wanted.mode == "release":
            cluster = world.system.kubernetes
            if cluster is not None and any(one.name == wanted.release for one in cluster.releases):
                return release(asked, wanted, world, wanted.release)
            return _release(asked, wanted, world)
        if wanted.release:
            raise Refused(f"{use.word}: release goes with mode release, and the mode is pressure; leave one out")
        slope, ceiling_mb = bytes_per_s(wanted.slope or "4MB/s"), megabytes(wanted.ceiling or "200MB")
        if slope <= 0 or ceiling_mb <= 0:
            raise nothing_touched(use, "slope and ceiling must be more than nothing")
        how = Pressure(mb_per_s=slope / MB, ceiling_mb=ceiling_mb, victim=wanted.victim or "neighbour")
        return tuple(
            injection(
                asked,
                one.name,
                "pressure",
                how=how,
                switches=(f"memory of {one.name}",),
                loses="what it holds only in memory (should the kernel end it)" if how.victim == "app" else "",
            )
            for one in chosen(use, wanted, world)
        )


def _release(asked: Asked, wanted: Parameters, world: World) -> tuple[Injection, ...]:
    """The version is rolled out by the instances of the release's own service: the one of the region, or all."""
    use, known = asked.use, world.system.releases
    odd = [
        name
        for name in ("slope", "ceiling", "victim", "instance", "service", "pool", "node", "where")
        if getattr(wanted, name)
    ]
    if odd:
        raise Refused(f"{use.word}: {', '.join(odd)} can't be chosen with mode release; it takes release and region")
    if wanted.release not in known:
        said = f"declared here: {', '.join(known)}" if known else "the system file declares no `releases`"
        raise nothing_touched(use, f"no release is named {wanted.release or '(nothing)'}; {said}")
    release = known[wanted.release]
    told = world.chosen(service=release.service, region=wanted.region)
    if not told:
        raise nothing_touched(use, f"no instance of {release.service} has region={wanted.region}")
    reached = {one.name: _reached(world, one, release.of or wanted.release) for one in told}
    if release.of and not any(reached.values()):
        raise nothing_touched(use, f"no instance of {release.of} runs release {wanted.release} there")
    how = Tell(
        service=release.service,
        method="POST",
        path=release.path,
        body=json.dumps({"version": release.version}),
        undo_method="POST",
        undo_path=release.path,
        undo_body=json.dumps({"version": release.stable}),
        look_path=release.path,
        look=f".version == {release.version}",
        means="on another release",
    )
    return tuple(
        injection(
            asked,
            one.name,
            "tell",
            how=replace(how, reaches=reached[one.name]),
            switches=(f"release {wanted.release} of {one.name}",),
            loses="what it holds only in memory",
        )
        for one in told
    )


def _reached(world: World, told: Instance, service: str) -> tuple[str, ...]:
    """Whoever is told rolls it out in its own region."""
    return tuple(one.name for one in world.chosen(service=service, region=told.labels.get("region", "")))
