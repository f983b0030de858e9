"""Whether the verdicts are true: the demo passes in full length, and a starved machine is told from a failure.

Needs a machine with nothing else to do; half an hour. What the experiments catch, and that the sound platform is never
failed by any of them, is `make detect`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench.figure import Figure, at_most

SOUND, STARVED, HOGS = 20, 2, 4
EXPERIMENT = "experiments/region-loss.yaml"
HOG = "while True: pass"


class Run(NamedTuple):
    exit_code: int
    verdict: str
    lost: float
    dir: str


def measure(quick: bool) -> Iterator[Figure]:
    """The 20 sound runs are full ones; those beside hogs are `--fast`."""
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        sound = [one(state, *(["--fast"] if quick else [])) for _ in range(2 if quick else SOUND)]
        yield _all("region_loss_passes", sound, "PASS")
        rendered = [_review_s(run) for run in sound[:5]]
        yield at_most("review_of_the_demo", median(rendered), "s", 2.0)
        starved = [_beside_hogs(state) for _ in range(1 if quick else STARVED)]
        yield _all("beside_hogs_invalid", starved, "INVALID")


def one(state: Path, *arguments: str) -> Run:
    done = subprocess.run(
        [sys.executable, "-m", "stormdrill", "run", EXPERIMENT, "--json", "--runs", str(state / "runs"), *arguments],
        env={**os.environ, "XDG_STATE_HOME": str(state)},
        capture_output=True,
        text=True,
        check=False,
    )
    told = json.loads(done.stdout)
    lost = sum(item["value"] or 0 for item in told["objectives"] if item["name"].startswith("jobs_"))
    print(f"    {done.returncode} {told['verdict']:<12} jobs lost or doubled {lost:.0f}", flush=True)
    return Run(done.returncode, str(told["verdict"]), lost, str(told["dir"]))


def _beside_hogs(state: Path) -> Run:
    hogs = [subprocess.Popen([sys.executable, "-c", HOG]) for _ in range(HOGS)]
    try:
        return one(state, "--fast")
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


def _review_s(run: Run) -> float:
    """A whole process that renders the review again, imports included."""
    code = "import sys; from pathlib import Path; from stormdrill.review import render; render(Path(sys.argv[1]))"
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, run.dir], check=True)
    return time.perf_counter() - began


def _all(name: str, runs: list[Run], wanted: str) -> Figure:
    """How many of the runs ended with the wanted word; all of them are asked for."""
    words = Counter(run.verdict for run in runs)
    return Figure(name, words[wanted], "runs", f">= {len(runs)}", words[wanted] == len(runs))
