"""A mechanism with its numbers in people's words: `delay 3 s ± 1 s each way down, on 4 hops`. Pure."""

from __future__ import annotations

from stormdrill.core.reach import cores, ends
from stormdrill.model.mechanism import Beside, CpuLimit, Device, How, Pressure, Sever, Tell, Toxic
from stormdrill.model.plan import Injection
from stormdrill.model.units import show_duration

KB = 1024.0
WAYS = {"both": "both ways", "up": "requests only", "down": "answers only"}
SENDS = {"both": "both ways", "up": "what it sends only", "down": "what it is sent only"}
"""Below any proxy there are packets, and whose they are."""


def numbers(injection: Injection) -> str:
    """What the mechanism does to whom, beyond its word; empty for freeze and crash."""
    how = injection.how
    return "" if how is None else _said(how, injection.instance)


def _said(how: How, instance: str) -> str:
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
    assert isinstance(how, Beside)
    if how.program == "burn":
        return f"burns {cores(how)} of this machine"
    return f"{how.rate_per_s:g}/s of {how.request} into {_named(how.reaches)}"


def _toxic(how: Toxic, instance: str) -> str:
    said = []
    if how.delay_ms:
        jitter = f" ± {show_duration(how.jitter_ms / 1000)} ({how.distribution})" if how.jitter_ms else ""
        said.append(f"{show_duration(how.delay_ms / 1000)}{jitter}")
    if how.bytes_per_s:
        said.append(speed(how.bytes_per_s))
    said.append(f"{WAYS[how.direction]}, on {_hops(how.hops, instance)}")
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
