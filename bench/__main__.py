"""`make bench`: measure everything, or the subjects that are named, and write build/bench.json.

    python -m bench [--quick] [SUBJECT ...]

Subjects are the modules of this folder with a `measure(quick)`. A subject measured alone replaces its own figures
in the file and leaves the others. Exit code 1 when a figure doesn't hold, or a subject could not be measured.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import traceback
from pathlib import Path

from bench.figure import Figure

FOLDER = Path(__file__).parent
RESULT = Path("build/bench.json")
NOT_SUBJECTS = {"__init__", "__main__", "figure"}


def subjects() -> list[str]:
    names = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in NOT_SUBJECTS)
    return [name for name in names if hasattr(importlib.import_module(f"bench.{name}"), "measure")]


def show(figure: Figure) -> str:
    holds = {True: "holds", False: "DOES NOT HOLD", None: ""}[figure.holds]
    value = f"{figure.value:,.4g}" if abs(figure.value) < 10_000 else f"{figure.value:,.0f}"
    return f"  {figure.name:<38} {value:>10} {figure.unit:<6} {figure.asked:<12} {holds}".rstrip()


def main() -> int:
    known = subjects()
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure what stormdrill promises.")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: to see that it works")
    parser.add_argument("subject", nargs="*", help=f"of {', '.join(known)}; none: all")
    asked = parser.parse_args()
    unknown = [name for name in asked.subject if name not in known]
    if unknown:
        parser.error(f"no such subject: {', '.join(unknown)}; there are {', '.join(known)}")
    RESULT.parent.mkdir(exist_ok=True)
    written: dict[str, dict[str, object]] = json.loads(RESULT.read_text()) if RESULT.exists() and asked.subject else {}
    bad = 0
    print(f"  {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {sys.version.split()[0]}")
    for name in asked.subject or known:
        print(f"{name} …", flush=True)
        try:
            for figure in importlib.import_module(f"bench.{name}").measure(asked.quick):
                print(show(figure), flush=True)
                bad += figure.holds is False
                kept = figure._asdict()
                written[str(kept.pop("name"))] = kept
        except Exception:
            # One subject that breaks must not cost the figures of the others; it is said, and counted.
            traceback.print_exc()
            bad += 1
        RESULT.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    print(
        f"  {len(written)} figures in {RESULT}; {bad} do not hold" if bad else f"  {len(written)} figures in {RESULT}"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
