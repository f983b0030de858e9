"""Judging 0.1, 1 and 10 million records with block-bootstrap intervals: time and memory of a whole process of its own.

The rows lie as a generator writes them, in the order of their ends.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench.figure import Figure, at_most

SIZES = {"hundred_thousand": 100_000, "million": 1_000_000, "ten_million": 10_000_000}
MOST_S = {"hundred_thousand": 1.0, "million": 1.0, "ten_million": 3.0}
MOST_MB = {"hundred_thousand": 300.0, "million": 300.0, "ten_million": 600.0}
MOST_GROWTH = 1.25
"""Of the time a record between one million and ten: 1 is linear."""
ROUNDS = 5
RATE_PER_S = 4_000.0
TESTS = Path(__file__).parent.parent / "tests"

MAKE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import numpy as np
import synthetic_run
from stormdrill.model.experiment import Phases
rate, records = float(sys.argv[2]), int(sys.argv[4])
in_order = synthetic_run.make_rows
def by_end(knobs, edges):
    rows = in_order(knobs, edges)
    return rows[np.argsort(rows["intended_us"] + rows["latency_us"], kind="stable")]
synthetic_run.make_rows = by_end
length = records / rate * 1.02
phases = Phases(length * 0.05, length * 0.25, length * 0.5, length * 0.2)
synthetic_run.make_run(Path(sys.argv[1]), rate_per_s=rate, ledger=False, phases=phases)
"""
JUDGE = """
import json, resource, sys, time
from pathlib import Path
import numpy, msgspec
from stormdrill.core.judge import judge
from stormdrill.store.evidence import load
began = time.perf_counter()
found = load(Path(sys.argv[1]))
read = time.perf_counter()
verdict = judge(found.plan, found.events, found.records, found.ledger)
done = time.perf_counter()
print(json.dumps({
    "read_s": read - began, "judge_s": done - read, "records": sum(len(item.rows) for item in found.records),
    "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    "words": [item.verdict for item in verdict.objectives],
}))
"""
DIGEST = """
import hashlib, json, sys, time
from pathlib import Path
began = time.perf_counter()
with (Path(sys.argv[1]) / "load" / "worker-0.records").open("rb") as file:
    hashlib.file_digest(file, "sha256")
print(json.dumps({"digest_s": time.perf_counter() - began}))
"""


def measure(quick: bool) -> Iterator[Figure]:
    """All sizes in turn, round by round: what else the machine does falls on each of them alike."""
    sizes = {name: count // 10 if quick else count for name, count in SIZES.items()}
    with TemporaryDirectory() as folder:
        for name, count in sizes.items():
            made = [sys.executable, "-c", MAKE, str(Path(folder) / name), str(RATE_PER_S), str(TESTS), str(count)]
            subprocess.run(made, check=True)
        rounds = [_round(Path(folder), sizes) for _ in range(1 if quick else ROUNDS)]
    for name in sizes:
        yield at_most(f"judge_{name}_records", _median(rounds, name, "process_s"), "s", MOST_S[name])
        yield at_most(f"judge_{name}_memory", _median(rounds, name, "mb"), "MB", MOST_MB[name])
    for part in ("read_s", "judge_s", "digest_s"):
        found = _median(rounds, "ten_million", part)
        yield Figure(f"judge_ten_million_{part.removesuffix('_s')}_alone", round(found, 4), "s", "", None)
    inside = [_median(rounds, name, "read_s") + _median(rounds, name, "judge_s") for name in ("million", "ten_million")]
    yield at_most("judge_growth_a_record", inside[1] / inside[0] / 10, "", MOST_GROWTH)


def _round(folder: Path, sizes: dict[str, int]) -> dict[str, dict[str, float]]:
    found = {}
    for name, count in sizes.items():
        began = time.perf_counter()
        told = _told(JUDGE, folder / name)
        told["process_s"] = time.perf_counter() - began
        if told["records"] < count:
            raise ValueError(f"only {told['records']:,.0f} records were made, {count:,} were meant")
        found[name] = told | _told(DIGEST, folder / name)
    return found


def _told(code: str, run: Path) -> dict[str, float]:
    ran = subprocess.run([sys.executable, "-c", code, str(run)], check=True, capture_output=True)
    found: dict[str, float] = json.loads(ran.stdout)
    return found


def _median(rounds: list[dict[str, dict[str, float]]], name: str, part: str) -> float:
    return median(item[name][part] for item in rounds)
