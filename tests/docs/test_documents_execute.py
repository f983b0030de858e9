"""What README and docs tell people to type works: blocks marked `sh run` are executed, the README's YAML is read."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stormdrill import api
from stormdrill.core.reach import ends
from stormdrill.faults.builtin import BUILTIN
from stormdrill.spec.load import read_experiment

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```sh run\n(.*?)^```", re.MULTILINE | re.DOTALL)
CONTENT = ("experiments", "loadgen", "runbooks", "reviews")
DOCUMENTS = [
    page for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))] if BLOCK.search(page.read_text())
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_in_the_document_works(document: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    if document.name == "README.md":  # its reader stands in the repository
        for folder in CONTENT:
            shutil.copytree(ROOT / folder, home / folder)
        shutil.copy(ROOT / "policy.yaml", home)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for block in BLOCK.findall(document.read_text(encoding="utf-8")):
        here = home
        for line in block.splitlines():
            argv = shlex.split(line, comments=True)
            if argv and argv[0] == "cd":
                here /= argv[1]
            elif argv:
                done = subprocess.run(
                    argv, cwd=here, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
                )
                assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


def test_the_experiment_in_the_readme_is_ten_lines_that_validate(tmp_path: Path) -> None:
    found = re.search(
        r"^```yaml\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert found is not None
    assert len(found[1].splitlines()) == 10
    file = tmp_path / "experiments" / "readme.yaml"
    file.parent.mkdir()
    file.write_text(found[1], encoding="utf-8")
    loaded = read_experiment(file, faults={word: fault.parameters for word, fault in BUILTIN.items()})
    assert loaded.experiment.title == "Tier 1 survives losing a region"


def test_the_page_on_experiments_shows_several_faults_that_can_be_planned(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "reference" / "experiment.md").read_text(encoding="utf-8")
    whole, several, *_ = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    file = tmp_path / "experiments" / "several.yaml"
    file.parent.mkdir()
    file.write_text(re.sub(r"^faults:\n(?:  .*\n)+", several, whole, count=1, flags=re.MULTILINE), encoding="utf-8")
    plan = api.plan(file)
    assert [(one.word, one.start_s) for one in plan.experiment.faults] == [("late-dependency", 0), ("node-loss", 2)]
    slowed = {hop for one in plan.injections for hop in getattr(one.how, "hops", ())}
    frozen = {one.instance for one in plan.injections if one.mechanism == "freeze"}
    assert frozen & {caller for caller, _ in map(ends, slowed)}, "they overlap on one instance"
