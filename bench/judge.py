"""Judging a million records with block-bootstrap intervals: time and memory of a whole process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench.figure import Figure, at_most

RECORDS = 1_000_000
RATE_PER_S = 4_000.0
TESTS = Path(__file__).parent.parent / "tests"

MAKE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from stormdrill.model.experiment import Phases
from synthetic_run import make_run
rate, records = float(sys.argv[2]), int(sys.argv[4])
length = records / rate * 1.02
phases = Phases(length * 0.05, length * 0.25, length * 0.5, length * 0.2)
make_run(Path(sys.argv[1]), rate_per_s=rate, ledger=False, phases=phases)
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


def measure(quick: bool) -> Iterator[Figure]:
    records = RECORDS // 10 if quick else RECORDS
    with TemporaryDirectory() as folder:
        run = str(Path(folder) / "run")
        subprocess.run([sys.executable, "-c", MAKE, run, str(RATE_PER_S), str(TESTS), str(records)], check=True)
        rounds = []
        for _ in range(1 if quick else 5):
            ran = subprocess.run([sys.executable, "-c", JUDGE, run], check=True, capture_output=True)
            rounds.append(json.loads(ran.stdout))
    if rounds[0]["records"] < records:
        raise ValueError(f"only {rounds[0]['records']:,} records were made, {records:,} were meant")
    whole = median(item["read_s"] + item["judge_s"] for item in rounds)
    yield at_most("judge_million_records", whole, "s", 1.0)
    yield at_most("judge_million_memory", median(item["mb"] for item in rounds), "MB", 300.0)
    yield Figure("judge_million_without_reading", round(median(i["judge_s"] for i in rounds), 4), "s", "", None)
