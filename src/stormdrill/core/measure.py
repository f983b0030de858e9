"""A mechanism with its numbers in people's words: `delay 3 s ± 1 s each way down, on 4 hops`. Pure."""

from __future__ import annotations

from stormdrill.core.reach import cores, ends
from stormdrill.model.mechanism import (
    Beside,
    Capacity,
    CpuLimit,
    Device,
    How,
    Isolate,
    Nodes,
    Pressure,
    Quota,
    Rollout,
    Scale,
    Segment,
    Sever,
    Tell,
    Toxic,
)
from stormdrill.model.plan import Injection
from stormdrill.model.units import show_duration

KB = 1024.0
EMPTIED = {"taint": "tainted", "evict": "emptied by evictions", "delete": "emptied by deleting"}
WAYS = {"both": "both ways", "up": "requests only", "down": "answers only"}
SENDS = {"both": "both ways", "up": "what it sends only", "down": "what it is sent only"}
"""Below any proxy there are packets, and whose they are."""


def numbers(injection: Injection, target: str = "process") -> str:
    """What the mechanism does to whom, beyond its word; empty for freeze and crash."""
    how = injection.how
    return "" if how is None else _said(how, injection.instance, target)


def _said(how: How, instance: str, target: str) -> str:
    if isinstance(how, Toxic):
        return _toxic(how, instance)
    if isinstance(how, Sever):
        peers = f"from {_named(how.peers)}" if how.peers else "from everybody"
        users = " and from who enters from outside" if how.users else ""
        return f"{peers}{users}, {SENDS[how.direction]}"
    if isinstance(how, Pressure):
        victim = "the application is" if how.victim == "app" else "the allocator is"
        return f"{how.mb_per_s:g} MB/s up to {how.ceiling_mb:g} MB; {victim} killed first when memory ends"
    if isinstance(how, CpuLimit):
        return f"to {how.cpus:g} of a core"
    if isinstance(how, Device):
        return f"{how.device}: {how.state}"
    if isinstance(how, Tell):
        asked = f"{how.method} {how.path} {how.body}".rstrip()
        return f"{asked} to {instance}, which changes {_named(how.reaches)}" if how.reaches else asked
    if not isinstance(how, Beside):
        return _in_cluster(how)
    if how.program == "burn":
        return f"burns {cores(how)} of {f'the node of {instance}' if target == 'kubernetes' else 'this machine'}"
    return f"{how.rate_per_s:g}/s of {how.request} into {_named(how.reaches)}"


def _in_cluster(how: How) -> str:
    if isinstance(how, Nodes):
        pods = f"{how.pods} pod{'s' if how.pods != 1 else ''} would go" if how.pods else "no pod would go"
        return f"{_named(how.nodes)}: cordoned and {EMPTIED[how.empties]}; {pods}"
    if isinstance(how, Scale):
        return f"{how.away} pod{'s' if how.away != 1 else ''} of {how.workload} taken away"
    if isinstance(how, Isolate):
        others = "; still heard by " + " and ".join(map(_labels, how.among)) if how.among else ""
        return f"pods with {_labels(how.select)} from everybody{others}"
    if isinstance(how, Rollout):
        told = [how.image, *(f"{name}={value}" for name, value in how.env.items()), " ".join(how.command)]
        said = ", ".join(text for text in told if text)
        return f"{how.workload}: {said or 'a release that never gets ready'}"
    if isinstance(how, Capacity):
        by = f", whose device plugin {how.plugin} is moved away" if how.plugin else ""
        return f"no {how.resource} on {_named(how.nodes)}{by}"
    if isinstance(how, Quota):
        limits = ", ".join(f"{name} to {value or 'what is used now'}" for name, value in how.hard.items())
        return f"namespace {how.namespace} limited: {limits}"
    assert isinstance(how, Segment)
    return f"from pods with {_labels(how.source)} to {how.to}, which policy forbids"


def _labels(labels: dict[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in labels.items())


def _toxic(how: Toxic, instance: str) -> str:
    said = []
    if how.delay_ms:
        jitter = f" ± {show_duration(how.jitter_ms / 1000)} ({how.distribution})" if how.jitter_ms else ""
        said.append(f"{show_duration(how.delay_ms / 1000)}{jitter}")
    if how.bytes_per_s:
        said.append(speed(how.bytes_per_s))
    where = f"all that calls Service {how.service}" if how.service else _hops(how.hops, instance)
    said.append(f"{WAYS[how.direction]}, on {where}")
    return ", ".join(said)


def _hops(hops: tuple[str, ...], instance: str) -> str:
    """`the hops from edge-1, edge-2`: by their other end where that says it all."""
    callers = [ends(hop)[0] for hop in hops]
    callees = [ends(hop)[1] for hop in hops]
    if set(callees) == {instance}:
        return f"the {_counted(len(hops))} from {_named(callers)}"
    if set(callers) == {instance}:
        return f"the {_counted(len(hops))} to {_named(callees)}"
    return f"{_counted(len(hops))}: {_named(hops)}"


def _counted(hops: int) -> str:
    return "1 hop" if hops == 1 else f"{hops} hops"


def _named(names: tuple[str, ...] | list[str]) -> str:
    """All of them: who agrees to a plan agrees to each."""
    return ", ".join(names)


def speed(bytes_per_s: float) -> str:
    for unit, scale in (("MB/s", KB * KB), ("KB/s", KB)):
        if bytes_per_s >= scale:
            return f"{bytes_per_s / scale:g} {unit}"
    return f"{bytes_per_s:g} B/s"
