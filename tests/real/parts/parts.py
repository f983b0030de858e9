"""A drill of a program that nobody here wrote, in a copy of its folder, as a user runs it."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from drill import STARVED, TRIES, Outcome, Repository, wait_for_quiet

from stormdrill.store.records import read_records

HERE = Path(__file__).parent
LIMIT_S = 300.0
"""For a test with all its tries."""


def needs(*programs: str, packages: str) -> pytest.MarkDecorator:
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"no {', '.join(missing)} here: install Debian's {packages}")


@dataclass
class Part:
    repository: Repository
    outcome: Outcome

    def objective(self, name: str) -> dict[str, object]:
        (found,) = [item for item in self.outcome.told["objectives"] if item["name"].startswith(name)]  # type: ignore[attr-defined]
        return found  # type: ignore[no-any-return]

    def missing(self, client: str) -> int:
        """How many writes of these clients were acknowledged and are not in the ledger: counted without stormdrill."""
        run_dir = self.repository.run_dir
        header, rows = read_records(run_dir / "load" / "worker-0.records")
        kinds = [index for index, item in enumerate(header["labels"]) if item["labels"].get("client") == client]
        acknowledged = {int(row["job"]) for row in rows if row["labels"] in kinds and row["status"] == 200}
        ledger = (run_dir / "load" / "jobs.ndjson").read_text(encoding="utf-8").splitlines()
        return len(acknowledged - {json.loads(line)["job"] for line in ledger})

    def events(self, kind: str) -> list[object]:
        return [item.event for item in self.repository.events() if item.event.type == kind]


def drilled(tmp_path: Path, part: str, experiment: str) -> Part:
    """Drilled again, a bounded number of times, only where strangers starved this machine and nothing FAILed."""
    root = tmp_path / part
    shutil.copytree(HERE / part, root, ignore=shutil.ignore_patterns("__pycache__", "runs"))
    repository = Repository(root)
    for _ in range(TRIES):
        done = repository.command("run", f"experiments/{experiment}.yaml", "--json")
        outcome = Outcome(done.returncode, json.loads(done.stdout or "{}"), done.stderr)
        if outcome.code != 3 or STARVED not in " ".join(outcome.progress.split()):  # lines are wrapped
            return Part(repository, outcome)
        wait_for_quiet()
    raise AssertionError(f"this machine is too busy to judge anything:\n{outcome.progress}")


def survived(part: Part, target: str, lost: str = "jobs_lost") -> None:
    """What every such drill owes: a PASS that rests on a fault that bit exactly its target and was seen to be gone."""
    outcome = part.outcome
    assert outcome.words == (0, "completed", "PASS"), outcome.progress
    (fault,) = outcome.told["faults"]  # type: ignore[misc]
    assert (fault["target"], fault["reverted"]) == (target, True)
    assert [item.bit for item in part.events("effect-observed")] == [True]  # type: ignore[attr-defined]
    assert part.events("revert-verified")[-1].gone  # type: ignore[attr-defined]
    kept = part.objective(lost)
    assert kept["value"] == 0
    assert kept["n"] > 100  # type: ignore[operator]
    assert part.repository.alive() == []
