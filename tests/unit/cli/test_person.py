"""Asking the person at the terminal."""

from __future__ import annotations

import io
import os
import threading

import pytest

from stormdrill.cli.person import TerminalPerson, matching
from stormdrill.engine.runbook_person import Question

QUESTION = Question("approve", "shed", "Shed tiers 2 and 3?", ("approve", "refuse"))


def answered(typed: str, timeout_s: float = 5.0) -> tuple[str | None, str]:
    reader, writer = os.pipe()
    os.write(writer, typed.encode())
    out = io.StringIO()
    with os.fdopen(reader, encoding="utf-8", buffering=1) as source:
        answer = TerminalPerson(source, out, 80, "ada").ask(QUESTION, timeout_s, threading.Event())
        os.close(writer)
    return answer, out.getvalue()


@pytest.mark.parametrize(
    ("typed", "meant"), [("approve\n", "approve"), ("A\n", "approve"), ("ref\n", "refuse"), ("", None), ("yes\n", None)]
)
def test_only_a_choice_or_its_beginning_is_an_answer(typed: str, meant: str | None) -> None:
    assert answered(typed, 0.3)[0] == meant


def test_the_question_is_shown_with_all_that_is_needed_to_answer() -> None:
    assert "Shed tiers 2 and 3?" in answered("a\n")[1]
    assert "shed: approve / refuse?" in answered("a\n")[1]


def test_a_beginning_that_fits_two_choices_is_no_answer() -> None:
    assert matching("s", ("skip", "stop")) is None
    assert matching("", ("skip",)) is None


def test_a_closed_terminal_answers_nothing() -> None:
    reader, writer = os.pipe()
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as source:
        assert TerminalPerson(source, io.StringIO(), 80, "ada").ask(QUESTION, 5.0, threading.Event()) is None


def test_a_question_that_is_cancelled_is_let_go() -> None:
    cancelled = threading.Event()
    cancelled.set()
    reader, writer = os.pipe()
    with os.fdopen(reader, encoding="utf-8") as source:
        assert TerminalPerson(source, io.StringIO(), 80, "ada").ask(QUESTION, 60.0, cancelled) is None
    os.close(writer)
