"""Every bad file of the corpus is refused with exactly what stands beside it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stormdrill.errors import Problem, Refused
from stormdrill.faults.region_loss import Parameters
from stormdrill.spec.load import read_experiment
from stormdrill.spec.policy import read_policy
from stormdrill.spec.profile import read_profile
from stormdrill.spec.system import read_system

CORPUS = Path(__file__).parents[2] / "corpus" / "bad"
REPOSITORY = Path(__file__).parent / "repository"
FILES = sorted(CORPUS.glob("*/*.yaml"))
PLACED = re.compile(r"\w+/[\w-]+\.yaml:\d+:\d+: .")


def read(path: Path) -> object:
    if path.parent.name == "experiment":
        return read_experiment(path, faults={"region-loss": Parameters}, roots=(REPOSITORY,))
    return {"system": read_system, "policy": read_policy, "profile": read_profile}[path.parent.name](path)


def problems_of(path: Path) -> tuple[Problem, ...]:
    with pytest.raises(Refused) as refused:
        read(path)
    return refused.value.problems


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_bad_file_is_refused_with_place_what_and_fix(path: Path) -> None:
    said = [str(problem).replace(f"{CORPUS}/", "") for problem in problems_of(path)]
    assert said == path.with_suffix(".txt").read_text(encoding="utf-8").splitlines()
    assert all(PLACED.match(line) for line in said)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_problem_says_what_to_write_and_points_into_the_file(path: Path) -> None:
    lines = path.read_bytes().decode("utf-8", errors="replace").split("\n")
    for problem in problems_of(path):
        assert problem.fix
        assert 1 <= problem.line <= len(lines)
        assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1


def test_the_corpus_holds_at_least_a_hundred_files() -> None:
    assert len(FILES) >= 100
