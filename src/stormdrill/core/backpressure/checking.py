"""What every check is: a word, parameters with defaults, what it needs to be able to say anything, and one function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from stormdrill.core.case import Case
from stormdrill.model.verdict import CheckVerdict

Need = Literal["steps", "episodes", "tiers", "retries", "depth", "limit", "in_flight", "hops", "breaker", "load"]
"""What a check can't do without. steps, episodes: stages of the profile. tiers: streams with the label tier. retries: a
client that tries again. depth, limit, in_flight, hops, breaker: what the system file's `backpressure:` names. load:
request records."""


class Check(Struct, frozen=True):
    """One entry of the registry."""

    word: str
    """As in the experiment's `backpressure:`."""
    summary: str
    """One line: what it asks."""
    parameters: type[Struct]
    """What an experiment may set, with defaults: the thresholds."""
    needs: tuple[Need, ...]
    """Missing ones are refused when planning, with what would help."""
    judge: Callable[[Case, Struct], CheckVerdict]
    """Never raises for what a run may leave behind: what can't be judged is INCONCLUSIVE and says why, what rests on
    tainted evidence INVALID."""
