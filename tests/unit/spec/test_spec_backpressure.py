"""What `backpressure:` of an experiment means, and what an experiment without faults must have."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from msgspec import convert

from stormdrill.core.backpressure.asked import ASKED
from stormdrill.core.backpressure.registry import ORDER, SETS, builtin, known
from stormdrill.errors import Refused
from stormdrill.faults.region_loss import Parameters
from stormdrill.spec.load import Loaded, read_experiment
from stormdrill.spec.schema import schema

REPOSITORY = Path(__file__).parent / "repository"
TEXT = """title: More work than there is room for is turned away
hypothesis: At three times its capacity the platform does as much as at its capacity.
owner: serving
system: platform
load: {profile: stairs, rate: 60/s}
phases: {warmup: 5s, baseline: 20s, fault: 40s, recovery: 20s}
BACKPRESSURE
objectives:
  baseline:
    - success > 98%
"""
STAIRS = """like: peak
from: fault
steps: {each: 10s, factors: [0.5, 1, 2, 3]}
"""
PRESSURE = """
backpressure:
  queue: {depth: queue_depth, limit: queue_depth}
  in_flight: queue_depth
  hops: {gateway: {received: queue_depth, sent: queue_depth}}
"""


def repository(tmp_path: Path, backpressure: str, *, pressure: str = PRESSURE) -> Path:
    folder = tmp_path / "repo"
    shutil.copytree(REPOSITORY, folder)
    (folder / "loadgen" / "stairs.yaml").write_text(STAIRS)
    system = folder / "experiments" / "systems" / "platform.yaml"
    system.write_text(system.read_text() + pressure)
    path = folder / "experiments" / "overload.yaml"
    path.write_text(TEXT.replace("BACKPRESSURE", backpressure))
    return path


def read(path: Path, *, fast: bool = False) -> Loaded:
    return read_experiment(path, faults={"region-loss": Parameters}, fast=fast)


def test_every_word_has_its_module_its_parameters_and_its_place() -> None:
    assert known() == ORDER
    assert tuple(builtin()) == ORDER
    for word, check in builtin().items():
        assert check.word == word
        assert check.parameters is ASKED[word].parameters
        assert convert({}, check.parameters) == check.parameters()
    assert set(SETS["basic"]) < set(SETS["all"]) == set(ORDER)


def test_a_set_is_spelled_out_in_order_and_a_named_check_replaces_its_own(tmp_path: Path) -> None:
    path = repository(tmp_path, "backpressure: [recovery, {goodput-plateau: {least: 85%}}, basic, capacity]")
    uses = read(path).experiment.backpressure
    assert [use.word for use in uses] == [word for word in ORDER if word in (*SETS["basic"], "capacity")]
    assert next(use for use in uses if use.word == "goodput-plateau").parameters == {"least": "85%", "up_to": 3}
    assert uses[0].parameters == {"served": "99%", "least": "0/s"}


def test_an_experiment_without_faults_is_read(tmp_path: Path) -> None:
    found = read(repository(tmp_path, "backpressure: [admitted-latency]"))
    assert found.experiment.faults == ()
    assert found.profile is not None
    assert [stage.role for stage in found.profile.stages] == ["step"] * 4


def test_a_load_with_stages_is_enough_to_learn_from(tmp_path: Path) -> None:
    assert read(repository(tmp_path, "catches: []")).experiment.backpressure == ()


@pytest.mark.parametrize("fast", ["", "fast: {phases: {warmup: 1s, baseline: 4s, fault: 28s, recovery: 4s}}"])
def test_a_staircase_that_outlasts_the_fault_phase_is_refused_in_both_forms(tmp_path: Path, fast: str) -> None:
    path = repository(tmp_path, f"backpressure: [capacity]\n{fast}")
    if not fast:
        path.write_text(path.read_text().replace("fault: 40s", "fault: 28s"))
    with pytest.raises(Refused) as refused:
        read(path)
    said = [f"{one.what}; {one.fix}" for one in refused.value.problems]
    assert said == [
        "the load's stages go on for 12s after the fault phase (28s); write fault: 40s, or take fewer or shorter stages"
    ]


def test_fast_replaces_all_checks(tmp_path: Path) -> None:
    path = repository(tmp_path, "backpressure: [basic]\nfast: {backpressure: [capacity]}")
    assert [use.word for use in read(path, fast=True).experiment.backpressure] == ["capacity"]
    assert len(read(path).experiment.backpressure) == 5


def test_a_parameter_may_stand_for_a_threshold(tmp_path: Path) -> None:
    path = repository(tmp_path, "parameters: {kept: 80%}\nbackpressure: [{goodput-plateau: {least: $kept}}]")
    assert read(path).experiment.backpressure[0].parameters["least"] == "80%"


@pytest.mark.parametrize(("word", "what"), [("littles-law", "inside of it"), ("bounded-queue", "depth of a queue")])
def test_what_the_system_file_does_not_name_is_refused_at_the_check(tmp_path: Path, word: str, what: str) -> None:
    with pytest.raises(Refused) as refused:
        read(repository(tmp_path, f"backpressure:\n  - capacity\n  - {word}", pressure=""))
    problem = refused.value.problems[0]
    assert (problem.line, problem.column) == (9, 5)
    assert what in problem.what
    assert "in the system file" in problem.fix


def test_a_set_is_never_thinned_out_unsaid_and_what_can_be_asked_is_told(tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        read(repository(tmp_path, "backpressure: [all]"))
    last = refused.value.problems[-1]
    assert "all has breaker, which needs a fault" in last.what
    able = last.fix.partition("instead of all write ")[2]
    assert set(able.split(", ")) == set(ORDER) - {"breaker"}
    (tmp_path / "again").mkdir()
    again = read(repository(tmp_path / "again", f"backpressure: [{able}]"))
    assert [use.word for use in again.experiment.backpressure] == able.split(", ")


def test_the_schema_knows_every_check_and_its_thresholds() -> None:
    made = schema("experiment")
    entry = made["properties"]["backpressure"]["items"]
    assert entry["anyOf"][0]["enum"] == [*SETS, *ORDER]
    assert set(entry["anyOf"][1]["properties"]) == set(ORDER)
    assert "up_to" in entry["anyOf"][1]["properties"]["goodput-plateau"]["properties"]
    assert "faults" not in made["required"]
