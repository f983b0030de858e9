"""What is tried again and again is told once, with a count at the end."""

from __future__ import annotations

from stormdrill.cli.scene import Scene
from stormdrill.model import event as e


def test_an_undo_that_comes_to_nothing_many_times_is_told_once_and_counted() -> None:
    scene, lines = Scene(), []
    events: list[e.Event] = [e.Reverted("runbook/drain", "failed", f"no answer ({n})", 1.0) for n in range(5)]
    events += [e.Reverted("node/a", "superseded", "gone already", 1.0), e.TornDown("keeper", 0, [], 1.0)]
    for number, event in enumerate(events):
        lines += scene.tell(e.Recorded(number, "", float(number), event))
    told = [line for line in lines if "runbook/drain" in line.text]
    assert [line.state for line in told] == ["failed", "failed"]
    assert told[0].text == "runbook/drain: no answer (0)"
    assert "5 times in all" in told[1].text
    assert [line.state for line in lines if "node/a" in line.text] == ["superseded"]
