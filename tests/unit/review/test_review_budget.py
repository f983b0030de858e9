"""What a run cost of a month's error budget, as the review tells it."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec.structs import replace

from stormdrill.model.plan import Plan
from stormdrill.model.system import Traffic
from stormdrill.review import render
from synthetic_run import make_run

SAID = "At the traffic that the system file declares:"


def texts(directory: Path) -> list[str]:
    rendered = render(directory)
    return [place.read_text(encoding="utf-8") for place in (rendered.markdown, rendered.html)]


def test_the_cost_of_a_declared_traffics_month_is_told(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", scenario="fail")
    plan = msgspec.json.decode((run / "plan.json").read_bytes(), type=Plan)
    assert not any(SAID in text for text in texts(run))
    declared = replace(plan, system=replace(plan.system, traffic=Traffic(1000.0)))
    (run / "plan.json").write_bytes(msgspec.json.encode(declared))
    for text in texts(run):
        told = text.partition(SAID)[2]
        assert "requests may be bad in 30 days; none was" in told  # the baseline
        assert "20 s of this cost " in told
        assert "; a minute costs " in told
        assert "; burn rate 9." in told
        assert ", all is gone after 3." in told
