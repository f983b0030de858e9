"""A secret is named by where it comes from: the plan holds a placeholder, the value is read when the run starts."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from jsonschema import Draft202012Validator

from stormdrill.errors import Refused
from stormdrill.faults.region_loss import Parameters
from stormdrill.model.experiment import Experiment, Phases
from stormdrill.model.plan import Plan
from stormdrill.model.system import Secret, ServiceInstance, System
from stormdrill.spec import secrets
from stormdrill.spec.load import read_experiment
from stormdrill.spec.schema import schema
from stormdrill.spec.system import read_system

REPOSITORY = Path(__file__).parent / "repository"
VALUE = 'kV7"\\qe-4f+x/9 z'
FILE = """
name: app
entry: web
parameters: {token: {secret: true, env: API_TOKEN, description: what the shop asks for}, regions: [eu, us]}
process:
  services:
    web:
      command: [python, web.py, $port]
      each: regions
      env: {TOKEN: $token, AUTHORIZATION: "Bearer $token in $region"}
      ready: GET /
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "app.yaml"
    path.write_text(FILE)
    return path


def planned(*sources: str, **env: str) -> Plan:
    named = tuple(Secret(f"token{number or ''}", source) for number, source in enumerate(sources))
    return Plan(
        experiment=Experiment(
            name="x", title="x", hypothesis="x", owner="x", system="app", phases=Phases(0, 1, 1, 1), faults=(),
            objectives=(),
        ),
        system=System("app", "web", (ServiceInstance("web", "web", ("web",), env=env),), secrets=named),
        target="process", seed=1, injections=(), duration_s=1.0, worst_case="", irreversible=(), permissions=(),
    )  # fmt: skip


def said(plan: Plan, files: dict[str, str] | None = None) -> str:
    with pytest.raises(Refused) as refused:
        secrets.values(plan, files)
    return str(refused.value)


def test_the_system_holds_the_source_and_a_placeholder_never_the_value(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_TOKEN", VALUE)
    system = read_system(file)
    assert system.secrets == (Secret("token", "env:API_TOKEN"),)
    assert system.parameters == {"token": "${secret:token}", "regions": "eu,us"}
    assert system.instances[1].env == {
        "TOKEN": "${secret:token}",
        "AUTHORIZATION": "Bearer ${secret:token} in us",
    }
    assert VALUE not in msgspec.json.encode(system).decode()


def test_set_names_another_source(file: Path) -> None:
    for source in ("env:OTHER", "file:/etc/shop/token", "file:a:b"):
        assert read_system(file, {"token": source}).secrets == (Secret("token", source),)


@pytest.mark.parametrize("literal", ["hunter2hunter2", "env:", "file:", "env:not a name", "$token", ""])
def test_a_literal_value_is_refused_and_not_repeated(file: Path, literal: str) -> None:
    with pytest.raises(Refused) as refused:
        read_system(file, {"token": literal})
    assert str(refused.value) == (
        "--set token=…: token is a secret: its value would stand in the shell's history and in the record; "
        "write --set token=env:VARIABLE or --set token=file:PATH"
    )


def test_an_experiment_s_secrets_are_the_run_s_too(tmp_path: Path) -> None:
    source = (REPOSITORY / "experiments" / "region-loss.yaml").read_text()
    path = tmp_path / "region-loss.yaml"
    path.write_text(
        source.replace("parameters: {region: eu}", "parameters: {region: eu, inherited: {secret: true, file: t}}")
    )
    loaded = read_experiment(path, faults={"region-loss": Parameters}, roots=(REPOSITORY,))
    assert loaded.system.secrets == (Secret("inherited", "file:t"),)
    assert loaded.experiment.parameters["inherited"] == "${secret:inherited}"


def test_the_value_is_read_from_the_environment_or_a_file_s_only_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(VALUE + "\n")
    monkeypatch.setenv("API_TOKEN", VALUE[1:])
    assert secrets.values(planned("env:API_TOKEN", f"file:{tmp_path}/token")) == {
        "token": VALUE[1:],
        "token1": VALUE,
    }


def test_everything_that_is_missing_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("API_TOKEN", raising=False)
    env = "secret token (env:API_TOKEN): the variable API_TOKEN is not set"
    file = "secret token1 (file:nowhere): the file cannot be read (No such file or directory)"
    assert said(planned("env:API_TOKEN", "file:nowhere")).splitlines() == [
        f"{env}; set it, or name another with --set token=env:…",
        f"{file}; write it, or name another with --set token1=file:…",
    ]


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("", "shorter than 4 characters"),
        ("abc", "shorter than 4 characters"),
        ("freeze", "an ordinary word"),
        ("runner-gone", "an ordinary word"),
        ("2026", "an ordinary word or number"),
        ("-----BEGIN KEY-----\nMIIB\n", "several lines"),
        (" padded-9f8e", "a space"),
    ],
)
def test_a_value_that_cannot_be_removed_by_value_is_refused(
    value: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_TOKEN", value)
    text = said(planned("env:API_TOKEN"))
    assert what in text
    assert not value.strip() or value not in text


def test_a_value_that_stands_in_a_file_or_in_the_plan_is_refused_without_repeating_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("API_TOKEN", VALUE)
    text = said(planned("env:API_TOKEN", PASSWORD=VALUE), {"system.yaml": f"a: {VALUE}", "policy.yaml": "a: b"})
    assert "its value stands in plan.json, system.yaml; remove it there" in text
    assert VALUE not in text


def test_what_removes_them_knows_their_usual_encodings(monkeypatch: pytest.MonkeyPatch) -> None:
    import json
    from urllib.parse import quote, quote_plus

    monkeypatch.setenv("API_TOKEN", VALUE)
    redactor = secrets.redactor_of(secrets.values(planned("env:API_TOKEN")))
    for form in (VALUE, json.dumps(VALUE)[1:-1], quote(VALUE, safe=""), quote(VALUE), quote_plus(VALUE)):
        assert redactor.text(f"a {form} b") == "a [redacted] b"


@pytest.mark.parametrize(
    ("declared", "fits"),
    [
        ({"secret": True, "env": "API_TOKEN"}, True),
        ({"secret": True, "file": "token", "description": "what it is for"}, True),
        ({"default": "x", "choices": ["x"]}, True),
        ({"secret": True}, False),
        ({"secret": True, "env": "API_TOKEN", "file": "token"}, False),
        ({"secret": True, "env": "API_TOKEN", "default": "hunter2hunter2"}, False),
        ({"secret": False, "env": "API_TOKEN"}, False),
    ],
)
def test_the_schema_takes_a_secret_by_one_source_and_no_value(declared: dict[str, object], fits: bool) -> None:
    made = schema("system")
    table = {"$schema": made["$schema"], "$defs": made["$defs"], **made["properties"]["parameters"]}
    assert Draft202012Validator(table).is_valid({"token": declared}) is fits
