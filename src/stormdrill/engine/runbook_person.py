"""The person beside a runbook: what is asked of them, and how. The terminal and Slack both answer this."""

from __future__ import annotations

import threading
from typing import Protocol

from msgspec import Struct


class Question(Struct, frozen=True):
    """One thing that only a person may decide."""

    kind: str
    """approve, manual, unknown, observe"""
    step: str
    text: str
    """What is asked, with everything needed to answer."""
    choices: tuple[str, ...]
    digest: str = ""
    """Of the rendered step that an approval is for."""


class Person(Protocol):
    """Who answers; `name` goes into the record."""

    name: str

    def ask(self, question: Question, timeout_s: float, cancelled: threading.Event) -> str | None:
        """One of the question's choices; None when the time is over or `cancelled` was set. Never raises."""
        ...
