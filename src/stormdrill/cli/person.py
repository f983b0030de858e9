"""The person at this terminal, as a runbook's executor asks them."""

from __future__ import annotations

import getpass
import os
import select
import textwrap
import threading
import time
from typing import TextIO

from stormdrill.engine.runbook_person import Person, Question

LOOK_S = 0.2
"""How often it is looked whether the question is still wanted."""


class TerminalPerson:
    """Asks on `out`, reads an answer's word or its beginning from `source`."""

    def __init__(self, source: TextIO, out: TextIO, width: int, name: str = "") -> None:
        self.name = name or _login()
        self._source = source
        self._out = out
        self._width = width

    def ask(self, question: Question, timeout_s: float, cancelled: threading.Event) -> str | None:
        deadline_s = time.monotonic() + timeout_s
        try:
            self._say(question)
            while not cancelled.is_set() and time.monotonic() < deadline_s:
                if not select.select([self._source], [], [], LOOK_S)[0]:
                    continue
                line = self._source.readline()
                if not line:
                    return None
                answer = matching(line, question.choices)
                if answer is not None:
                    return answer
                self._prompt(question)
        except (OSError, ValueError):
            return None  # the terminal was closed: nobody is there any more
        return None

    def _say(self, question: Question) -> None:
        self._out.write("\n")
        for part in question.text.splitlines() or [""]:
            for line in textwrap.wrap(part, self._width - 4) or [""]:
                self._out.write(f"    {line}\n")
        self._prompt(question)

    def _prompt(self, question: Question) -> None:
        self._out.write(f"  {question.step}: {' / '.join(question.choices)}? ")
        self._out.flush()


def matching(line: str, choices: tuple[str, ...]) -> str | None:
    """The one choice that the answer begins; None when it begins none or several. An empty answer is no answer."""
    word = line.strip().lower()
    found = [choice for choice in choices if word and choice.startswith(word)]
    return found[0] if len(found) == 1 else None


def person_at(source: TextIO, out: TextIO, width: int) -> Person | None:
    """Whoever sits at the terminal; None when there is none: then nobody is asked and nothing is approved."""
    return TerminalPerson(source, out, width) if source.isatty() and out.isatty() else None


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
