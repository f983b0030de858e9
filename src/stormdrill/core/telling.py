"""The words in which events are told, wherever they become sentences: on the terminal, in the review, in the verdict.

What a mechanism did to somebody, what its revert did, how phases are called, how somebody ended who was not asked to.
"""

from __future__ import annotations

from msgspec import Struct

from stormdrill.model import event as ev
from stormdrill.model.system import MEMORY_LIMIT, ServiceInstance, System

DONE = {
    "freeze": "frozen",
    "crash": "killed",
    "delay": "slowed",
    "stall": "stalled",
    "trickle": "trickling",
    "squeeze": "squeezed",
    "reset": "reset",
    "refuse": "refused",
    "cut": "cut off",
    "sever": "severed",
    "pressure": "squeezed",
    "cpu-limit": "throttled",
    "device": "impaired",
    "tell": "told",
    "beside": "crowded",
    "nodes": "lost",
    "scale": "taken away",
    "isolate": "isolated",
    "rollout": "rolled out",
    "capacity": "withdrawn",
    "quota": "capped",
    "segment": "tried",
}
"""What became of the instance when the mechanism of that word bit; at most ten characters, a column of the terminal."""
UNDONE = {
    "freeze": "thawed",
    "crash": "restarted",
    "delay": "prompt",
    "stall": "flowing",
    "trickle": "flowing",
    "squeeze": "widened",
    "reset": "flowing",
    "refuse": "listening",
    "cut": "joined",
    "sever": "joined",
    "pressure": "relieved",
    "cpu-limit": "released",
    "device": "put back",
    "tell": "taken back",
    "beside": "left alone",
    "nodes": "opened",
    "scale": "given back",
    "isolate": "joined",
    "rollout": "put back",
    "capacity": "advertised",
    "quota": "uncapped",
    "segment": "ended",
}
"""What became of it when the cause was seen to be gone."""
SPOKEN = {"warmup": "warm-up", "failback": "fail-back"}
BY_HAND = {
    "destroy": "removed the container of {}",
    "pause": "paused {}",
    "unpause": "unpaused {}",
    "stop": "stopped {}",
    "start": "started {} again",
    "network-disconnect": "took {} off its network",
    "network-connect": "put {} on a network",
}
"""What somebody else than stormdrill did to a container."""
NEAR = 0.8
"""Of its limit: a reading above it makes a kill a probable out-of-memory kill."""
OOM_THEN_DEATH_MS = 5000.0
"""The engine tells of the kill first, and of the death when its first process is gone."""
BYTES_PER_MB = 2.0**20
KILLED = 128 + 9


def done(mechanism: str) -> str:
    return DONE.get(mechanism, mechanism)


def undone(mechanism: str) -> str:
    return UNDONE.get(mechanism, "reverted")


def phase(name: str) -> str:
    """`fail-back`, `warm-up after 2s`: a phase or a window as people write it. Files and JSON keep the key."""
    word, blank, rest = name.partition(" ")
    return f"{SPOKEN.get(word, word)}{blank}{rest}"


def system_text(count: int, target: str, proxied: bool = False) -> str:
    """`9 containers`, `1 process and the fault proxy`."""
    word = {"docker": "container", "kubernetes": "pod"}.get(target, "process")
    text = f"{count:,} {word if count == 1 else word + ('es' if word == 'process' else 's')}"
    return f"{text} and the fault proxy" if proxied else text


def ended_text(count: int, target: str, proxied: bool) -> str:
    """`count` is of all that was ended, the fault proxy too; of containers also their networks and volumes."""
    if target == "docker":
        return f"{count:,} containers, networks and volumes"
    return system_text(count - proxied, target, proxied)


class Ending(Struct, frozen=True):
    """Something that befell an instance and that stormdrill did not do."""

    instance: str
    sentence: str
    ended: bool
    """False: it runs on, or its end is told by another event."""
    out_of_memory: bool = False


class Endings:
    """A fold over a run's events: `see` each in its order, and hear of the endings that nobody asked for."""

    def __init__(self, system: System | None) -> None:
        instances = system.instances if system else ()
        self._limits_mb = {item.name: limit_mb for item in instances if (limit_mb := _limit_mb(item))}
        metrics = system.metrics if system else ()
        self._memory = {item.name for item in metrics if item.prometheus.endswith("memory_bytes")}
        self._readings_mb: dict[str, float] = {}
        self._ooms_ms: dict[str, float] = {}

    def see(self, recorded: ev.Recorded) -> Ending | None:
        event = recorded.event
        if isinstance(event, ev.Reading):
            if event.metric in self._memory and event.value is not None:
                self._readings_mb[event.instance] = event.value / BYTES_PER_MB
        elif isinstance(event, ev.ProcessSpawned | ev.ContainerStarted):
            self._readings_mb.pop(event.instance, None)
        elif isinstance(event, ev.ProcessExited) and not event.expected:
            return self._process(event)
        elif isinstance(event, ev.ContainerEvent):
            return self._container(recorded.mono_ms, event)
        return None

    def _process(self, event: ev.ProcessExited) -> Ending:
        name = event.instance
        how = f"signal {event.signal}" if event.signal else f"exit code {event.code}"
        return self._ended(name, how, event.signal == "SIGKILL" or event.code == KILLED)

    def _ended(self, name: str, how: str, killed: bool) -> Ending:
        limit_mb, last_mb = self._limits_mb.get(name, 0.0), self._readings_mb.get(name, 0.0)
        if killed and limit_mb and last_mb >= NEAR * limit_mb:
            why = f"{name} was killed, probably out of memory: {last_mb:.0f} MB at the last reading"
            return Ending(name, f"{why}, limit {limit_mb:g} MB", ended=True, out_of_memory=True)
        return Ending(name, f"{name} ended by itself ({how})", ended=True)

    def _container(self, at_ms: float, event: ev.ContainerEvent) -> Ending | None:
        name = event.instance
        limit_mb = self._limits_mb.get(name, 0.0)
        limit = f", limit {limit_mb:g} MB" if limit_mb else ""
        if event.action == "oom":
            self._ooms_ms[name] = at_ms
            what = f"out of memory in {name}{limit}: the kernel killed a process there"
            return Ending(name, what, ended=False, out_of_memory=True)
        if event.expected:
            return None
        if event.action == "die":
            lately = at_ms - self._ooms_ms.get(name, float("-inf")) <= OOM_THEN_DEATH_MS
            if event.code == KILLED and lately:
                killed = f"the kernel killed {name}: out of memory{limit}"
                return Ending(name, killed, ended=True, out_of_memory=True)
            return self._ended(name, f"exit code {event.code}", event.code == KILLED)
        said = BY_HAND.get(event.action)
        if said is None:
            return None
        return Ending(name, f"somebody {said.format(name)} by hand", ended=event.action == "destroy")


def _limit_mb(instance: ServiceInstance) -> float:
    told = instance.env.get(MEMORY_LIMIT, "")
    return float(told) if told.replace(".", "", 1).isdigit() else instance.memory_mb
