"""Which checks there are, and two sets of them. A word is its module's name: `goodput-plateau` is `goodput_plateau`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from stormdrill.core.backpressure.asked import ASKED

if TYPE_CHECKING:
    from stormdrill.core.backpressure.checking import Check

ORDER = (
    "capacity",
    "goodput-plateau",
    "admitted-latency",
    "cheap-rejection",
    "rejection-contract",
    "bounded-queue",
    "littles-law",
    "priority",
    "retry-amplification",
    "drain",
    "recovery",
    "breaker",
)
"""In which they are spelled out, judged and shown."""
SETS: Mapping[str, tuple[str, ...]] = {
    "basic": ("goodput-plateau", "bounded-queue", "priority", "retry-amplification", "recovery"),
    "all": ORDER,
}
"""basic: what every service should be able to show. all: what there is, and nothing less: see `spec.backpressure`."""


def known() -> tuple[str, ...]:
    """Every check's word, in order."""
    return tuple(word for word in ORDER if word in ASKED)


def check_of(word: str) -> Check:
    """Imports its module, and numpy with it. Raises KeyError for a word that is none."""
    if word not in ASKED:
        raise KeyError(word)
    found: Check = import_module(f"{__package__}.{word.replace('-', '_')}").CHECK
    return found


def builtin() -> Mapping[str, Check]:
    """Word → check, all of them."""
    return {word: check_of(word) for word in known()}
