"""The review of a run that injects nothing: its load is told as the trigger, and nothing is said of faults."""

from __future__ import annotations

from pathlib import Path

from review_runs import judged

from stormdrill.review import render
from synthetic_overload import simulate, write


def test_a_run_without_faults_tells_of_its_load(tmp_path: Path) -> None:
    write(tmp_path, simulate(checks=("capacity", "goodput-plateau")))
    text = render(judged(tmp_path)).markdown.read_text(encoding="utf-8")
    assert "the load alone was the trigger" in text
    assert "The load of this experiment, from " in text
    assert "| Bit |" not in text
    assert "| Reverted |" not in text
    assert "From the first inject" not in text
    assert "| TTD, to detect | – | From the fault phase's beginning until " in text
