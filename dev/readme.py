"""Fill the marked places of README.md from a real run: what the terminal showed, and the pictures of its review.

    python dev/readme.py RUN_DIR [--output FILE] [--picture NAME ...]

A place is `<!-- output:NAME -->` or `<!-- pictures:NAME -->` up to its closing mark; NAME is the experiment's. FILE is
what `stormdrill run` printed (`make demo | tee FILE`); without it, the run is told from its record. Nothing is typed by
hand, so that README shows what the tool does.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from html import unescape
from pathlib import Path

from stormdrill.cli.past import story_lines
from stormdrill.model.event import RunStarted
from stormdrill.store.journal import NAME, salvage

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PICTURES = ROOT / "docs" / "pictures"
WIDTH = 100


def fill(text: str, kind: str, name: str, content: str) -> str:
    """`text` with the marked place replaced. Raises LookupError when there is none."""
    place = re.compile(rf"(<!-- {kind}:{re.escape(name)} -->\n).*?(<!-- /{kind}:{re.escape(name)} -->)", re.DOTALL)
    filled, count = place.subn(lambda found: f"{found[1]}{content}{found[2]}", text)
    if count != 1:
        raise LookupError(f"README.md has {count} places <!-- {kind}:{name} -->; one is meant")
    return filled


def experiment_of(run_dir: Path) -> str:
    for recorded in salvage(run_dir / NAME).events:
        if isinstance(recorded.event, RunStarted):
            return recorded.event.experiment
    raise LookupError(f"{run_dir} has no run-started")


def told(run_dir: Path, output: Path | None) -> str:
    if output is not None:
        lines = output.read_text(encoding="utf-8").splitlines()
    else:
        lines = story_lines(run_dir, WIDTH)
        lines[-1] = re.sub(r"record +\S+", f"record   runs/{run_dir.name}", lines[-1])
    body = "\n".join(line.rstrip() for line in lines).strip("\n")
    return f"```text\n$ stormdrill run experiments/{experiment_of(run_dir)}.yaml\n\n{body}\n```\n"


def pictures(run_dir: Path, name: str, chosen: Sequence[str]) -> str:
    """Copy the chosen pictures of the review and return their Markdown, each with its own title as alternative text."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    links = []
    for word in chosen:
        picture = run_dir / "pictures" / f"{word}.svg"
        kept = PICTURES / f"{name}-{picture.name}"
        shutil.copyfile(picture, kept)
        title = re.search(r"<title[^>]*>(.*?)</title>", picture.read_text(encoding="utf-8"), re.DOTALL)
        alternative = " ".join(unescape(title[1]).split()) if title else picture.stem
        links.append(f"![{alternative}]({kept.relative_to(ROOT).as_posix()})\n")
    return "\n".join(links)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python dev/readme.py", description="Fill README.md from a real run.")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--output", type=Path, help="what the run printed; without it, its record is told")
    parser.add_argument("--picture", action="append", help="a picture of the review; story when none is named")
    given = parser.parse_args()
    name = experiment_of(given.run_dir)
    text = README.read_text(encoding="utf-8")
    text = fill(text, "output", name, told(given.run_dir, given.output))
    text = fill(text, "pictures", name, pictures(given.run_dir, name, given.picture or ["story"]))
    README.write_text(text, encoding="utf-8")
    print(f"README.md shows {given.run_dir.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
