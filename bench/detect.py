"""`make detect`: do the experiments see what they say that they see, and do they leave the sound platform alone?

    python -m bench.detect [--runs N] [--bug-runs N] [--only EXPERIMENT] [--bugs NAME,…] [--target process|docker]
                           [--at-once N] [--resume] [--write-docs]

Each resilience bug of the system with each experiment that names it under `catches`, with `--fast`; then the sound
system under every experiment. Needs a machine with little else to do. Exit code 0: every bug was caught and the sound
system never failed; 1: not so; 3: something could not be judged.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench.detection import (
    DECIDED,
    SOUND,
    Asked,
    Pair,
    Seen,
    Sum,
    Word,
    added_up,
    cells,
    following,
    rows,
    said_by,
    seconds_left,
)
from stormdrill.faults.builtin import BUILTIN
from stormdrill.model.verdict import Verdict
from stormdrill.spec.load import BUG, read_experiment
from stormdrill.spec.parameters import declared
from stormdrill.spec.yaml import parse, read_text
from stormdrill.targets.portable.elsewhere import possible

RESULT = Path("build/detect.json")
KEPT = Path("build/detect-runs")
"""Run directories of what came out otherwise than it should; the others are removed."""
PAGE = Path("docs/reference/detection.md")
TABLE = "<!-- the table is written by `make detect DETECT=--write-docs` -->"
LOOKED_AT = ("src", "experiments", "loadgen", "runbooks", "policy.yaml")
"""What a figure of detection speaks of: a change elsewhere leaves it true."""
AT_ONCE = 2 if (os.cpu_count() or 1) > 1 else 1
"""A run needs a quarter of a core but for its start. What one takes from another is seen: INVALID, and repeated."""
RUN_LIMIT_S, END_LIMIT_S = 180.0, 60.0
REFUSED, JUDGED = 2, (0, 1, 3)
"""Exit codes; any other means that something was left behind, stopped or broke off."""


class Kept(msgspec.Struct, frozen=True):
    """build/detect.json."""

    revision: str
    target: str
    asked: Asked
    began: str
    cores: int
    runs: tuple[Seen, ...]
    line: str = ""
    exit_code: int = 3


class Options(NamedTuple):
    target: str
    limit_s: float
    state: Path
    at_once: int


def main() -> int:
    said = arguments()
    asked = what_is_asked(said)
    before = earlier(said.target) if said.resume else None
    began = before.began if before else datetime.now(UTC).isoformat(timespec="seconds")
    seen = list(before.runs) if before else []
    shown = Options(said.target, said.hours * 3600, Path(tempfile.mkdtemp(prefix="stormdrill-detect-")), said.at_once)
    since = revision()
    for number in (signal.SIGTERM, signal.SIGINT):  # a shell's job in the background begins with SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    to_go = sum(cell.open for cell in cells(asked, seen).values())
    print(f"  {len(asked.wanted())} pairs, {to_go} runs to go, {os.cpu_count()} cores", flush=True)
    try:
        detect(asked, seen, shown, lambda: keep(asked, seen, said.target, began, since))
    except KeyboardInterrupt:
        print("  stopped; go on with --resume", flush=True)
    if not any(one.word == "BROKEN" for one in seen):
        shutil.rmtree(shown.state, ignore_errors=True)
    total = keep(asked, seen, said.target, began, since)
    show(asked, seen, total)
    if said.write_docs:
        write_page(asked, seen, total, said.target, over(since))
    return total.exit_code


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.detect", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=20, help="of the sound platform under each experiment")
    parser.add_argument("--bug-runs", type=int, default=2, help="of each bug with each experiment that names it")
    parser.add_argument("--only", action="append", default=[], metavar="EXPERIMENT", help="repeatable")
    parser.add_argument("--bugs", default="", metavar="NAME,…", help="these only; `none` is the sound platform")
    parser.add_argument("--target", choices=("process", "docker"), default="process")
    parser.add_argument(
        "--at-once", type=int, default=AT_ONCE, metavar="N", help="runs of the sound platform side by side"
    )
    parser.add_argument("--hours", type=float, default=2.0, help="nothing is started after that")
    parser.add_argument("--resume", action="store_true", help=f"go on with {RESULT}, of the same revision")
    parser.add_argument("--write-docs", action="store_true", help=f"put the table into {PAGE}")
    return parser.parse_args()


def what_is_asked(said: argparse.Namespace) -> Asked:
    """From the files: every experiment that the target can do, with what it catches, and every bug of the systems that
    they name."""
    faults = {word: fault.parameters for word, fault in BUILTIN.items()}
    catches: dict[str, tuple[str, ...]] = {}
    known: dict[str, None] = {}
    alone: list[str] = []
    for path in sorted(Path("experiments").glob("*.yaml")):
        experiment = read_experiment(path, faults=faults, fast=True, target="").experiment
        bugs = bugs_of(experiment.system)
        if bugs and possible(said.target, [use.word for use in experiment.faults]):
            catches[experiment.name] = experiment.catches
            if not experiment.faults:
                alone.append(experiment.name)
            known.update(dict.fromkeys(bugs))
    wanted = [name for name in said.bugs.split(",") if name]
    unknown = [name for name in (*said.only, *wanted) if name not in (*catches, *known, SOUND)]
    if unknown:
        raise SystemExit(f"no such experiment or bug: {', '.join(unknown)}; there are {', '.join((*catches, *known))}")
    looked = {name: bugs for name, bugs in catches.items() if not said.only or name in said.only}
    mine = [bug for bug in known if bug in wanted] if wanted else list(known)
    if said.only:
        mine = [bug for bug in mine if any(bug in bugs for bugs in looked.values())]
    sound = said.runs if not wanted or SOUND in wanted else 0
    return Asked(tuple(mine), looked, sound, said.bug_runs, tuple(alone))


def bugs_of(system: str) -> list[str]:
    """The choices of the system's parameter, but for its default."""
    path = Path("experiments/systems") / f"{system}.yaml"
    parameter = declared(parse(str(path), read_text(path))).get(BUG)
    return [str(choice) for choice in parameter.choices if choice != parameter.default] if parameter else []


