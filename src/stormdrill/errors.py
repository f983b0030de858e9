"""What can go wrong, as types. Lowest layer: imports the standard library only.

Every error that may reach a user says where, what, and what to do instead; the command line
turns the type into the exit code of the contract.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Problem(NamedTuple):
    """One thing wrong with one place of a file that a user wrote."""

    where: str
    """The file's path as the user named it; empty when no file is meant."""
    line: int
    """1-based; 0 when the place is the whole file."""
    column: int
    """1-based; 0 when the place is the whole line or file."""
    what: str
    fix: str = ""
    """What to write or do instead."""

    def __str__(self) -> str:
        place = self.where
        if self.line:
            place += f":{self.line}:{self.column}"
        text = f"{place}: {self.what}" if place else self.what
        return f"{text}; {self.fix}" if self.fix else text


class StormdrillError(Exception):
    """A condition that stormdrill understands; `exit_code` follows the contract."""

    exit_code = 70


class Refused(StormdrillError):
    """Refused before anything was touched: input, policy, capability, permission, a held system."""

    exit_code = 2

    def __init__(self, problems: Iterable[Problem] | str) -> None:
        if isinstance(problems, str):
            problems = (Problem("", 0, 0, problems),)
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class SystemNotReady(StormdrillError):
    """The system under test never answered its ready check, or a command died at once."""

    exit_code = 3


class KeeperGone(StormdrillError):
    """The keeper no longer answers; the runner must take the journal over."""

    exit_code = 4


class Dirty(StormdrillError):
    """Something could not be shown to be reverted."""

    exit_code = 5


class DiskFull(StormdrillError):
    """The verdict or the review could not be written. The record is whole; `judge` and `review` make them again."""

    exit_code = 4


class JournalBroken(StormdrillError):
    """The journal's chain does not hold: a line was changed, removed or reordered."""

    exit_code = 2


class Unreachable(StormdrillError):
    """A remote call did not answer within its limit: whether it took effect is unknown."""

    exit_code = 70
