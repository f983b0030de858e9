"""The faults that come with stormdrill, by their word. Other packages add theirs through `stormdrill.faults`."""

from __future__ import annotations

from stormdrill.faults.region_loss import RegionLoss
from stormdrill.ports import Fault

BUILTIN: dict[str, Fault] = {fault.word: fault for fault in (RegionLoss(),)}


def find(word: str) -> Fault | None:
    """The built-in fault, else the one that an entry point of the group `stormdrill.faults` offers."""
    if word in BUILTIN:
        return BUILTIN[word]
    from importlib.metadata import entry_points  # costs 45 ms: only for a word that is not built in

    for entry in entry_points(group="stormdrill.faults", name=word):
        made: Fault = entry.load()()
        return made
    return None