def detect(asked: Asked, seen: list[Seen], options: Options, keep_all: Callable[[], object]) -> None:
    """One pair after the other until nothing is open or the time is over."""
    until_s = time.monotonic() + options.limit_s
    while (pair := following(asked, seen)) is not None:
        left_s = seconds_left(asked, seen) / options.at_once
        if time.monotonic() >= until_s:
            print(f"  the time is over; about {left_s / 60:.0f} min are missing: go on with --resume", flush=True)
            return
        at_once = 1 if pair.experiment in asked.alone else options.at_once
        found = run(pair, min(at_once, cells(asked, seen)[pair].open), options)
        seen.extend(found)
        keep_all()
        for one in found:
            told = "; ".join(one.by) or one.why
            left = f"{seconds_left(asked, seen) / options.at_once:5.0f} s left"
            print(f"  {left}  {pair.text:<40} {one.word:<12} {one.took_s:3.0f} s  {told}"[:180], flush=True)
        if any(one.word == "BROKEN" for one in found):
            print(f"  stopped: it may have left something behind; its record and state are in {options.state}")
            return


def run(pair: Pair, count: int, options: Options) -> list[Seen]:
    """So many runs that begin together, each a process of its own with a state of its own; all of them have ended.

    Together, because what starts or ends beside a run that is being measured takes the cores from it.
    """
    began_s = time.monotonic()
    places = [options.state / f"{number}" for number in range(count)]
    processes = [start(pair, options.target, place) for place in places]
    found = []
    try:
        for process, place in zip(processes, places, strict=True):
            one = finished(pair, process, began_s)
            if one.word != "BROKEN":
                put_away(place / "runs", keeping=one.word in DECIDED and one.word != expected(pair))
            found.append(one)
    except KeyboardInterrupt:
        for process in processes:
            stop(process)
        raise
    return found


def start(pair: Pair, target: str, place: Path) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "stormdrill", "run", f"experiments/{pair.experiment}.yaml", "--fast", "--json"]
    argv += ["--target", target, "--set", f"{BUG}={pair.bug}", "--runs", str(place / "runs")]
    environment = {**os.environ, "XDG_STATE_HOME": str(place)}
    return subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def finished(pair: Pair, process: subprocess.Popen[str], began_s: float) -> Seen:
    """What doesn't end, or must not go on, is stopped as a person would."""
    late = ""
    try:
        out, _ = process.communicate(timeout=max(1.0, RUN_LIMIT_S - (time.monotonic() - began_s)))
    except subprocess.TimeoutExpired:
        late = f"it had not ended after {RUN_LIMIT_S:.0f} s and was stopped"
        out = stop(process)
    return told(pair, process.returncode, out, late, time.monotonic() - began_s)


