"""The reference pages name every key that the models know, and their examples are read as they stand."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from msgspec import Struct

from stormdrill.faults.region_loss import Parameters
from stormdrill.spec import files, files_kubernetes, files_load, files_sources, files_system
from stormdrill.spec.expression import LOAD_METRICS, measure_of
from stormdrill.spec.load import read_experiment
from stormdrill.spec.policy import read_policy
from stormdrill.spec.profile import read_profile
from stormdrill.spec.system import read_system

PAGES = Path(__file__).parents[3] / "docs" / "reference"
REPOSITORY = Path(__file__).parent / "repository"
MODELS: dict[str, tuple[type[Struct], ...]] = {
    "experiment": (
        files.ExperimentFile,
        files.PhasesFile,
        files_load.LoadFile,
        files.FaultTimes,
        files.RunbookFile,
        files.FastFile,
    ),
    "system": (
        files_system.SystemFile,
        files_system.ProcessFile,
        files_system.ServiceFile,
        files_system.DependencyFile,
        files_sources.MetricFile,
        files_sources.AlertFile,
        files_sources.ServersFile,
        files_sources.ServerFile,
        files_sources.IndicatorsFile,
        files_sources.TrafficFile,
        files_sources.PressureFile,
        files_sources.QueueFile,
        files_sources.HopFile,
        files_sources.BreakerFile,
        files_system.JobsFile,
        files_system.DockerFile,
        files_system.ContainerFile,
        files_system.LimitsFile,
        files_system.ReleaseFile,
        files_kubernetes.KubernetesFile,
        files_kubernetes.PodFile,
        files_kubernetes.ClusterImageFile,
        files_kubernetes.GpuFile,
        files_kubernetes.StandsForFile,
        files_kubernetes.ClusterReleaseFile,
        files_kubernetes.ClusterLoadFile,
    ),
    "policy": (files.PolicyFile,),
    "profile": (
        files_load.ProfileFile,
        files_load.PieceFile,
        files_load.RampFile,
        files_load.SpikeFile,
        files_load.DayFile,
        files_load.MonthEndFile,
        files_load.FailoverFile,
        files_load.BacklogFile,
        files_load.StepsFile,
        files_load.EpisodesFile,
        files_load.DownFile,
        files_load.ReplayFile,
        files_load.RetryFile,
        files_load.StreamFile,
    ),
}


def example(page: str, tmp_path: Path, name: str) -> Path:
    found = re.search(r"^```yaml\n(.*?)^```", (PAGES / f"{page}.md").read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(found[1])
    return path


@pytest.mark.parametrize("page", sorted(MODELS))
def test_a_page_names_every_key(page: str) -> None:
    text = (PAGES / f"{page}.md").read_text()
    keys = {key for model in MODELS[page] for key in model.__struct_encode_fields__}
    assert [key for key in sorted(keys) if f"`{key}`" not in text] == []


def test_the_page_on_expressions_names_every_metric() -> None:
    text = (PAGES / "expressions.md").read_text()
    assert [metric for metric in LOAD_METRICS if f"`{metric}`" not in text] == []


@pytest.mark.parametrize("page", ["system", "expressions"])
@pytest.mark.parametrize("ending", ["_seconds", "_seconds_total", "_bytes", "_bytes_total"])
def test_the_pages_say_by_which_ending_a_sample_has_a_unit(page: str, ending: str) -> None:
    assert measure_of(f"anything{ending}") != "count"
    assert f"`{ending}`" in (PAGES / f"{page}.md").read_text()


def test_the_page_on_systems_says_what_can_t_be_asked_without_a_ledger() -> None:
    (row,) = re.findall(r"^\| `jobs` \|.*", (PAGES / "system.md").read_text(), re.MULTILINE)
    assert [metric for metric in LOAD_METRICS if metric.startswith("jobs_") and f"`{metric}`" not in row] == []


def test_the_examples_are_read_as_they_stand(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY, tmp_path / "repository")
    path = example("experiment", tmp_path / "repository" / "experiments", "example.yaml")
    for fast in (False, True):
        read_experiment(path, faults={"region-loss": Parameters}, fast=fast)
    assert len(read_system(example("system", tmp_path, "shop.yaml")).instances) == 4
    assert read_policy(example("policy", tmp_path, "policy.yaml")).windows
    assert len(read_profile(example("profile", tmp_path, "burst.yaml")).shape) == 3
