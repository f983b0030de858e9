"""What planning refuses, before anything is touched."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stormdrill import api
from stormdrill.errors import Refused
from stormdrill.store import plans


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


def test_a_target_that_is_not_there_is_refused_by_name(drill: Path) -> None:
    with pytest.raises(Refused, match="no target nomad"):
        api.plan(drill, "nomad")


def in_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Path:
    policy = tmp_path / "in-force.yaml"
    policy.write_text(text)
    monkeypatch.setenv("STORMDRILL_POLICY", str(policy))
    return policy


def test_a_policy_can_forbid_what_the_file_asks_for(
    drill: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = in_force(tmp_path, monkeypatch, "max_share: 10%\ntargets: [docker]\n")
    with pytest.raises(Refused) as refused:
        api.plan(drill)
    target, share = (str(problem) for problem in refused.value.problems)
    assert target == (
        f"{policy}:2:1: the target process is not allowed here, only docker; "
        "whoever owns the platform can add it under targets"
    )
    assert share.startswith(f"{policy}:1:1: ")
    assert share.endswith("10% is the most; select fewer; whoever owns the platform can raise max_share")


def test_what_a_policy_forbids_by_a_default_is_said_of_the_whole_file(
    drill: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = in_force(tmp_path, monkeypatch, "max_instances: 9\n")
    drill.write_text(drill.read_text().replace("rate: 60/s", "rate: 600/s"))
    with pytest.raises(Refused) as refused:
        api.plan(drill)
    (rate,) = (str(problem) for problem in refused.value.problems)
    assert rate.startswith(f"{policy}: ")
    assert rate.endswith("whoever owns the platform can raise max_rate")


def test_the_digest_tells_what_is_harmed_and_not_with_which_seed(drill: Path) -> None:
    one, two = api.plan(drill, seed=1), api.plan(drill, seed=2)
    assert one.digest == two.digest
    assert api.plan(drill, settings={"region": "us"}).digest != one.digest


def test_a_plan_that_is_no_longer_the_same_is_not_run_and_says_what_changed(
    drill: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    seen = api.plan(drill)
    with pytest.raises(Refused, match="what changed can't be said"):
        api.run(drill, settings={"region": "us"}, expected=seen.digest)
    assert api.keep_plan(seen)
    announced: list[object] = []
    with pytest.raises(Refused) as refused:
        api.run(drill, settings={"region": "us"}, expected=seen.digest[:6], announce=announced.append)
    said = [str(problem) for problem in refused.value.problems]
    assert said[0].startswith(f"the plan is {api.plan(drill, settings={'region': 'us'}).digest} now and not")
    assert "changed: experiment parameters region was eu and is us" in said
    assert any(line.startswith("changed: injection region-loss/cpu-eu is gone") for line in said)
    assert not announced, "a run that is refused does not show its plan first"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("file", "was", "now", "said"),
    [
        ("loadgen/peak.yaml", "deadline: 30s}", "deadline: 31s}",
         r"profile streams \S+ deadline_s was 30\.0 and is 31\.0"),
        ("loadgen/platform_user.py", "\n", "\n# another client\n", "locustfile was"),
        ("runbooks/region-loss.md", "\n\n", "\n\nOne more line for people.\n\n", "runbook was"),
        ("experiments/systems/platform.yaml", "to: gateway}", "to: gateway, lag: /lag}",
         r"system dependencies \S+ lag was .* and is /lag"),
        ("experiments/systems/platform.yaml", "admin: gateway", "admin: edge", "system admin was"),
        ("experiments/systems/platform.yaml", "RegionDown: {prometheus: alerts", "RegionDown: {prometheus: alarms",
         r"system alerts RegionDown prometheus was alerts and is alarms"),
        ("experiments/systems/platform.yaml", "path: /releases/cpu", "path: /versions/cpu",
         "system releases cpu path was /releases/cpu and is /versions/cpu"),
    ],
)  # fmt: skip
def test_whatever_a_run_goes_by_is_what_was_planned_or_it_is_refused_and_named(
    drill: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, was: str, now: str, said: str
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    seen = api.plan(drill)
    assert api.keep_plan(seen)
    path = drill.parent.parent / file
    assert was in path.read_text()
    path.write_text(path.read_text().replace(was, now, 1))
    with pytest.raises(Refused, match=f"changed: {said}"):
        api.run(drill, expected=seen.digest, runs_dir=tmp_path / "runs")


def test_the_last_fifty_plans_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for number in range(60):
        assert plans.keep(f"{number:012x}", {"n": str(number)})
    assert len(list((tmp_path / "stormdrill" / "plans").iterdir())) == plans.KEPT
    assert plans.known(f"{59:012x}") == {"n": "59"}
    assert plans.known(f"{1:012x}") is None
    assert plans.known("00000000") is None, "many begin so: none of them is meant"


def test_a_system_without_a_section_for_the_target_is_refused_with_what_to_write(drill: Path) -> None:
    system = drill.parent / "systems" / "platform.yaml"
    whole = system.read_text()
    system.write_text(whole[: whole.index("\ndocker:")] + whole[whole.index("\ndependencies:") :])
    with pytest.raises(Refused, match=r"no section docker: .*write\ndocker:\n  image: IMAGE"):
        api.plan(drill, "docker")


def test_a_system_file_is_checked_as_what_it_is(drill: Path) -> None:
    system = drill.parent / "systems" / "platform.yaml"
    assert api.validate_any(system) == "valid, as a system (9 instances on process)"
    assert api.validate_any(drill) == "valid"
    system.write_text(system.read_text().replace("entry: edge ", "entry: egde "))
    with pytest.raises(Refused, match="unknown service egde; write edge"):
        api.validate_any(system)


def _asking(drill: Path, faults: str) -> Path:
    """The same experiment with other faults, which begin in line 2."""
    text = drill.read_text()
    start, end = text.index("faults:\n"), text.index("objectives:\n")
    drill.write_text(f"faults:\n{faults}\n{text[:start]}{text[end:]}")
    return drill


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("late-dependency: {name: fed, delay: 3s}", "late-dependency would touch nothing: no dependency is named fed"),
        ("late-dependency: {name: feed, delay: 3s, stall: true}", "here: delay and stall together"),
        ("node-loss: {node: eu-workers, instance: cpu-eu}", "here: node and instance together"),
        ("memory-leak: {mode: release, release: foo}", "no release is named foo; declared here: cpu, gpu"),
        ("partition: {from: eu, to: mars}", "no instance has region=mars; regions here: eu, us"),
        ("queue-backlog: {slow: 300ms}", "queue-backlog names nobody"),
    ],
)
def test_what_a_fault_refuses_of_the_system_is_said_by_validate_too_and_with_its_line(
    drill: Path, fault: str, said: str
) -> None:
    _asking(drill, f"  - region-loss: {{region: eu}}\n  - {fault}")
    for look in (api.validate, api.plan):
        with pytest.raises(Refused) as refused:
            look(drill)
        (problem,) = refused.value.problems
        assert str(problem).startswith(f"{drill}:3:5: ")
        assert said in str(problem)


def test_what_a_target_cannot_do_is_said_with_the_line_that_asks_for_it(drill: Path) -> None:
    _asking(drill, "  - cpu-starvation: {instance: cpu-us, cpus: 0.1}")
    api.validate(drill)  # a container can
    with pytest.raises(
        Refused, match=r"region-loss\.yaml:2:5: cpu-starvation: a process has no CPU limit.*--target docker"
    ):
        api.plan(drill)


def test_two_faults_that_hold_the_same_are_said_with_the_line_of_the_first(drill: Path) -> None:
    _asking(drill, "  - region-loss: {region: eu}\n  - node-loss: {instance: cpu-eu}")
    with pytest.raises(Refused, match=r"region-loss\.yaml:2:5: region-loss/cpu-eu and node-loss-2/cpu-eu would hold"):
        api.plan(drill)


def test_a_name_where_a_path_is_meant_is_answered_with_the_path(drill: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(drill.parent.parent)
    for name in ("region-loss", "region-loss.yaml"):
        with pytest.raises(Refused, match=rf"^{name}: no such file; write experiments/region-loss\.yaml$"):
            api.plan(name)
    with pytest.raises(Refused, match=r"^nothing: no such file; check the path$"):
        api.plan("nothing")


def test_no_permission_is_asked_for_that_another_one_says(drill: Path) -> None:
    assert api.plan(drill).permissions == ("start and signal this user's own processes; listen on 127.0.0.1",)
