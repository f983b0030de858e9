"""The shipped experiments, unchanged, on processes and in containers: they pass, and leave nothing in place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from drill import STARVED, TRIES, Outcome, wait_for_quiet

GROUPS = (
    ("region-loss", "gpu-pool-outage"),
    ("late-dependency", "queue-backlog"),
    ("node-loss", "partition"),
    ("memory-leak",),
)
"""Begun together: of two that last about as long, neither starts or ends while the other is measured."""
SHIPPED = [name for group in GROUPS for name in group]
LIMIT_S = 120.0
Drilled = Callable[[str, str], Outcome]


@pytest.fixture(scope="module")
def drilled(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Drilled:
    """How an experiment went on a target; the first to ask has its whole group drilled."""
    known: dict[tuple[str, str], Outcome] = {}

    def ask(experiment: str, target: str) -> Outcome:
        group = next(group for group in GROUPS if experiment in group)
        if (experiment, target) not in known:
            places = {name: tmp_path_factory.mktemp(f"{name}-{target}") for name in group}
            known.update({(name, target): one for name, one in together(repository, target, places).items()})
        return known[experiment, target]

    return ask


def together(repository: Path, target: str, places: dict[str, Path]) -> dict[str, Outcome]:
    """Drilled again, a bounded number of times, only where strangers starved this machine and nothing FAILed."""
    ended: dict[str, Outcome] = {}
    for number in range(TRIES):
        if number and len(places) > 1:  # they took the cores from each other
            left = {name: place for name, place in places.items() if name not in ended}
            return {**ended, **{name: together(repository, target, {name: left[name]})[name] for name in left}}
        begun = {name: start(repository, name, target, place) for name, place in places.items() if name not in ended}
        for name, process in begun.items():
            out, progress = process.communicate(timeout=LIMIT_S)
            outcome = Outcome(process.returncode, json.loads(out or "{}"), progress)
            if outcome.code != 3 or STARVED not in " ".join(progress.split()):  # lines are wrapped
                ended[name] = outcome
        if len(ended) == len(places):
            return ended
        wait_for_quiet()
    raise AssertionError(f"this machine is too busy to judge {', '.join(set(places) - set(ended))} on {target}")


def start(repository: Path, name: str, target: str, place: Path) -> subprocess.Popen[str]:
    words = ["run", f"experiments/{name}.yaml", "--fast", "--json", "--target", target, "--runs", str(place / "runs")]
    return subprocess.Popen(
        [sys.executable, "-m", "stormdrill", *words],
        cwd=repository,
        env={**os.environ, "XDG_STATE_HOME": str(place)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def passed(outcome: Outcome) -> None:
    assert outcome.words == (0, "completed", "PASS"), outcome.progress
    faults = outcome.told["faults"]
    assert faults, "nothing was harmed"
    assert all(fault["reverted"] for fault in faults), faults  # type: ignore[attr-defined]


@pytest.mark.parametrize("experiment", SHIPPED)
def test_the_sound_platform_of_processes_survives(drilled: Drilled, experiment: str) -> None:
    passed(drilled(experiment, "process"))


@pytest.mark.docker
@pytest.mark.parametrize("experiment", SHIPPED)
def test_the_sound_platform_in_containers_survives(drilled: Drilled, engine: str, experiment: str) -> None:
    passed(drilled(experiment, "docker"))
