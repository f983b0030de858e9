"""Backpressure checks on the terminal, in plans, and as JSON."""

from __future__ import annotations

import json

from stormdrill.cli.checks import asked_text, check_lines, check_objects
from stormdrill.model.experiment import CheckUse
from stormdrill.model.verdict import CheckVerdict, Figure

KEPT = Figure("kept at 3 x capacity", 91.2, 88.0, 94.1, 90.0, "%", 600)
FOUND = (
    CheckVerdict("capacity", "PASS", "it lies between", (Figure("capacity", 64.0, 64.0, 128.0, None, "/s", 601),)),
    CheckVerdict("goodput-plateau", "INCONCLUSIVE", "goodput at 3 x", (Figure("goodput", 58.0), KEPT)),
    CheckVerdict("drain", "INVALID", "not to be believed", ()),
)


def test_each_check_shows_what_was_asked_and_measured_side_by_side() -> None:
    lines = check_lines(FOUND, 120)
    assert [line.split() for line in lines[1:]] == [
        ["capacity", "capacity", "64/s", "[64,", "128]"],
        ["INCONCLUSIVE", "goodput-plateau", "kept", "at", "3", "x", "capacity", "90.0%", "91.2%", "[88.0,", "94.1]"],
        ["INVALID", "drain", "nothing", "was", "measured"],
    ]


def test_a_narrow_terminal_gets_a_block_a_check() -> None:
    lines = check_lines(FOUND, 60)
    assert lines[0] == "  PASS  capacity"
    assert max(map(len, lines)) <= 60
    assert any("kept at 3 x capacity 91.2%" in line for line in lines)


def test_without_checks_there_is_nothing_to_show() -> None:
    assert check_lines(()) == []


def test_json_has_every_figure() -> None:
    made = json.loads(json.dumps(check_objects(FOUND)))
    assert [set(check) for check in made] == [{"name", "verdict", "sentence", "figures"}] * 3
    assert made[1]["figures"][1] == {
        "name": "kept at 3 x capacity",
        "value": 91.2,
        "low": 88.0,
        "high": 94.1,
        "limit": 90.0,
        "unit": "%",
        "n": 600,
    }


def test_a_plan_names_only_the_thresholds_that_are_not_usual() -> None:
    uses = (CheckUse("capacity", {"served": "99%", "least": "0/s"}), CheckUse("goodput-plateau", {"least": "85%"}))
    assert asked_text(uses) == "capacity, goodput-plateau (least 85%)"