def stop(process: subprocess.Popen[str]) -> str:
    """As Ctrl-C does: it reverts and ends its system. Beyond that time its keeper does."""
    process.send_signal(signal.SIGINT)
    try:
        return process.communicate(timeout=END_LIMIT_S)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0]


def expected(pair: Pair) -> Word:
    return "PASS" if pair.bug == SOUND else "FAIL"


def told(pair: Pair, code: int, out: str, late: str, took_s: float) -> Seen:
    """What one run showed, by its exit code and its record."""
    try:
        result = json.loads(out)
        if problems := "; ".join(one["what"] for one in result.get("problems", [])):
            word: Word = "REFUSED" if code == REFUSED else "BROKEN"
            return Seen(pair.bug, pair.experiment, word, (), problems, round(took_s, 1))
        verdict = msgspec.json.decode((Path(result["dir"]) / "verdict.json").read_bytes(), type=Verdict)
    except (ValueError, TypeError, KeyError, OSError) as error:
        why = late or f"exit code {code}, and no verdict ({type(error).__name__})"
        return Seen(pair.bug, pair.experiment, "BROKEN", (), why, round(took_s, 1))
    word = verdict.verdict if code in JUDGED and not late else "BROKEN"
    by = said_by(verdict) if word == "FAIL" else ()
    why = "" if word == "PASS" else late or verdict.sentence
    return Seen(pair.bug, pair.experiment, word, by, why, round(took_s, 1))


def put_away(runs: Path, *, keeping: bool) -> None:
    if keeping and runs.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        for folder in runs.iterdir():
            shutil.move(str(folder), KEPT / folder.name)
            print(f"    kept: {KEPT / folder.name}", flush=True)
    shutil.rmtree(runs, ignore_errors=True)


def revision() -> str:
    """The commit, and whether what is looked at differs from it."""
    head = _git("rev-parse", "--short", "HEAD").strip()
    return f"{head} with changes" if _git("status", "--porcelain", "--", *LOOKED_AT).strip() else head


def over(since: str) -> str:
    """What the runs were of: two revisions, when what is looked at changed meanwhile; then nothing can be resumed."""
    now = revision()
    return since if now == since else f"{since} to {now}"


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, check=False, timeout=30).stdout


def earlier(target: str) -> Kept:
    try:
        kept = msgspec.json.decode(RESULT.read_bytes(), type=Kept)
    except (OSError, msgspec.MsgspecError) as error:
        raise SystemExit(f"{RESULT} can't be gone on with ({error}); leave --resume out") from None
    if (kept.revision, kept.target) != (revision(), target):
        raise SystemExit(f"{RESULT} is of {kept.revision} on {kept.target}; leave --resume out to begin anew")
    return kept


def keep(asked: Asked, seen: list[Seen], target: str, began: str, since: str) -> Sum:
    total = added_up(asked, seen)
    kept = Kept(
        revision=over(since),
        target=target,
        asked=asked,
        began=began,
        cores=os.cpu_count() or 1,
        runs=tuple(seen),
        line=total.line(),
        exit_code=total.exit_code,
    )
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=1) + b"\n")
    return total


def show(asked: Asked, seen: list[Seen], total: Sum) -> None:
    table = rows(asked, seen)
    widths = [max(len(row[column]) for row in table) for column in range(3)]
    print()
    for row in table:
        print(f"  {'  '.join(f'{text:<{size}}' for text, size in zip(row, (*widths, 0), strict=True))}".rstrip())
    print(f"\n  {total.line()}", flush=True)


def page_of(table: list[tuple[str, str, str, str]], heading: str, line: str) -> str:
    lines = [TABLE, "", heading, "", "| bug | experiment | came out | by |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in table]
    return "\n".join([*lines, "", f"{line[:1].upper()}{line[1:]}.", ""])


def write_page(asked: Asked, seen: list[Seen], total: Sum, target: str, of: str) -> None:
    day = datetime.now(UTC).date().isoformat()
    heading = f"On {day}, revision {of}, target {target}, {os.cpu_count()} cores, `--fast`:"
    above = PAGE.read_text(encoding="utf-8").partition(TABLE)[0]
    PAGE.write_text(above + page_of(rows(asked, seen), heading, total.line()), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
