"""A plan at length says all that a person needs to agree to it, and a program gets the same."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from stormdrill import api
from stormdrill.cli.blueprint import blueprint_lines, blueprint_object
from stormdrill.cli.commands.listing import find_items
from stormdrill.cli.commands.plan import _asked
from stormdrill.cli.outline import plan_lines
from stormdrill.core.reach import touched
from stormdrill.model.mechanism import Toxic
from stormdrill.model.plan import Plan


@pytest.fixture(scope="module")
def made(repository: Path) -> Plan:
    return api.plan(repository / "experiments" / "region-loss.yaml", seed=7)


def test_every_hit_instance_stands_there_with_its_labels_its_mechanism_its_time_and_its_undo(made: Plan) -> None:
    lines = blueprint_lines(made, ["x.yaml"])
    for name in ("gateway-eu", "cpu-eu", "gpu-eu"):
        (line,) = [line for line in lines if f" {name} " in line]
        assert "freeze" in line
        assert "for 30 s" in line
        assert "undo: thaw" in line
        assert "region=eu" in line


def test_the_rest_is_said_in_a_fixed_order_and_fits_the_width(made: Plan) -> None:
    for width in (60, 80, 100):
        lines = blueprint_lines(made, ["x.yaml"], width)
        words = [line[2:16].strip() for line in lines if line[2:3].strip() and not line.startswith("   ")]
        order = ["worst case", "not undone", "needs", "takes", "load", "judges", "guards", "runbook", "digest"]
        assert [word for word in words if word in order] == order
        assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    assert "gateway 1 of 2 left (50%)" in text
    assert "warm-up 5 s, baseline 20 s, fault 30 s, recovery 20 s" in text
    assert "region-loss, on alert(RegionDown), at the latest 12 s into the fault; approved beforehand: shed" in text
    assert f"--plan {made.digest}" in text


@pytest.mark.parametrize("width", [60, 80, 100])
def test_every_shipped_plan_fits_the_width_and_names_all_who_are_hit(repository: Path, width: int) -> None:
    for path in sorted((repository / "experiments").glob("*.yaml")):
        if path.stem in ("cpu-starvation", "bad-release", "quota-exhaustion", "segmentation"):
            continue  # which processes can't do
        made = api.plan(path, seed=7)
        lines = blueprint_lines(made, ["x.yaml"], width)
        assert max(map(len, lines)) <= width, path.name
        rows = {line.split()[1] for line in lines if line.startswith("    ") and line[4] != " "}
        assert rows == {name for one in made.injections for name in touched(one)}, path.name
        said = " ".join(" ".join(lines).split())
        hops = [one.how.hops for one in made.injections if isinstance(one.how, Toxic)]
        assert " and 2 more" not in said
        assert all(name.partition(">")[0] in said for many in hops for name in many)


def test_both_sides_of_a_partition_have_their_line(repository: Path) -> None:
    lines = blueprint_lines(api.plan(repository / "experiments" / "partition.yaml", seed=7), ["x.yaml"])
    assert [line.split()[:2] for line in lines if line.startswith("    cut")] == [
        ["cut", "gateway-eu"],
        ["cut", "gateway-us"],
    ]


@pytest.mark.parametrize(
    ("experiment", "said"),
    [
        ("memory-leak", 'tell cpu-eu for 40 s undo: POST /releases/cpu {"version": "stable"}'),
        ("memory-leak", 'POST /releases/cpu {"version": "leaky"} to gateway-eu, which changes cpu-eu'),
        ("memory-leak", "cpu 1 of 2 may be killed at its memory limit (192 MB)"),
        ("late-dependency", 'undo: PUT /lag {"seconds": 0}'),
        ("noisy-neighbour", "80/s of POST /jobs (kind batch, tier 3) into edge-1, edge-2"),
        ("noisy-neighbour", "not undone jobs of the flood that were accepted stay in the system"),
    ],
)
def test_what_is_asked_of_the_system_is_said_with_what_takes_it_back(
    repository: Path, experiment: str, said: str
) -> None:
    lines = blueprint_lines(api.plan(repository / "experiments" / f"{experiment}.yaml", seed=7), ["x.yaml"])
    assert said in " ".join(" ".join(lines).split())


def test_a_program_is_told_the_same(made: Plan) -> None:
    told = json.loads(json.dumps(blueprint_object(made)))
    assert [one["instance"] for one in told["injections"]] == [one.instance for one in made.injections]
    assert [one["hits"] for one in told["injections"]] == [[one.instance] for one in made.injections]
    assert told["digest"] == made.digest
    assert told["worst_case"] == made.worst_case
    assert told["phases"]["fault"] == 30.0


def test_a_program_that_asks_for_a_plan_gets_one_object_when_it_is_refused(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "stormdrill", "plan", "nowhere.yaml", "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=30)
    assert done.returncode == 2
    told = json.loads(done.stdout)
    assert told["status"] == "refused"
    assert told["problems"][0]["what"] == "no such file"


@pytest.mark.parametrize("given", ["abc", "-1", "4294967296", "1.5", ""])
def test_an_odd_seed_is_said_to_be_none(given: str) -> None:
    argv = [sys.executable, "-m", "stormdrill", "plan", "x.yaml", f"--seed={given}"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2
    assert "is no seed; write a whole number from 0 to 4,294,967,295: --seed 7" in done.stderr


def test_the_list_says_of_an_experiment_what_it_breaks_and_where_it_runs(repository: Path) -> None:
    (found,) = [item for item in find_items(repository) if (item.kind, item.name) == ("experiments", "region-loss")]
    assert (list(found.faults), list(found.targets)) == (["region-loss"], ["process", "docker", "kubernetes"])


def test_the_list_promises_no_target_that_the_plan_may_refuse(repository: Path) -> None:
    argv = [sys.executable, "-m", "stormdrill", "list", str(repository)]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30).stdout
    assert "cpu-starvation · its system has sections for process, docker" in shown
    assert "runs on" not in shown


def test_the_command_that_a_plan_ends_with_runs_just_this_plan(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    path = str(repository / "experiments" / "region-loss.yaml")
    options = ["--set", "region=us", "--set", "bug=no-failover", "--fast"]
    argv = [sys.executable, "-m", "stormdrill"]
    done = subprocess.run([*argv, "plan", path, *options], capture_output=True, text=True, check=True, timeout=30)
    shown = done.stdout[done.stdout.index("stormdrill run ") :]
    said = shlex.split(shown.replace("\\\n", ""))  # as a shell joins continued lines
    digest = said.pop()
    assert said[:3] == ["stormdrill", "run", path]
    assert said[-1] == "--plan"
    again = subprocess.run(
        [*argv, "plan", *said[2:-1], "--json"], capture_output=True, text=True, check=True, timeout=30
    )
    assert json.loads(again.stdout)["digest"] == digest


def test_the_command_names_the_target_when_it_is_not_the_default(repository: Path) -> None:
    assert _asked("docker", {}, False) == ["--target", "docker"]
    assert _asked("process", {}, False) == []


@pytest.mark.parametrize(
    ("experiment", "said"),
    [
        ("region-loss", "freeze 3 of 9 instances (gateway-eu, cpu-eu, gpu-eu) for 30 s"),
        ("gpu-pool-outage", "device 1 of 9 instances (gpu-eu) for 30 s"),
        ("partition", "cut 2 of 9 instances (gateway-eu, gateway-us) for 30 s"),
        ("memory-leak", "tell 1 of 9 instances (cpu-eu) for 40 s"),
    ],
)
def test_a_run_begins_by_naming_each_instance_that_is_hit_once(repository: Path, experiment: str, said: str) -> None:
    assert said in "\n".join(plan_lines(api.plan(repository / "experiments" / f"{experiment}.yaml", seed=7)))
