"""A run directory read into evidence: what is there, what is missing, what must not be believed."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from stormdrill.core.judge import judge, judge_baseline
from stormdrill.core.windows import phases
from stormdrill.errors import JournalBroken, Refused
from stormdrill.model import event as ev
from stormdrill.model.verdict import Verdict
from stormdrill.store.evidence import load, so_far
from stormdrill.store.verify import verify
from synthetic_run import SCENARIOS, make_run


def _judge(directory: Path) -> Verdict:
    found = load(directory)
    return judge(found.plan, found.events, found.records, found.ledger)


def test_a_synthetic_run_is_a_whole_record(tmp_path: Path) -> None:
    """What other tests rest on must itself hold: chain, hashes, end."""
    for scenario in SCENARIOS:
        assert verify(make_run(tmp_path / scenario, scenario=scenario)) == []


def test_everything_is_read(tmp_path: Path) -> None:
    found = load(make_run(tmp_path / "run"))
    assert found.problems == ()
    assert found.plan.experiment.name == "region-loss"
    assert [record.file for record in found.records] == ["load/worker-0.records"]
    assert found.records[0].intact
    assert not found.records[0].torn
    assert found.ledger is not None
    assert len(found.ledger) > 4000


def test_a_changed_record_file_is_noticed(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    path = run / "load" / "worker-0.records"
    data = bytearray(path.read_bytes())
    data[-4] ^= 1
    path.write_bytes(data)
    assert not load(run).records[0].intact
    assert _judge(run).verdict == "INVALID"


def test_a_missing_or_unreadable_record_file_taints(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    path = run / "load" / "worker-0.records"
    path.write_bytes(b"not a record file\n")
    found = load(run)
    assert found.records == ()
    assert "worker-0.records cannot be read" in found.problems[0]
    path.unlink()
    verdict = _judge(run)
    assert verdict.verdict == "INVALID"
    assert any("missing" in reason for reason in verdict.reasons)


def test_a_record_cut_in_half_is_left_out_and_told(tmp_path: Path) -> None:
    whole = load(make_run(tmp_path / "whole")).records[0]
    torn = load(make_run(tmp_path / "torn", torn=True)).records[0]
    assert torn.torn
    assert len(torn.rows) == len(whole.rows)


def test_a_ledger_that_cannot_be_read_proves_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "load" / "jobs.ndjson").write_text('{"job": 1, "sta\n')
    found = load(run)
    assert found.ledger is None
    assert "jobs.ndjson cannot be read" in found.problems[0]
    assert _judge(run).verdict == "INCONCLUSIVE"


def test_without_a_plan_there_is_nothing_to_judge_by(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "plan.json").write_text('{"experiment": 5}')
    with pytest.raises(Refused, match="not a plan of this version"):
        load(run)
    (run / "plan.json").unlink()
    with pytest.raises(Refused, match="cannot be read"):
        load(run)


def test_a_broken_chain_is_not_judged(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    path = run / "journal.ndjson"
    path.write_bytes(path.read_bytes().replace(b'"firing":true', b'"firing":false'))
    with pytest.raises(JournalBroken):
        load(run)


@pytest.mark.parametrize(("scenario", "word"), [("pass", "PASS"), ("unhealthy-baseline", "FAIL"), ("hogs", "INVALID")])
def test_the_gate_judges_the_baseline_while_the_run_goes_on(tmp_path: Path, scenario: str, word: str) -> None:
    run = make_run(tmp_path / "run", scenario=scenario)
    found = load(run)
    edge = phases(found.plan, found.events)["baseline"].end_ms
    events = tuple(r for r in found.events if r.mono_ms < edge - 8 and not isinstance(r.event, ev.AbortRequested))
    live = so_far(run, found.plan, events)
    # what was intended in the last seconds is not all answered, and so not all written
    done_us = (edge - live.records[0].epoch_mono_ns / 1e6) * 1000
    rows = live.records[0].rows
    written = rows[rows["intended_us"].astype(float) + rows["latency_us"] < done_us]
    judged = judge_baseline(live.plan, live.events, (replace(live.records[0], rows=written),))
    assert [item.verdict for item in judged] == [word]
    assert judged[0].n > 500


def test_the_gate_stays_shut_before_there_is_a_baseline(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    found = load(run)
    judged = judge_baseline(found.plan, found.events[:30], found.records)
    assert [item.verdict for item in judged] == ["INCONCLUSIVE"]
