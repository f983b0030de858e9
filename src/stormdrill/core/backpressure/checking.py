"""What every check is: what it asks (see `asked`), and one function from a run's evidence to a verdict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from stormdrill.core.backpressure.asked import ASKED, Asks, Need
from stormdrill.core.case import Case
from stormdrill.model.verdict import CheckVerdict


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
    judge: Callable[[Case, Any], CheckVerdict]
    """Gets an instance of `parameters`. Never raises for what a run may leave behind: what can't be judged is
    INCONCLUSIVE and says why, what rests on tainted evidence INVALID."""


def check(word: str, judge: Callable[[Case, Any], CheckVerdict]) -> Check:
    """The check of a word: what it asks stands in `asked.ASKED`."""
    asked = ASKED[word]
    return Check(asked.word, asked.summary, asked.parameters, asked.needs, judge)


__all__ = ["Asks", "Check", "Need", "check"]
