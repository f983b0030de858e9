"""The faults that come with stormdrill, by their word. Other packages add theirs through `stormdrill.faults`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec import Struct

from stormdrill.faults.region_loss import RegionLoss
from stormdrill.ports import Fault

BUILTIN: dict[str, Fault] = {fault.word: fault for fault in (RegionLoss(),)}
GROUP = "stormdrill.faults"


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
