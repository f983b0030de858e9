"""The published schema and the reader are made from the same models, and agree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from stormdrill.faults.builtin import BUILTIN
from stormdrill.spec import catalogue
from stormdrill.spec.load import read_experiment
from stormdrill.spec.policy import read_policy
from stormdrill.spec.profile import read_profile
from stormdrill.spec.schema import FILES, schema
from stormdrill.spec.system import read_system

FAULTS = {word: fault.parameters for word, fault in BUILTIN.items()}
FIXTURES = Path(__file__).parent / "repository"
FOLDERS = {"experiment": "experiments", "system": "experiments/systems", "profile": "loadgen", "policy": "."}
SHIPPED = [
    (kind, path)
    for root in (FIXTURES, catalogue.root())
    for kind, folder in FOLDERS.items()
    for path in sorted((root / folder).glob("policy.yaml" if kind == "policy" else "*.yaml"))
]
CORPUS = Path(__file__).parents[2] / "corpus" / "bad"
STRUCTURAL = (
    "unknown key",
    "lacks",
    "is empty",
    "where a table is meant",
    "where a list is meant",
    "is not a duration",
    "is not a rate",
    "is not a share",
    "is not a size",
    "where a whole number is meant",
    "is too small",
    "is too large",
    "is a number where",
)


def validator(kind: str) -> Draft202012Validator:
    made = schema(kind, FAULTS) if kind == "experiment" else schema(kind)
    Draft202012Validator.check_schema(made)
    return Draft202012Validator(made)


@pytest.mark.parametrize(("kind", "path"), SHIPPED, ids=lambda item: item if isinstance(item, str) else item.name)
def test_every_shipped_file_is_read_and_fits_its_schema(kind: str, path: Path) -> None:
    readers: dict[str, Callable[[Path], object]] = {
        "system": read_system,
        "profile": read_profile,
        "policy": read_policy,
    }
    if kind == "experiment":
        for fast in (False, True):
            read_experiment(path, faults=FAULTS, fast=fast)
    else:
        readers[kind](path)
    assert [error.message for error in validator(kind).iter_errors(yaml.safe_load(path.read_text()))] == []


@pytest.mark.parametrize("kind", sorted(FILES))
def test_the_schema_refuses_what_the_reader_refuses_by_structure(kind: str) -> None:
    check = validator(kind)
    tried = 0
    for path in sorted((CORPUS / kind).glob("*.yaml")):
        said = path.with_suffix(".txt").read_text()
        # Only what stock YAML reads as the reader does: no 1.1 booleans, no times of day.
        if any(part in said for part in STRUCTURAL) and "1.1" not in said and "octal" not in path.name:
            tried += 1
            assert list(check.iter_errors(yaml.safe_load(path.read_text()))), path.name
    assert tried >= 3


def test_a_parameter_may_stand_wherever_one_value_is_meant() -> None:
    experiment = yaml.safe_load((FIXTURES / "experiments" / "region-loss.yaml").read_text())
    experiment["load"]["rate"] = "$rate"
    experiment["phases"]["fault"] = "$wait"
    experiment["faults"][0]["region-loss"]["mode"] = "$mode"
    assert list(validator("experiment").iter_errors(experiment)) == []


def test_every_key_that_people_write_is_described() -> None:
    for kind in FILES:
        for name, key in schema(kind)["properties"].items():
            assert "description" in key or "$ref" in key, f"{kind}.{name}"


def test_the_schema_without_faults_lets_any_word_pass() -> None:
    experiment = yaml.safe_load((FIXTURES / "experiments" / "region-loss.yaml").read_text())
    experiment["faults"] = [{"something-else": {"delay": "3s"}}]
    assert list(Draft202012Validator(schema("experiment")).iter_errors(experiment)) == []
    assert list(validator("experiment").iter_errors(experiment))


def test_an_unknown_kind_of_file_has_no_schema() -> None:
    with pytest.raises(KeyError):
        schema("runbook")
