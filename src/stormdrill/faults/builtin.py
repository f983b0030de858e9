"""The faults that come with stormdrill, by their word. Other packages add theirs through `stormdrill.faults`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import cast

from msgspec import Struct

from stormdrill.ports import Fault

GROUP = "stormdrill.faults"
CLASSES = {
    "bad-release": "BadRelease",
    "bandwidth-squeeze": "BandwidthSqueeze",
    "cpu-starvation": "CpuStarvation",
    "gpu-pool-outage": "GpuPoolOutage",
    "late-dependency": "LateDependency",
    "memory-leak": "MemoryLeak",
    "node-loss": "NodeLoss",
    "noisy-neighbour": "NoisyNeighbour",
    "partition": "Partition",
    "queue-backlog": "QueueBacklog",
    "quota-exhaustion": "QuotaExhaustion",
    "region-loss": "RegionLoss",
    "segmentation": "Segmentation",
}
"""Word → class. Its module is the word with underscores, and is imported when the word is asked for, no sooner."""


class BuiltinFaults(Mapping[str, Fault]):
    """Each of our own faults, made when it is first asked for."""

    def __init__(self) -> None:
        self._made: dict[str, Fault] = {}

    def __getitem__(self, word: str) -> Fault:
        if word not in CLASSES:
            raise KeyError(word)
        if word not in self._made:
            made = getattr(import_module(f"stormdrill.faults.{word.replace('-', '_')}"), CLASSES[word])
            self._made[word] = cast(Fault, made())
        return self._made[word]

    def __contains__(self, word: object) -> bool:
        return word in CLASSES

    def __iter__(self) -> Iterator[str]:
        return iter(CLASSES)

    def __len__(self) -> int:
        return len(CLASSES)


BUILTIN = BuiltinFaults()


class KnownFaults(Mapping[str, Fault]):
    """The built-in faults; a word that is none of them is looked for among the installed packages' entry points."""

    def __getitem__(self, word: str) -> Fault:
        if word in BUILTIN:
            return BUILTIN[word]
        from importlib.metadata import entry_points  # costs 45 ms: only for a word that is not built in

        for entry in entry_points(group=GROUP, name=word):
            made: Fault = entry.load()()
            return made
        raise KeyError(word)

    def __iter__(self) -> Iterator[str]:
        return iter(BUILTIN)

    def __len__(self) -> int:
        return len(BUILTIN)


class FaultParameters(Mapping[str, type[Struct]]):
    """What the known faults take, by their word."""

    def __init__(self, faults: KnownFaults) -> None:
        self._faults = faults

    def __getitem__(self, word: str) -> type[Struct]:
        return self._faults[word].parameters

    def __iter__(self) -> Iterator[str]:
        return iter(self._faults)

    def __len__(self) -> int:
        return len(self._faults)
