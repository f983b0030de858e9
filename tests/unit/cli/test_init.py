"""What `stormdrill init` lays out, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stormdrill import api
from stormdrill.cli import main as line
from stormdrill.cli.scaffold import Own, command_text, files_for
from stormdrill.model.policy import Policy
from stormdrill.spec.policy import read_policy
from stormdrill.spec.profile import read_profile
from stormdrill.spec.runbook import read_runbook
from stormdrill.spec.system import read_system

SERVER = ("python3", "-m", "http.server", "--bind", "127.0.0.1", "$port")


def laid_out(folder: Path, own: Own) -> Path:
    for name, text in files_for(own, "# a Locust user").items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def leave(argv: list[str]) -> int:
    with pytest.raises(SystemExit) as left:
        line.main(argv)
    assert isinstance(left.value.code, int)
    return left.value.code


def test_a_free_port_gives_two_instances_so_that_something_survives(tmp_path: Path) -> None:
    system = read_system(laid_out(tmp_path, Own(SERVER, "free")) / "experiments/systems/app.yaml")
    assert {one.name: one.labels["region"] for one in system.instances} == {"app-blue": "blue", "app-green": "green"}
    assert {one.command for one in system.instances} == {SERVER}


def test_a_fixed_port_gives_one_instance_that_the_policy_lets_be_hit(tmp_path: Path) -> None:
    own = Own(("./serve",), 8080, "GET /healthz")
    folder = laid_out(tmp_path, own)
    (instance,) = read_system(folder / "experiments/systems/app.yaml").instances
    assert (instance.port, instance.ready and instance.ready.path) == (8080, "/healthz")
    assert read_policy(folder / "policy.yaml").max_share == 1.0
    assert read_profile(folder / "loadgen/steady.yaml").streams[0].parameters["path"] == "/healthz"


@pytest.mark.parametrize("own", [Own(SERVER, "free"), Own(("./serve",), 8080, "GET /healthz")])
@pytest.mark.parametrize("fast", [False, True])
def test_everything_that_is_laid_out_validates(own: Own, fast: bool, tmp_path: Path) -> None:
    folder = laid_out(tmp_path, own)
    api.validate(folder / "experiments/first-drill.yaml", {}, fast)
    api.plan(folder / "experiments/first-drill.yaml", fast=fast)
    assert read_runbook(folder / "runbooks/instance-silent.md").steps


def test_the_policy_that_is_laid_out_is_tighter_than_none(tmp_path: Path) -> None:
    policy = read_policy(laid_out(tmp_path, Own(SERVER, "free")) / "policy.yaml")
    assert policy.faults
    assert policy.max_fault_s < Policy().max_fault_s
    assert policy.max_rate_per_s < Policy().max_rate_per_s


@given(
    argv=st.lists(
        st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=12), min_size=1, max_size=5
    )
)
def test_any_argument_vector_reads_back_as_it_was_given(
    argv: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("own")
    given_argv = ["server", *argv]
    system = read_system(laid_out(folder, Own(tuple(given_argv), 8080)) / "experiments/systems/app.yaml")
    expected = tuple(word.replace("${port}", "$port").replace("{port}", "$port") for word in given_argv)
    assert system.instances[0].command == expected


def test_a_dollar_that_is_not_the_port_stays_a_dollar() -> None:
    assert command_text(["a", "$HOME", "p=$port"]) == '[a, $$HOME, "p=$port"]'


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["init", "new"], "no command"),
        (["init", "new", "--", "python3", "server.py"], "where its port belongs"),
        (["init", "new", "--", "no-such-program-here", "$port"], "no program"),
        (["init", "new", "--port", "99999", "--", "python3"], "no port"),
        (["init", "new", "--port", "80", "--", "python3", "$port"], "write one of the two"),
        (["init", "new", "--ready", "healthz", "--", "python3", "$port"], "no request"),
        (["init", "new", "--command", "python3 'x", "--port", "80"], "--command"),
        (["init", "new", "--command", "python3", "--", "python3", "$port"], "given twice"),
    ],
)
def test_what_cannot_be_drilled_is_refused_and_nothing_is_written(
    argv: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert leave(argv) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_nothing_that_is_there_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy.yaml").write_text("mine", encoding="utf-8")
    assert leave(["init", "--", *SERVER]) == 2
    assert "policy.yaml: is there already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if path.name != "state-home"] == ["policy.yaml"]
    assert (tmp_path / "policy.yaml").read_text(encoding="utf-8") == "mine"
