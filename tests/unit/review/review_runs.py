"""Judged run directories for the review's tests: a synthetic run, and the verdict that the judge finds in it."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from stormdrill.core.judge import judge
from stormdrill.store.evidence import load
from synthetic_run import make_run


def make(run_dir: Path, scenario: str = "pass", **knobs: object) -> Path:
    make_run(run_dir, scenario=scenario, **knobs)
    return judged(run_dir)


def judged(run_dir: Path) -> Path:
    found = load(run_dir)
    verdict = judge(found.plan, found.events, found.records, found.ledger)
    (run_dir / "verdict.json").write_bytes(msgspec.json.format(msgspec.json.encode(verdict)))
    return run_dir


def change(path: Path, **changes: object) -> None:
    """Other values in a JSON file's outermost object."""
    values = json.loads(path.read_bytes())
    values.update(changes)
    path.write_text(json.dumps(values), encoding="utf-8")
