"""What planning refuses, before anything is touched."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stormdrill import api
from stormdrill.errors import Refused


@pytest.fixture
def drill(tmp_path: Path, repository: Path) -> Path:
    for folder in ("experiments", "runbooks", "loadgen"):
        shutil.copytree(repository / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "experiments" / "region-loss.yaml"


def test_a_runbook_that_could_not_be_carried_out_is_refused_with_its_line(drill: Path) -> None:
    runbook = drill.parent.parent / "runbooks" / "region-loss.md"
    runbook.write_text(runbook.read_text().replace("risk=medium", "risk=odd"))
    with pytest.raises(Refused, match=r"region-loss\.md:\d+:\d+: risk=odd is unknown"):
        api.plan(drill)


def test_a_target_that_is_not_there_yet_is_refused_by_name(drill: Path) -> None:
    with pytest.raises(Refused, match="target kubernetes is not built yet"):
        api.plan(drill, "kubernetes")


def test_a_policy_can_forbid_what_the_file_asks_for(
    drill: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = tmp_path / "strict.yaml"
    policy.write_text("max_share: 10%\n")
    monkeypatch.setenv("STORMDRILL_POLICY", str(policy))
    with pytest.raises(Refused, match="10%"):
        api.plan(drill)


def test_the_digest_tells_what_is_harmed_and_not_with_which_seed(drill: Path) -> None:
    one, two = api.plan(drill, seed=1), api.plan(drill, seed=2)
    assert one.digest == two.digest
    assert api.plan(drill, settings={"region": "us"}).digest != one.digest
